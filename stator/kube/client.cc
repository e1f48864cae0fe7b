#include "stator/kube/client.h"

#include <boost/asio/steady_timer.hpp>
#include <utility>

#include "stator/base/log.h"
#include "stator/kube/status.h"
#include "stator/runtime/asio.h"

namespace stator::kube {
namespace {

constexpr std::size_t kMaxAuthoritiesBytes = 1024 * 1024;
constexpr std::chrono::seconds kMostPatience{5};

}  // namespace

/// One call() on its way, sent at most twice more.
class ClientCall final : public net::HttpCallHandler,
                         public std::enable_shared_from_this<ClientCall> {
  public:
    ClientCall(std::shared_ptr<Client> client, Request request,
               std::function<void(Result<Answer>)> done)
        : client_(std::move(client)),
          request_(std::move(request)),
          done_(std::move(done)),
          timer_(runtime::asio_context(client_->loop())) {}

    void send() {
        if (client_->stopped()) return;
        answer_ = {};
        retry_after_.reset();
        auto request = client_->with_token(request_);
        if (!request) {
            client_->loop().post([self = shared_from_this(), why = request.error()] {
                self->finish(tl::unexpected(why));
            });
            return;
        }
        call_ = client_->pool_->start(std::move(*request), shared_from_this());
    }

    void on_head(const net::HttpResponseHead& head) override {
        answer_.status = head.status;
        retry_after_ = read_retry_after(head.header("Retry-After"));
    }
    void on_body(std::string_view piece, TimePoint) override {
        if (answer_.body.size() + piece.size() > Client::kMaxAnswerBytes) {
            too_large_ = true;
            return;
        }
        answer_.body += piece;
    }
    void on_end(const net::HttpFailure* failure, TimePoint) override {
        if (client_->stopped()) return;
        if (failure != nullptr) {
            if (failure->kind == net::HttpFailure::Kind::kConnect) client_->not_connected();
            finish(tl::unexpected(failure->error));
            return;
        }
        if (answer_.status == 401 && !std::exchange(token_again_, true)) {
            client_->token_refused();
            send();
            return;
        }
        const bool busy = answer_.status == 429 || answer_.status == 503;
        if (busy && retry_after_ && *retry_after_ <= kMostPatience &&
            !std::exchange(waited_, true)) {
            timer_.expires_after(*retry_after_);
            timer_.async_wait([self = shared_from_this()](const boost::system::error_code& ec) {
                if (!ec) self->send();
            });
            return;
        }
        if (too_large_) {
            finish(error(ErrorCode::kTooLarge, "the API server's answer has more than {} bytes",
                         Client::kMaxAnswerBytes));
            return;
        }
        finish(std::move(answer_));
    }

  private:
    void finish(Result<Answer> result) {
        if (client_->stopped()) return;
        if (const auto done = std::exchange(done_, nullptr)) done(std::move(result));
    }

    const std::shared_ptr<Client> client_;
    const Request request_;
    std::function<void(Result<Answer>)> done_;
    boost::asio::steady_timer timer_;
    std::shared_ptr<net::HttpCall> call_;
    Answer answer_;
    std::optional<std::chrono::seconds> retry_after_;
    bool token_again_ = false;
    bool waited_ = false;
    bool too_large_ = false;
};

Client::Client(runtime::Loop& loop, Access access, const Clock& clock)
    : loop_(loop),
      access_(std::move(access)),
      clock_(clock),
      token_([path = access_.token_file] { return read_small_file(path, TokenFile::kMaxBytes); }) {}

Client::~Client() { stop(); }

Result<std::shared_ptr<Client>> Client::create(runtime::Loop& loop, Access access,
                                               const Clock& clock) {
    std::shared_ptr<Client> client(new Client(loop, std::move(access), clock));
    if (auto ok = client->connect(); !ok) return tl::unexpected(std::move(ok.error()));
    return client;
}

Result<void> Client::connect() {
    net::HttpPoolOptions options;
    options.max_connections = 16;
    options.max_waiting = 1'024;
    options.read_bytes = 64 * 1024;
    // Watches are silent for long; who reads them has a watch of its own on that.
    options.silence_timeout = std::chrono::minutes(20);
    options.idle_timeout = std::chrono::seconds(30);
    options.headers = {{"Accept", "application/json"}, {"User-Agent", "stator"}};
    if (access_.api.tls && !access_.ca_file.empty()) {
        auto text = read_small_file(access_.ca_file, kMaxAuthoritiesBytes);
        if (!text) return tl::unexpected(std::move(text.error()));
        net::TlsFiles files;
        files.authorities = access_.ca_file;
        auto tls = net::TlsContext::client(files);
        if (!tls) return tl::unexpected(std::move(tls.error()));
        options.tls = std::move(*tls);
        authorities_ = std::move(*text);
    }
    auto pool = net::HttpPool::create(loop_, access_.api, std::move(options), clock_);
    if (!pool) return tl::unexpected(std::move(pool.error()));
    pool_ = std::move(*pool);
    return {};
}

void Client::not_connected() {
    if (stopped_ || !access_.api.tls || access_.ca_file.empty()) return;
    const auto text = read_small_file(access_.ca_file, kMaxAuthoritiesBytes);
    if (!text || *text == authorities_) return;
    // Calls of the old pool end as cancelled; who made them tries again.
    if (connect()) {
        log_info("The authorities of the Kubernetes API server were read again.",
                 {{"file", access_.ca_file}});
    }
}

Result<net::HttpCallRequest> Client::with_token(Request request) {
    net::HttpCallRequest out;
    out.method = std::move(request.method);
    out.path = std::move(request.path);
    out.body = std::move(request.body);
    if (!request.content_type.empty()) {
        out.headers.emplace_back("Content-Type", std::move(request.content_type));
    }
    out.deadline = Deadline::after(clock_.now(), kCallWithin);
    if (!access_.token_file.empty()) {
        auto token = token_.get(clock_.now());
        if (!token) return tl::unexpected(std::move(token.error()));
        out.headers.emplace_back("Authorization", "Bearer " + *token);
    }
    return out;
}

void Client::call(Request request, std::function<void(Result<Answer>)> done) {
    if (stopped_) return;
    std::make_shared<ClientCall>(shared_from_this(), std::move(request), std::move(done))->send();
}

std::shared_ptr<net::HttpCall> Client::stream(const std::string& path,
                                              std::shared_ptr<net::HttpCallHandler> handler,
                                              std::string& why) {
    Request get;
    get.path = path;
    auto request = with_token(std::move(get));
    if (!request) {
        why = request.error().message;
        return nullptr;
    }
    request->deadline = {};
    return pool_->start(std::move(*request), std::move(handler));
}

void Client::stop() {
    if (std::exchange(stopped_, true)) return;
    if (pool_) pool_->stop();
}

}  // namespace stator::kube
