// What a constraint costs with a real vocabulary. STATOR_MODEL names a GGUF file.
#include <benchmark/benchmark.h>

#include <cstdlib>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <vector>

#include "stator/model/gguf_model.h"
#include "stator/protocol/generate.h"
#include "stator/text/guides/guide.h"

namespace {

using namespace stator;
using Kind = protocol::OutputConstraint::Kind;

const text::Tokenizer* tokenizer() {
    static const std::shared_ptr<const model::GgufModel> kFile = [] {
        const char* path = std::getenv("STATOR_MODEL");
        auto opened = model::GgufModel::open(path != nullptr ? path : "");
        return opened ? *opened : nullptr;
    }();
    return kFile ? &kFile->tokenizer() : nullptr;
}

const text::GuideFactory* factory() {
    static const std::shared_ptr<const text::GuideFactory> kFactory = [] {
        auto made = text::GuideFactory::make(*tokenizer());
        return made ? *made : nullptr;
    }();
    return kFactory.get();
}

std::string wide_schema(int properties) {
    std::string out = R"({"type":"object","additionalProperties":false,"properties":{)";
    std::string required;
    for (int i = 0; i < properties; ++i) {
        out += fmt::format(R"({}"property_{}":{{"type":["string","null"],"maxLength":{}}})",
                           i ? "," : "", i, 10 + i);
        required += fmt::format("{}\"property_{}\"", i ? "," : "", i);
    }
    return out + "},\"required\":[" + required + "]}";
}

protocol::OutputConstraint constraint(std::int64_t which) {
    constexpr const char* kPerson =
        R"({"type":"object","properties":{"name":{"type":"string"},"age":{"type":"integer",)"
        R"("minimum":0,"maximum":130},"tags":{"type":"array","items":{"enum":["a","b","c"]}}},)"
        R"("required":["name","age","tags"],"additionalProperties":false})";
    switch (which) {
        case 0:
            return {Kind::kJsonObject, "", ""};
        case 1:
            return {Kind::kJsonSchema, kPerson, ""};
        case 2:
            return {Kind::kJsonSchema, wide_schema(200), ""};
        case 3:
            return {Kind::kRegex, R"([A-Z][a-z]+( [A-Z][a-z]+)*: \d{3}-\d{4}(, .{1,60})?)", ""};
        default:
            return {Kind::kJsonObject, "", "</think>"};
    }
}

constexpr const char* kNames[] = {"json_object", "person", "200 properties", "regex", "thinking"};

void make_factory(benchmark::State& state) {
    if (tokenizer() == nullptr) return state.SkipWithError("STATOR_MODEL names no model");
    for (auto _ : state) benchmark::DoNotOptimize(text::GuideFactory::make(*tokenizer()));
    state.SetLabel(fmt::format("{} tokens", tokenizer()->vocab_size()));
}
BENCHMARK(make_factory)->Unit(benchmark::kMillisecond);

void compile(benchmark::State& state) {
    if (tokenizer() == nullptr) return state.SkipWithError("STATOR_MODEL names no model");
    const auto c = constraint(state.range(0));
    for (auto _ : state) benchmark::DoNotOptimize(factory()->compile(c));
    state.SetLabel(kNames[state.range(0)]);
}
BENCHMARK(compile)->DenseRange(0, 4)->Unit(benchmark::kMillisecond);

/// One token: the mask, a random token of it, accepted. `copy`: of texts that follow the first, as
/// requests with the same schema do.
void token(benchmark::State& state) {
    if (tokenizer() == nullptr) return state.SkipWithError("STATOR_MODEL names no model");
    auto first = factory()->compile(constraint(state.range(0)));
    if (!first) return state.SkipWithError(first.error().message.c_str());
    std::mt19937 random(1);
    std::vector<std::uint32_t> bits(factory()->vocab_size() / 32 + 1);
    std::vector<tokens::TokenId> some;
    auto guide = first->copy();
    int length = 0;
    for (auto _ : state) {
        if (guide->finished() || length++ > 200) {
            guide = first->copy();
            length = 0;
        }
        if (auto ok = guide->mask(bits); !ok)
            return state.SkipWithError(ok.error().message.c_str());
        state.PauseTiming();
        some.clear();
        for (std::uint32_t t = 0; t < factory()->vocab_size(); ++t) {
            if ((bits[t / 32] >> (t % 32) & 1U) != 0 && !tokenizer()->is_end(t)) some.push_back(t);
        }
        state.ResumeTiming();
        if (some.empty()) {
            length = 1000;
            continue;
        }
        benchmark::DoNotOptimize(guide->accept(some[random() % some.size()]));
    }
    state.SetLabel(kNames[state.range(0)]);
}
BENCHMARK(token)->DenseRange(0, 4)->Unit(benchmark::kMicrosecond);

}  // namespace
