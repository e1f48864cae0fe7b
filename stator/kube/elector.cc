#include "stator/kube/elector.h"

#include <algorithm>
#include <utility>

#include "stator/base/log.h"
#include "stator/runtime/asio.h"

namespace stator::kube {
namespace {
constexpr std::chrono::milliseconds kLook{200};  // how late the end of leading may be told
}

Elector::Elector(std::shared_ptr<Client> client, ElectionOptions options,
                 std::function<void(bool leading)> changed)
    : client_(std::move(client)),
      election_(std::move(options)),
      changed_(std::move(changed)),
      timer_(runtime::asio_context(client_->loop())) {}

bool Elector::leading() const { return !stopped_ && election_.leading(client_->clock().now()); }

void Elector::start() { step(); }

void Elector::send(Election::Call call, std::function<void(Result<Answer>)> done) {
    Request request;
    request.method = std::move(call.method);
    request.path = std::move(call.path);
    request.body = std::move(call.body);
    if (!request.body.empty()) request.content_type = "application/json";
    client_->call(std::move(request), std::move(done));
}

void Elector::step() {
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

void Elector::tell() {
    const bool now = leading();
    if (std::exchange(told_, now) == now) return;
    if (now) {
        log_info("This process leads.", {{"lease", election_.holder()}});
    } else {
        log_warn("This process does not lead any more.", {{"holder", election_.holder()}});
    }
    changed_(now);
}

void Elector::stop(std::function<void()> done) {
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

}  // namespace stator::kube
