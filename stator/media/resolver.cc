#include "stator/media/resolver.h"

#include <netdb.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <atomic>
#include <cstring>
#include <future>
#include <system_error>
#include <thread>
#include <utility>

namespace stator::media {
namespace {

/// A process that asks for more names than this at once is misled.
constexpr std::size_t kMostLookUps = 64;

Result<std::vector<IpAddress>> look_up_by_system(const std::string& host) {
    constexpr std::size_t kMost = 16;
    addrinfo hints{};
    hints.ai_socktype = SOCK_STREAM;
    hints.ai_flags = AI_ADDRCONFIG;
    const bool dotted = host.find('.') != std::string::npos;
    addrinfo* found = nullptr;
    if (::getaddrinfo((dotted ? host + "." : host).c_str(), nullptr, &hints, &found) != 0) {
        return error(ErrorCode::kUnavailable, "the URL's host {} can't be found", host);
    }
    const std::unique_ptr<addrinfo, decltype(&::freeaddrinfo)> owner(found, &::freeaddrinfo);
    std::vector<IpAddress> out;
    for (const addrinfo* a = found; a != nullptr && out.size() < kMost; a = a->ai_next) {
        IpAddress& address = out.emplace_back();
        address.v6 = a->ai_family == AF_INET6;
        if (address.v6) {
            const auto* in = reinterpret_cast<const sockaddr_in6*>(a->ai_addr);
            std::memcpy(address.bytes.data(), &in->sin6_addr, 16);
        } else if (a->ai_family == AF_INET) {
            const auto* in = reinterpret_cast<const sockaddr_in*>(a->ai_addr);
            std::memcpy(address.bytes.data(), &in->sin_addr, 4);
        } else {
            out.pop_back();
        }
    }
    if (out.empty()) {
        return error(ErrorCode::kUnavailable, "the URL's host {} has no address", host);
    }
    return out;
}

class ResolverInThreads final : public Resolver {
  public:
    ResolverInThreads(LookUp look_up, std::size_t most)
        : shared_(std::make_shared<Shared>(std::move(look_up), most)) {}

    Result<std::vector<IpAddress>> resolve(const std::string& host,
                                           std::chrono::nanoseconds within) override {
        if (shared_->under_way.fetch_add(1) >= shared_->most) {
            shared_->under_way.fetch_sub(1);
            return error(ErrorCode::kOverloaded, "too many names are being looked up");
        }
        std::packaged_task<Result<std::vector<IpAddress>>()> task([shared = shared_, host] {
            auto found = shared->look_up(host);
            shared->under_way.fetch_sub(1);
            return found;
        });
        auto answer = task.get_future();
        try {
            std::thread(std::move(task)).detach();
        } catch (const std::system_error&) {
            shared_->under_way.fetch_sub(1);
            return error(ErrorCode::kOverloaded, "no thread can be had to look a name up");
        }
        if (answer.wait_for(within) != std::future_status::ready) {
            return error(ErrorCode::kDeadlineExceeded,
                         "the URL's host {} was not found in time: the name service is slow", host);
        }
        return answer.get();
    }

  private:
    struct Shared {
        Shared(LookUp l, std::size_t m) : look_up(std::move(l)), most(m) {}
        const LookUp look_up;
        const std::size_t most;
        std::atomic<std::size_t> under_way{0};
    };
    const std::shared_ptr<Shared> shared_;  // with threads that were left behind
};

}  // namespace

std::shared_ptr<Resolver> make_resolver(LookUp look_up, std::size_t most) {
    return std::make_shared<ResolverInThreads>(std::move(look_up), most);
}

std::shared_ptr<Resolver> system_resolver() {
    return make_resolver(look_up_by_system, kMostLookUps);
}

}  // namespace stator::media
