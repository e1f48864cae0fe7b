#include "stator/kube/watcher.h"

#include <algorithm>
#include <boost/asio/steady_timer.hpp>
#include <string>
#include <utility>

#include "stator/kube/status.h"
#include "stator/runtime/asio.h"

namespace stator::kube {
namespace {

class LoopWatcher final : public Watcher, public std::enable_shared_from_this<LoopWatcher> {
  public:
    LoopWatcher(std::shared_ptr<Client> client, ReflectorOptions options, ObjectSink& sink,
                std::function<void()> turn)
        : client_(std::move(client)),
          reflector_(std::move(options), sink),
          turn_(std::move(turn)),
          timer_(runtime::asio_context(client_->loop())) {}

    void start() override { step(); }
    void stop() override;
    [[nodiscard]] const Reflector& reflector() const override { return reflector_; }

  private:
    class Call;
    void step();
    void turn_later();

    const std::shared_ptr<Client> client_;
    Reflector reflector_;
    std::function<void()> turn_;
    boost::asio::steady_timer timer_;
    std::shared_ptr<net::HttpCall> call_;
    std::shared_ptr<Call> handler_;  ///< of the present call
    bool stopped_ = false;
    bool turn_asked_ = false;
};

/// Hands on what comes, as long as it is the watcher's present call.
class LoopWatcher::Call final : public net::HttpCallHandler {
  public:
    explicit Call(const std::shared_ptr<LoopWatcher>& watcher) : watcher_(watcher) {}

    void on_head(const net::HttpResponseHead& head) override {
        if (const auto w = present()) {
            w->reflector_.on_head(head.status, read_retry_after(head.header("Retry-After")),
                                  w->client_->clock().now());
            w->step();
        }
    }
    void on_body(std::string_view piece, TimePoint at) override {
        if (const auto w = present()) {
            w->reflector_.on_body(piece, at);
            w->step();
        }
    }
    void on_end(const net::HttpFailure* failure, TimePoint at) override {
        const auto w = present();
        if (!w) return;
        if (failure != nullptr && failure->kind == net::HttpFailure::Kind::kConnect) {
            w->client_->not_connected();
        }
        w->call_.reset();
        w->handler_.reset();
        w->reflector_.on_end(failure != nullptr ? failure->error.message : "", at);
        w->step();
    }

  private:
    [[nodiscard]] std::shared_ptr<LoopWatcher> present() const {
        auto w = watcher_.lock();
        return w && !w->stopped_ && w->handler_.get() == this ? w : nullptr;
    }
    const std::weak_ptr<LoopWatcher> watcher_;
};

void LoopWatcher::stop() {
    if (std::exchange(stopped_, true)) return;
    timer_.cancel();
    handler_.reset();
    if (const auto call = std::exchange(call_, nullptr)) call->cancel();
}

void LoopWatcher::step() {
    if (stopped_) return;
    const TimePoint now = client_->clock().now();
    if (reflector_.take_drop()) {
        handler_.reset();
        if (const auto call = std::exchange(call_, nullptr)) call->cancel();
    }
    if (reflector_.take_token_refused()) client_->token_refused();
    if (const auto path = reflector_.take_call(now)) {
        handler_ = std::make_shared<Call>(shared_from_this());
        std::string why;
        call_ = client_->stream(*path, handler_, why);
        if (!call_) {
            handler_.reset();
            reflector_.on_end(why, now);
        }
    }
    timer_.expires_after(std::min<std::chrono::nanoseconds>(
        reflector_.next_time().left(client_->clock().now()), std::chrono::hours(1)));
    timer_.async_wait([weak = weak_from_this()](const boost::system::error_code& ec) {
        const auto self = weak.lock();
        if (ec || !self || self->stopped_) return;
        self->reflector_.on_time(self->client_->clock().now());
        self->step();
    });
    turn_later();
}

void LoopWatcher::turn_later() {
    if (std::exchange(turn_asked_, true)) return;
    client_->loop().at_turn_end([weak = weak_from_this()] {
        const auto self = weak.lock();
        if (!self) return;
        self->turn_asked_ = false;
        if (!self->stopped_) self->turn_();
    });
}

}  // namespace

std::shared_ptr<Watcher> make_watcher(std::shared_ptr<Client> client, ReflectorOptions options,
                                      ObjectSink& sink, std::function<void()> turn) {
    return std::make_shared<LoopWatcher>(std::move(client), std::move(options), sink,
                                         std::move(turn));
}

}  // namespace stator::kube
