#include <gtest/gtest.h>

#include <map>

#include "stator/engine/mock/core.h"
#include "stator/engine/mock/step_time.h"

namespace stator::engine::mock {
namespace {

/// A closed loop on a virtual clock: so many requests at a time, all prompts different.
struct LoopFigures {
    double ttft_ms = 0;
    double itl_ms = 0;
};

LoopFigures closed_loop(const Preset& preset, std::uint32_t concurrency, std::uint32_t isl,
                        std::uint32_t osl) {
    CoreOptions o;
    o.step_time = preset.step_time;
    o.blocks = preset.blocks;
    o.kv_bytes_per_token = preset.kv_bytes_per_token;
    Core core(o);
    std::uint64_t next = 0;
    std::map<std::uint64_t, Nanos> sent;
    std::map<std::uint64_t, Nanos> first;
    Nanos now{0};
    const auto send = [&] {
        CoreRequest r;
        r.id = RequestId(++next);
        for (std::uint32_t i = 0; i < isl / o.block_tokens; ++i) {
            r.blocks.emplace_back((next << 20) + i);
        }
        r.tail.assign(isl % o.block_tokens, 1);
        r.max_tokens = osl;
        r.ignore_eos = true;
        sent[next] = now;
        EXPECT_TRUE(core.submit(std::move(r)));
    };
    for (std::uint32_t i = 0; i < concurrency; ++i) send();
    LoopFigures sum;
    std::uint32_t counted = 0;
    std::vector<CoreOutput> outputs;
    std::vector<KvChange> changes;
    // The first requests all start at once: the loop is let run in.
    while (next < concurrency * 6 + 20) {
        const auto plan = core.begin_step(now);
        if (!plan) break;
        now += plan->duration;
        outputs.clear();
        core.end_step(outputs);
        core.take_changes(changes);
        changes.clear();
        for (const CoreOutput& out : outputs) {
            if (out.first) first[out.id.value] = now;
            if (!out.finish) continue;
            if (out.id.value > concurrency * 2) {
                ++counted;
                sum.ttft_ms += to_ms(first[out.id.value] - sent[out.id.value]);
                sum.itl_ms += to_ms(now - first[out.id.value]) / (osl - 1);
            }
            send();
        }
    }
    return {sum.ttft_ms / counted, sum.itl_ms / counted};
}

struct Published {
    std::uint32_t concurrency;
    double itl_ms;
};

TEST(MockPresets, Llama70bIsAsPublished) {
    const Preset& preset = **find_preset("llama-3.3-70b-fp8-2xh100");
    // 5,000 tokens in, 500 out.
    for (const Published p : {Published{1, 18.58}, {5, 21.83}, {25, 38.75}, {50, 59.73}}) {
        const LoopFigures f = closed_loop(preset, p.concurrency, 5000, 500);
        EXPECT_NEAR(f.itl_ms / p.itl_ms, 1.0, 0.08) << p.concurrency;
        if (p.concurrency == 1) EXPECT_NEAR(f.ttft_ms / 406.77, 1.0, 0.05);
    }
}

TEST(MockPresets, Llama8bIsAsPublished) {
    const Preset& preset = **find_preset("llama-3.1-8b-fp8-h100");
    // 200 tokens in, 200 out.
    for (const Published p : {Published{1, 4.63},
                              {5, 4.58},
                              {25, 5.19},
                              {50, 5.91},
                              {100, 7.57},
                              {150, 9.81},
                              {200, 12.65},
                              {250, 16.14}}) {
        const LoopFigures f = closed_loop(preset, p.concurrency, 200, 200);
        EXPECT_NEAR(f.itl_ms / p.itl_ms, 1.0, 0.15) << p.concurrency;
    }
}

TEST(MockPresets, UnknownOnesAreNamedWithThoseThatExist) {
    const auto none = find_preset("70b");
    ASSERT_FALSE(none);
    EXPECT_EQ(none.error().message,
              "there is no preset \"70b\"; there are constant-10ms, llama-3.1-8b-fp8-h100, "
              "llama-3.3-70b-fp8-2xh100");
}

}  // namespace
}  // namespace stator::engine::mock
