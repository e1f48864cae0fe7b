#include "stator/net/http_pool.h"

#include <algorithm>
#include <utility>

#include "stator/base/check.h"
#include "stator/net/http_names.h"
#include "stator/net/http_pool_impl.h"
#include "stator/runtime/asio.h"

namespace stator::net {
namespace {

using Kind = HttpFailure::Kind;

constexpr std::chrono::milliseconds kLookAtWaiting{20};  // how exact their deadlines are

Result<void> append_headers(std::string& out, const HttpHeaders& headers) {
    for (const auto& [name, value] : headers) {
        if (!is_token(name) || value.find_first_of(std::string_view("\r\n\0", 3)) != value.npos) {
            return error(ErrorCode::kInvalidArgument,
                         "the header '{}' has a character that headers can't hold", name);
        }
        out.append(name).append(": ").append(value).append("\r\n");
    }
    return {};
}

bool is_request_path(std::string_view path) {
    return path.starts_with('/') &&
           std::ranges::all_of(path, [](char c) { return c > ' ' && c < 127; });
}

}  // namespace

HttpPool::Impl::Impl(runtime::Loop& the_loop, HttpUrl the_url, HttpPoolOptions the_options,
                     const Clock& the_clock)
    : loop(the_loop),
      url(std::move(the_url)),
      options(std::move(the_options)),
      clock(the_clock),
      base_path(url.path),
      waiting_timer(runtime::asio_context(loop)) {
    while (base_path.ends_with('/')) base_path.pop_back();
    options.max_connections = std::max<std::size_t>(options.max_connections, 1);
}

Result<std::string> HttpPool::Impl::render(const HttpCallRequest& request) const {
    if (!is_token(request.method)) {
        return error(ErrorCode::kInvalidArgument, "'{}' is not an HTTP method", request.method);
    }
    if (!is_request_path(request.path)) {
        return error(ErrorCode::kInvalidArgument, "'{}' is not a path of a request", request.path);
    }
    std::string out;
    out.append(request.method).append(" ").append(base_path).append(request.path);
    out.append(" HTTP/1.1\r\n").append(common_headers);
    if (auto added = append_headers(out, request.headers); !added) {
        return tl::unexpected<Error>(std::move(added.error()));
    }
    if (!request.body.empty() || request.method == "POST" || request.method == "PUT") {
        out.append("Content-Length: ").append(std::to_string(request.body.size())).append("\r\n");
    }
    out += "\r\n";
    return out;
}

void HttpPool::Impl::serve(std::shared_ptr<PoolCall> call) {
    if (!idle.empty()) {
        const auto connection = std::move(idle.back());
        idle.pop_back();
        ++counts.reused;
        connection->begin(std::move(call));
    } else if (connections.size() < options.max_connections) {
        connect_for(std::move(call));
    } else if (waiting.size() < options.max_waiting) {
        waiting.push_back(std::move(call));
        watch_waiting();
    } else {
        ++counts.refused;
        call->fail_later(
            loop,
            http_failure(Kind::kNotSent, ErrorCode::kOverloaded,
                         fmt::format("{} calls wait for one of {} connections, which is the most",
                                     waiting.size(), connections.size())),
            clock.now());
    }
}

void HttpPool::Impl::serve_fresh(std::shared_ptr<PoolCall> call) {
    ++counts.stale_retries;
    if (connections.size() < options.max_connections) {
        connect_for(std::move(call));
        return;
    }
    // Another call took the room of the closed connection; it is this one's turn next.
    call->sit_on({});
    waiting.push_front(std::move(call));
    watch_waiting();
}

void HttpPool::Impl::connect_for(std::shared_ptr<PoolCall> call) {
    auto connection = std::make_shared<PoolConnection>(shared_from_this());
    connections.emplace(connection.get(), connection);
    connection->dial();
    connection->begin(std::move(call));
}

void HttpPool::Impl::serve_waiting() {
    while (!waiting.empty() && !stopped &&
           (!idle.empty() || connections.size() < options.max_connections)) {
        auto call = std::move(waiting.front());
        waiting.pop_front();
        serve(std::move(call));
    }
}

void HttpPool::Impl::on_idle(const std::shared_ptr<PoolConnection>& connection) {
    idle.push_back(connection);
    serve_waiting();
}

void HttpPool::Impl::on_retired(PoolConnection& connection) {
    const auto it = std::ranges::find(idle, &connection, &std::shared_ptr<PoolConnection>::get);
    if (it != idle.end()) idle.erase(it);
    // The socket keeps it until on_closed().
    connections.erase(&connection);
    if (waiting.empty() || stopped) return;
    // Not at once: who closed it is in the middle of something, perhaps of a retry.
    loop.post([weak = weak_from_this()] {
        if (const auto self = weak.lock()) self->serve_waiting();
    });
}

void HttpPool::Impl::forget(const PoolCall& call) {
    const auto it = std::ranges::find(waiting, &call, &std::shared_ptr<PoolCall>::get);
    if (it != waiting.end()) waiting.erase(it);
}

void HttpPool::Impl::watch_waiting() {
    if (waiting.empty() || std::exchange(watching, true)) return;
    waiting_timer.expires_after(kLookAtWaiting);
    waiting_timer.async_wait([weak = weak_from_this()](const auto& ec) {
        const auto self = weak.lock();
        if (ec || !self || self->stopped) return;
        self->watching = false;
        const TimePoint now = self->clock.now();
        std::erase_if(self->waiting, [&](const std::shared_ptr<PoolCall>& call) {
            if (!call->request().deadline.reached(now)) return false;
            call->fail_later(
                self->loop,
                http_failure(Kind::kTimeout, ErrorCode::kDeadlineExceeded,
                             "the time of the call ran out while it waited for a connection"),
                now);
            return true;
        });
        self->watch_waiting();
    });
}

void HttpPool::Impl::stop() {
    if (std::exchange(stopped, true)) return;
    waiting_timer.cancel();
    for (const auto& call : std::exchange(waiting, {})) {
        call->fail_later(
            loop, http_failure(Kind::kCancelled, ErrorCode::kCancelled, "the pool was stopped"),
            clock.now());
    }
    for (const auto& [_, connection] : std::exchange(connections, {})) connection->stop();
    idle.clear();
}

HttpPool::HttpPool(std::shared_ptr<Impl> impl) : impl_(std::move(impl)) {}

HttpPool::~HttpPool() { impl_->stop(); }

Result<std::unique_ptr<HttpPool>> HttpPool::create(runtime::Loop& loop, HttpUrl url,
                                                   HttpPoolOptions options, const Clock& clock) {
    if (url.tls && !options.tls) {
        auto context = TlsContext::client({});
        if (!context) return tl::unexpected<Error>(std::move(context.error()));
        options.tls = std::move(*context);
    }
    std::string common = "Host: " + url.authority + "\r\n";
    if (auto added = append_headers(common, options.headers); !added) {
        return tl::unexpected<Error>(std::move(added.error()));
    }
    auto impl = std::make_shared<Impl>(loop, std::move(url), std::move(options), clock);
    impl->common_headers = std::move(common);
    return std::unique_ptr<HttpPool>(new HttpPool(std::move(impl)));
}

std::shared_ptr<HttpCall> HttpPool::start(HttpCallRequest request,
                                          std::shared_ptr<HttpCallHandler> handler) {
    STATOR_ASSERT(impl_->loop.on_this_thread());
    ++impl_->counts.calls;
    auto call = std::make_shared<PoolCall>(impl_, std::move(request), std::move(handler));
    if (impl_->stopped) {
        call->fail_later(
            impl_->loop,
            http_failure(Kind::kNotSent, ErrorCode::kCancelled, "the pool was stopped"),
            impl_->clock.now());
    } else if (auto head = impl_->render(call->request()); !head) {
        HttpFailure failure;
        failure.error = std::move(head.error());
        call->fail_later(impl_->loop, std::move(failure), impl_->clock.now());
    } else {
        call->head = std::move(*head);
        impl_->serve(call);
    }
    return call;
}

void HttpPool::stop() { impl_->stop(); }

HttpPoolCounts HttpPool::counts() const {
    HttpPoolCounts counts = impl_->counts;
    counts.open = impl_->connections.size();
    counts.waiting = impl_->waiting.size();
    return counts;
}

}  // namespace stator::net
