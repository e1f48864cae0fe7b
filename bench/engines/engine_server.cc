// A vLLM that computes nothing, for `./dev bench engines`: every token of an answer is there at
// once, and leaves in segments of so many events. `bench_engine_server EVENTS_PER_SEGMENT`
// serves on 127.0.0.1 until SIGTERM. Chats are answered as text, for routers that pass text on.
#include <fmt/format.h>
#include <signal.h>

#include <charconv>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>
#include <string_view>

#include "stator/base/clock.h"
#include "stator/net/http_server.h"
#include "stator/runtime/loop.h"

namespace {

using stator::net::HttpExchange;
using Exchange = std::shared_ptr<HttpExchange>;

constexpr std::string_view kJson = "application/json";
constexpr std::string_view kModels =
    R"({"object":"list","data":[{"id":"fake","object":"model","owned_by":"vllm","root":"/nowhere/fake","parent":null,"max_model_len":131072}]})";
constexpr std::string_view kMetrics =
    R"(# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="fake"} 0.0
vllm:num_requests_waiting{engine="0",model_name="fake"} 0.0
vllm:kv_cache_usage_perc{engine="0",model_name="fake"} 0.0
vllm:cache_config_info{block_size="16",engine="0",num_gpu_blocks="65536"} 1.0
)";

/// The number behind the last `"name":` of a body; 0: there is none.
std::uint32_t number_of(std::string_view body, std::string_view name) {
    const auto at = body.rfind(fmt::format("\"{}\":", name));
    if (at == std::string_view::npos) return 0;
    body.remove_prefix(at + name.size() + 3);
    while (body.starts_with(' ')) body.remove_prefix(1);
    std::uint32_t out = 0;
    std::from_chars(body.data(), body.data() + body.size(), out);
    return out;
}

std::string event_of_tokens(std::uint32_t token, bool last) {
    return fmt::format(
        R"(data: {{"request_id":"generate-tokens-bdd5f0c2cec6d8f1","usage":null,"output_mode":"tokens","choices":[{{"index":0,"finish_reason":{},"stop_reason":null,"token_ids":[{}],"routed_experts":null,"sampling_mask":null,"weight_versions":null,"logprobs":null}}]}})"
        "\n\n",
        last ? R"("length")" : "null", token);
}

std::string event_of_chat(bool last) {
    return fmt::format(
        R"(data: {{"id":"chatcmpl-8322614ee3f15820","object":"chat.completion.chunk","created":1795405205,"model":"fake","choices":[{{"index":0,"delta":{{"content":" a"}},"logprobs":null,"finish_reason":{}}}]}})"
        "\n\n",
        last ? R"("length")" : "null");
}

/// One answer, a segment each turn of its loop.
class Answer : public std::enable_shared_from_this<Answer> {
  public:
    Answer(Exchange exchange, std::uint32_t tokens, std::uint32_t per_segment, bool chat)
        : exchange_(std::move(exchange)), left_(tokens), per_segment_(per_segment), chat_(chat) {}

    void go_on() {
        if (exchange_->disconnected()) return;
        for (std::uint32_t i = 0; i < per_segment_ && left_ > 0; ++i) {
            --left_;
            exchange_->write(chat_ ? event_of_chat(left_ == 0)
                                   : event_of_tokens(1000 + left_ % 500, left_ == 0));
        }
        if (left_ > 0) {
            exchange_->loop().post([self = shared_from_this()] { self->go_on(); });
            return;
        }
        exchange_->write("data: [DONE]\n\n");
        exchange_->end_stream();
    }

  private:
    Exchange exchange_;
    std::uint32_t left_;
    std::uint32_t per_segment_;
    bool chat_;
};

void answer(const Exchange& exchange, std::uint32_t per_segment) {
    const std::string& path = exchange->request().path;
    const bool post = exchange->request().method == "POST";
    const bool tokens = path == "/inference/v1/generate";
    if (post && (tokens || path == "/v1/chat/completions")) {
        const std::string body = exchange->take_body();
        const std::uint32_t most = std::max(1U, number_of(body, "max_tokens"));
        exchange->begin_stream(200, "text/event-stream; charset=utf-8");
        std::make_shared<Answer>(exchange, most, per_segment, !tokens)->go_on();
    } else if (tokens) {
        exchange->respond(405, kJson, R"({"detail":"Method Not Allowed"})");
    } else if (path == "/health") {
        exchange->respond(200, "text/plain", "");
    } else if (path == "/version") {
        exchange->respond(200, kJson, R"({"version":"0.32.0"})");
    } else if (path == "/v1/models") {
        exchange->respond(200, kJson, kModels);
    } else if (path == "/metrics") {
        exchange->respond(200, "text/plain; version=1.0.0", kMetrics);
    } else {
        exchange->respond(404, kJson, R"({"detail":"Not Found"})");
    }
}

}  // namespace

int main(int argc, char** argv) {
    const std::uint32_t per_segment = argc > 1 ? std::strtoul(argv[1], nullptr, 10) : 0;
    if (per_segment == 0) {
        std::fprintf(stderr, "usage: %s EVENTS_PER_SEGMENT\n", argv[0]);
        return 2;
    }
    sigset_t ends;
    sigemptyset(&ends);
    sigaddset(&ends, SIGTERM);
    sigaddset(&ends, SIGINT);
    sigprocmask(SIG_BLOCK, &ends, nullptr);
    stator::runtime::LoopPool loops(1, "engine");
    loops.start();
    stator::net::HttpServer server(
        loops, {}, [per_segment](const Exchange& exchange) { answer(exchange, per_segment); },
        [](int, std::string_view message) {
            return std::pair(std::string("text/plain"), std::string(message));
        });
    if (const auto listening = server.listen("127.0.0.1", 0); !listening) {
        std::fprintf(stderr, "%s\n", listening.error().message.c_str());
        return 1;
    }
    std::printf("%u\n", server.port());
    std::fflush(stdout);
    int got = 0;
    sigwait(&ends, &got);
    server.stop(stator::Deadline::at(stator::Clock::real().now()));
    loops.stop();
    return 0;
}
