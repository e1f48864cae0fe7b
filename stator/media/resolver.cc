#include "stator/media/resolver.h"

#include <netdb.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <cstring>

namespace stator::media {
namespace {

class SystemResolver final : public Resolver {
  public:
    Result<std::vector<IpAddress>> resolve(const std::string& host) override {
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
};

}  // namespace

std::shared_ptr<Resolver> system_resolver() { return std::make_shared<SystemResolver>(); }

}  // namespace stator::media
