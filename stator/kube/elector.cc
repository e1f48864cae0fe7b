#include "stator/kube/elector.h"

#include <algorithm>
#include <boost/asio/steady_timer.hpp>
#include <utility>

#include "stator/base/log.h"
#include "stator/runtime/asio.h"

namespace stator::kube {
namespace {
constexpr std::chrono::milliseconds kLook{200};  // how late the end of leading may be told

class LoopElector final : public Elector, public std::enable_shared_from_this<LoopElector> {
  public:
    LoopElector(std::shared_ptr<Client> client, ElectionOptions options,
                std::function<void(bool leading)> changed)
        : client_(std::move(client)),
          lease_(options.lease),
          election_(std::move(options)),
          changed_(std::move(changed)),
          timer_(runtime::asio_context(client_->loop())) {}

    void start() override { step(); }
    void stop(std::function<void()> done) override;
    [[nodiscard]] bool leading() const override {
        return !stopped_ && election_.leading(client_->clock().now());
    }
    [[nodiscard]] const std::string& holder() const override { return election_.holder(); }

  private:
    void step();
    void tell();
    void send(Election::Call call, std::function<void(Result<Answer>)> done);

    const std::shared_ptr<Client> client_;
    const std::string lease_;
    Election election_;
    std::function<void(bool)> changed_;
    boost::asio::steady_timer timer_;
    bool told_ = false;
    bool stopped_ = false;
};

void LoopElector::send(Election::Call call, std::function<void(Result<Answer>)> done) {
    Request request;
    request.method = std::move(call.method);
    request.path = std::move(call.path);
    request.body = std::move(call.body);
    if (!request.body.empty()) request.content_type = "application/json";
    client_->call(std::move(request), std::move(done));
}

void LoopElector::step() {
    if (stopped_) return;
    const TimePoint now = client_->clock().now();
    if (auto call = election_.take_call(now, client_->clock().unix_seconds())) {
        send(*std::move(call), [weak = weak_from_this()](const Result<Answer>& answer) {
            const auto self = weak.lock();
            if (!self || self->stopped_) return;
            const TimePoint then = self->client_->clock().now();
            if (answer) {
                self->election_.on_answer(answer->status, answer->body, then);
            } else {
                self->election_.on_failure(then);
            }
            self->step();
        });
    }
    tell();
    // While a call is out its answer comes here; the end of leading is looked for meanwhile.
    const auto left = election_.next_time() - now;
    timer_.expires_after(left.count() > 0 ? std::min<std::chrono::nanoseconds>(left, kLook)
                                          : std::chrono::nanoseconds(kLook));
    timer_.async_wait([weak = weak_from_this()](const boost::system::error_code& ec) {
        const auto self = weak.lock();
        if (!ec && self) self->step();
    });
}

void LoopElector::tell() {
    const bool now = leading();
    if (std::exchange(told_, now) == now) return;
    if (now) {
        log_info("This process leads.", {{"lease", lease_}, {"as", election_.holder()}});
    } else {
        log_warn("This process does not lead any more.",
                 {{"lease", lease_}, {"holder", election_.holder()}});
    }
    changed_(now);
}

void LoopElector::stop(std::function<void()> done) {
    if (std::exchange(stopped_, true)) {
        done();
        return;
    }
    timer_.cancel();
    auto call = election_.release(client_->clock().now(), client_->clock().unix_seconds());
    if (!call) {
        done();
        return;
    }
    send(*std::move(call), [done = std::move(done)](const Result<Answer>&) { done(); });
}

}  // namespace

std::shared_ptr<Elector> make_elector(std::shared_ptr<Client> client, ElectionOptions options,
                                      std::function<void(bool leading)> changed) {
    return std::make_shared<LoopElector>(std::move(client), std::move(options), std::move(changed));
}

}  // namespace stator::kube
