#include "stator/cli/encoder_registry.h"

#include <algorithm>
#include <utility>

#include "stator/base/log.h"
#include "stator/codec/json.h"
#include "stator/codec/json_writer.h"
#include "stator/engine/probe/engine_client.h"
#include "stator/net/http_url.h"

namespace stator::cli {
namespace {

constexpr std::string_view kJson = "application/json";
constexpr std::string_view kText = "text/plain";
constexpr std::uint32_t kFailuresUntilHidden = 3;
constexpr std::uint32_t kFailuresUntilForgotten = 360;
constexpr std::chrono::milliseconds kAnswerWithin{3'000};

bool answers(const std::string& url) {
    auto parsed = net::parse_http_url(url);
    if (!parsed) return false;
    auto client = engine::EngineClient::open(std::move(*parsed), {});
    constexpr int kOk = 200;
    return client && (*client)->ask("/health", kAnswerWithin).status == kOk;
}

std::string_view trimmed(std::string_view url) {
    while (url.ends_with('/')) url.remove_suffix(1);
    return url;
}

std::string refusal(std::string_view why) {
    std::string out;
    codec::JsonWriter w(out);
    w.begin_object().key("error").string(why).end_object();
    return out;
}

}  // namespace

EncoderRegistry::Tell tell_engine(const net::HttpUrl& url, const std::string& key) {
    auto made = engine::EngineClient::open(url, key);
    if (!made) return {};
    const std::shared_ptr<engine::EngineClient> client = std::move(*made);
    const auto told = std::make_shared<bool>(false);
    return [client, told](const std::string& encoder, bool there) {
        std::string body;
        codec::JsonWriter w(body);
        w.begin_object().key("url").string(encoder).end_object();
        const engine::EngineAnswer answer =
            there
                ? client->post("/register_encoder_url", std::move(body), kAnswerWithin)
                : client->send("DELETE", "/unregister_encoder_url", std::move(body), kAnswerWithin);
        constexpr int kNotFound = 404;
        if (answer.status != kNotFound || std::exchange(*told, true)) return;
        log_warn(
            "The engine is not told of its encoders: it has no /register_encoder_url, which an "
            "SGLang with --language-only has.");
    };
}

EncoderRegistry::EncoderRegistry(std::chrono::milliseconds ask_every, Alive alive, Tell tell)
    : ask_every_(ask_every),
      alive_(alive ? std::move(alive) : Alive(answers)),
      tell_(std::move(tell)),
      thread_([this] { watch(); }) {}

EncoderRegistry::~EncoderRegistry() {
    {
        const std::scoped_lock lock(mutex_);
        stopping_ = true;
    }
    wake_.notify_all();
    thread_.join();
}

Result<void> EncoderRegistry::add(std::string url) {
    url.resize(trimmed(url).size());
    if (url.size() > kMaxUrlBytes || !net::parse_http_url(url)) {
        return error(ErrorCode::kInvalidArgument, "an encoder's url is http://HOST:PORT");
    }
    const std::scoped_lock lock(mutex_);
    const auto known = std::ranges::find(encoders_, url, &Encoder::url);
    if (known != encoders_.end()) {
        known->failures = 0;
        return {};
    }
    if (encoders_.size() >= kMaxEncoders) {
        return error(ErrorCode::kOverloaded, "{} encoders are registered", encoders_.size());
    }
    log_info("An encoder has registered.", {{"url", url}});
    encoders_.push_back({.url = std::move(url)});
    due_ = true;
    wake_.notify_all();
    return {};
}

void EncoderRegistry::remove(std::string_view url) {
    const std::scoped_lock lock(mutex_);
    const auto n =
        std::erase_if(encoders_, [&](const Encoder& e) { return e.url == trimmed(url); });
    if (n == 0) return;
    gone_.emplace_back(trimmed(url));
    due_ = true;
    wake_.notify_all();
}

std::vector<std::string> EncoderRegistry::urls() const {
    std::vector<std::string> out;
    const std::scoped_lock lock(mutex_);
    for (const Encoder& e : encoders_) {
        if (e.failures < kFailuresUntilHidden) out.push_back(e.url);
    }
    return out;
}

void EncoderRegistry::watch() {
    std::unique_lock lock(mutex_);
    while (true) {
        wake_.wait_for(lock, ask_every_, [this] { return stopping_ || due_; });
        if (stopping_) return;
        due_ = false;
        const std::vector<std::string> gone = std::exchange(gone_, {});
        std::vector<std::string> all;
        for (const Encoder& e : encoders_) all.push_back(e.url);
        lock.unlock();
        for (const std::string& url : gone) {
            if (tell_) tell_(url, false);
        }
        lock.lock();
        for (const std::string& url : all) {
            if (stopping_) return;
            lock.unlock();
            const bool well = alive_(url);
            if (well && tell_) tell_(url, true);
            lock.lock();
            note(url, well);
        }
        std::erase_if(encoders_,
                      [](const Encoder& e) { return e.failures >= kFailuresUntilForgotten; });
    }
}

/// Under the lock.
void EncoderRegistry::note(const std::string& url, bool well) {
    const auto found = std::ranges::find(encoders_, url, &Encoder::url);
    if (found == encoders_.end()) return;
    const std::uint32_t before = found->failures;
    found->failures = well ? 0 : before + 1;
    if (found->failures == kFailuresUntilHidden) {
        log_warn("An encoder does not answer.", {{"url", url}});
        gone_.push_back(url);
    } else if (well && before >= kFailuresUntilHidden) {
        log_info("An encoder answers again.", {{"url", url}});
    }
}

bool EncoderRegistry::answer(net::HttpExchange& exchange) {
    const net::HttpRequest& request = exchange.request();
    if (request.path == "/list_encoder_urls" && request.method == "GET") {
        std::string out;
        codec::JsonWriter w(out);
        w.begin_object().key("encoder_urls").begin_array();
        for (const std::string& url : urls()) w.string(url);
        w.end_array().end_object();
        exchange.respond(200, kJson, out);
        return true;
    }
    const bool adds = request.path == "/register_encoder_url" && request.method == "POST";
    const bool removes = request.path == "/unregister_encoder_url" && request.method == "DELETE";
    if (!adds && !removes) return false;
    codec::JsonDocument document;
    const std::string body = exchange.take_body();
    const auto root = document.parse(body);
    const auto url = root ? root->find("url").as_string() : std::nullopt;
    if (!url || url->empty()) {
        exchange.respond(400, kJson, refusal("Missing or empty 'url' field"));
        return true;
    }
    if (removes) {
        remove(*url);
    } else if (auto ok = add(std::string(*url)); !ok) {
        const int status = ok.error().code == ErrorCode::kOverloaded ? 503 : 400;
        exchange.respond(status, kJson, refusal(ok.error().message));
        return true;
    }
    exchange.respond(200, kText, "OK");
    return true;
}

}  // namespace stator::cli
