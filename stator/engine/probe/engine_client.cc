#include "stator/engine/probe/engine_client.h"

#include <algorithm>
#include <future>
#include <utility>

namespace stator::engine {
namespace {

class OneAnswer final : public net::HttpCallHandler {
  public:
    std::future<EngineAnswer> future() { return promise_.get_future(); }
    void on_head(const net::HttpResponseHead& head) override { answer_.status = head.status; }
    void on_body(std::string_view piece, TimePoint /*at*/) override {
        const std::size_t room =
            EngineClient::kMaxBytes - std::min(EngineClient::kMaxBytes, answer_.body.size());
        answer_.body.append(piece.substr(0, room));
    }
    void on_end(const net::HttpFailure* failure, TimePoint /*at*/) override {
        if (failure != nullptr) answer_ = {0, failure->error.message};
        promise_.set_value(std::move(answer_));
    }

  private:
    EngineAnswer answer_;
    std::promise<EngineAnswer> promise_;
};

}  // namespace

Result<std::unique_ptr<EngineClient>> EngineClient::open(net::HttpUrl url, const std::string& key,
                                                         const Clock& clock) {
    std::unique_ptr<EngineClient> client(new EngineClient(clock));
    net::HttpPoolOptions options;
    options.max_connections = 2;
    options.headers = {{"Accept", "*/*"}};
    if (!key.empty()) options.headers.emplace_back("Authorization", "Bearer " + key);
    auto pool = net::HttpPool::create(client->loop_, std::move(url), options, clock);
    if (!pool) return tl::unexpected<Error>(std::move(pool.error()));
    client->pool_ = std::move(*pool);
    client->loop_.start();
    return client;
}

EngineClient::~EngineClient() {
    if (pool_) loop_.post([this] { pool_->stop(); });
    loop_.stop();
}

EngineAnswer EngineClient::ask(std::string_view path, std::chrono::milliseconds within) {
    return call({.path = std::string(path)}, within);
}

EngineAnswer EngineClient::post(std::string_view path, std::string body,
                                std::chrono::milliseconds within) {
    return send("POST", path, std::move(body), within);
}

EngineAnswer EngineClient::send(std::string_view method, std::string_view path, std::string body,
                                std::chrono::milliseconds within) {
    return call({.method = std::string(method),
                 .path = std::string(path),
                 .headers = {{"Content-Type", "application/json"}},
                 .body = std::move(body)},
                within);
}

EngineAnswer EngineClient::call(net::HttpCallRequest request, std::chrono::milliseconds within) {
    auto handler = std::make_shared<OneAnswer>();
    auto answer = handler->future();
    request.deadline = Deadline::after(clock_.now(), within);
    loop_.post([this, handler, request = std::move(request)]() mutable {
        (void)pool_->start(std::move(request), handler);
    });
    return answer.get();
}

}  // namespace stator::engine
