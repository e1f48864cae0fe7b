#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/steady_timer.hpp>
#include <utility>

#include "stator/discovery/sources.h"
#include "stator/runtime/asio.h"

namespace stator::discovery {
namespace {

namespace asio = boost::asio;

/// Asks, tells, waits; never two questions at once.
class DnsSource final : public SourceBase {
  public:
    DnsSource(std::string host, std::uint16_t port, std::chrono::milliseconds every,
              Resolve resolve, runtime::Loop& loop, Changes changes)
        : SourceBase("dns:" + host + ":" + std::to_string(port), loop, std::move(changes)),
          host_(std::move(host)),
          port_(port),
          every_(every),
          resolve_(std::move(resolve)),
          timer_(runtime::asio_context(loop)) {}

    void start() override { ask(); }

  private:
    std::shared_ptr<DnsSource> self() {
        return std::static_pointer_cast<DnsSource>(shared_from_this());
    }

    void ask() {
        if (stopped()) return;
        resolve_(host_, [self = self()](Result<std::vector<std::string>> found) {
            self->answered(std::move(found));
        });
    }

    void answered(Result<std::vector<std::string>> found) {
        if (stopped()) return;
        timer_.expires_after(every_);
        timer_.async_wait([self = self()](const boost::system::error_code& ec) {
            if (!ec) self->ask();
        });
        if (!found) {
            failed(found.error().message);
            return;
        }
        succeeded();
        std::vector<Candidate> candidates;
        for (auto& host : *found) {
            Candidate candidate;
            candidate.address.host = std::move(host);
            candidate.address.port = port_;
            candidates.push_back(std::move(candidate));
        }
        tell(std::move(candidates));
    }

    void on_stop() override { timer_.cancel(); }

    const std::string host_;
    const std::uint16_t port_;
    const std::chrono::milliseconds every_;
    const Resolve resolve_;
    asio::steady_timer timer_;
};

}  // namespace

Resolve system_resolver(runtime::Loop& loop) {
    using Resolver = asio::ip::tcp::resolver;
    const auto resolver = std::make_shared<Resolver>(runtime::asio_context(loop));
    return [resolver](const std::string& host, Resolved done) {
        resolver->async_resolve(
            host, "",
            [host, done = std::move(done)](const boost::system::error_code& ec,
                                           const Resolver::results_type& results) {
                if (ec) {
                    done(error(ErrorCode::kUnavailable, "the name '{}' can't be resolved: {}", host,
                               ec.message()));
                    return;
                }
                std::vector<std::string> found;
                for (const auto& entry : results) {
                    found.push_back(entry.endpoint().address().to_string());
                }
                done(std::move(found));
            });
    };
}

std::shared_ptr<SourceBase> make_dns_source(std::string host, std::uint16_t port,
                                            std::chrono::milliseconds every, Resolve resolve,
                                            runtime::Loop& loop, Source::Changes changes) {
    return std::make_shared<DnsSource>(std::move(host), port, every, std::move(resolve), loop,
                                       std::move(changes));
}

}  // namespace stator::discovery
