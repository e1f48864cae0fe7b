#include <benchmark/benchmark.h>

#include <string>

#include "stator/codec/json.h"
#include "stator/codec/json_writer.h"
#include "stator/codec/sse.h"
#include "stator/codec/utf8.h"

namespace stator::codec {
namespace {

/// A chat request of about `bytes` bytes.
std::string chat_request(std::size_t bytes) {
    std::string text;
    JsonWriter w(text);
    w.begin_object().key("model").string("a-model").key("stream").boolean(true);
    w.key("temperature").number(0.7).key("max_tokens").number(256).key("messages").begin_array();
    w.begin_object().key("role").string("system");
    w.key("content").string("You are a helpful assistant.").end_object();
    while (text.size() < bytes) {
        w.begin_object().key("role").string("user").key("content");
        w.string("Please explain, in a few words, what \"speculative decoding\" means.\n")
            .end_object();
    }
    w.end_array().end_object();
    return text;
}

void parse_request(benchmark::State& state) {
    const std::string text = chat_request(static_cast<std::size_t>(state.range(0)));
    JsonDocument doc;
    for (auto _ : state) {
        const auto root = doc.parse(text);
        if (!root) return state.SkipWithError("the request was refused");
        benchmark::DoNotOptimize(root->find("max_tokens").as_int());
        root->find("messages").each_element([](std::size_t, JsonView message) {
            benchmark::DoNotOptimize(message.find("content").as_string());
            return true;
        });
    }
    state.SetBytesProcessed(static_cast<std::int64_t>(state.iterations() * text.size()));
}
BENCHMARK(parse_request)->Arg(1 << 10)->Arg(32 << 10)->Arg(1 << 20);

/// The chunk of one streamed token, as the chat route writes it.
void write_chunk(benchmark::State& state) {
    std::string out;
    for (auto _ : state) {
        out.clear();
        out += "data: ";
        JsonWriter w(out);
        w.begin_object().key("id").string("chatcmpl-0123456789abcdef0123");
        w.key("object").string("chat.completion.chunk").key("created").number(1'750'000'000);
        w.key("model").string("a-model").key("choices").begin_array().begin_object();
        w.key("index").number(0).key("delta").begin_object().key("content").string(" token");
        w.end_object().key("logprobs").null().key("finish_reason").null();
        w.end_object().end_array().end_object();
        out += "\n\n";
        benchmark::DoNotOptimize(out.data());
    }
    state.SetBytesProcessed(static_cast<std::int64_t>(state.iterations() * out.size()));
}
BENCHMARK(write_chunk);

void write_string(benchmark::State& state) {
    std::string text;
    while (text.size() < 4096) text += "Some plain text, a \"quote\" now and then,\nand lines. ";
    std::string out;
    for (auto _ : state) {
        out.clear();
        append_json_string(out, text);
        benchmark::DoNotOptimize(out.data());
    }
    state.SetBytesProcessed(static_cast<std::int64_t>(state.iterations() * text.size()));
}
BENCHMARK(write_string);

void write_double(benchmark::State& state) {
    std::string out;
    double d = -0.1;
    for (auto _ : state) {
        out.clear();
        JsonWriter(out).number(d);
        d = d * 1.000001;
        benchmark::DoNotOptimize(out.data());
    }
}
BENCHMARK(write_double);

void read_sse(benchmark::State& state) {
    std::string stream;
    for (int i = 0; i < 64; ++i) stream += "data: " + std::string(190, 'x') + "\n\n";
    SseReader reader;
    for (auto _ : state) {
        if (!reader.feed(stream)) return state.SkipWithError("the stream was refused");
        while (auto event = reader.next()) benchmark::DoNotOptimize(event->data.data());
    }
    state.SetItemsProcessed(static_cast<std::int64_t>(state.iterations() * 64));
}
BENCHMARK(read_sse);

void check_utf8(benchmark::State& state) {
    std::string text;
    while (text.size() < 4096) text += state.range(0) == 0 ? "plain text " : "Ünïcödé 漢字 🙂 ";
    for (auto _ : state) benchmark::DoNotOptimize(utf8_valid(text));
    state.SetBytesProcessed(static_cast<std::int64_t>(state.iterations() * text.size()));
}
BENCHMARK(check_utf8)->ArgName("mixed")->Arg(0)->Arg(1);

}  // namespace
}  // namespace stator::codec
