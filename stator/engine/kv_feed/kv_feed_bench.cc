#include <benchmark/benchmark.h>

#include <deque>
#include <random>

#include "stator/codec/msgpack.h"
#include "stator/engine/kv_feed/kv_feed.h"

namespace stator::engine {
namespace {

using codec::MsgpackWriter;

/// Messages as vLLM 0.32 writes them: a chain of `blocks` stored, and as many old ones removed once
/// the engine is full, one event each.
std::vector<std::string> messages(std::size_t count, std::size_t blocks, std::size_t block_tokens) {
    std::vector<std::string> out;
    std::mt19937_64 random(1);
    std::deque<std::uint64_t> held;
    for (std::size_t m = 0; m < count; ++m) {
        std::string& text = out.emplace_back();
        MsgpackWriter w(text);
        std::vector<std::uint64_t> gone;
        while (held.size() + blocks > 10'000) {
            gone.push_back(held.front());
            held.pop_front();
        }
        w.array(3).real(1.0 + static_cast<double>(m)).array(gone.size() + 1);
        for (const auto hash : gone) {
            w.map(4).string("type").string("BlockRemoved").string("block_hashes").array(1);
            w.number(hash).string("medium").string("GPU").string("group_idx").number(0);
        }
        w.map(11).string("type").string("BlockStored").string("block_hashes").array(blocks);
        for (std::size_t b = 0; b < blocks; ++b) {
            held.push_back(random());
            w.number(held.back());
        }
        w.string("parent_block_hash").nil().string("token_ids").array(blocks * block_tokens);
        for (std::size_t t = 0; t < blocks * block_tokens; ++t) w.number(random() % 150'000);
        w.string("block_size").number(block_tokens).string("lora_id").nil();
        w.string("medium").string("GPU").string("lora_name").nil().string("extra_keys");
        w.array(blocks);
        for (std::size_t b = 0; b < blocks; ++b) w.nil();
        w.string("group_idx").number(0).string("kv_cache_spec_kind").string("full_attention");
        w.number(0);
    }
    return out;
}

/// Block events (stored and removed) of whole messages into ours. Arguments: blocks by message,
/// tokens by block.
void normalise(benchmark::State& state) {
    const auto blocks = static_cast<std::size_t>(state.range(0));
    const auto all =
        messages(4000 / blocks + 2000, blocks, static_cast<std::size_t>(state.range(1)));
    std::size_t events = 0;
    for (auto _ : state) {
        KvFeed feed(
            {.block_tokens = static_cast<std::uint32_t>(state.range(1)), .most_pages = 20'000});
        EngineKvBatch batch;
        std::vector<protocol::KvEvent> out;
        for (const auto& message : all) {
            if (!read_engine_batch(message, batch)) return state.SkipWithError("unreadable");
            out.clear();
            for (const auto& event : batch.events()) {
                feed.apply(event, out);
                events += event.hashes.size();
            }
            benchmark::DoNotOptimize(out.data());
        }
    }
    state.SetItemsProcessed(static_cast<std::int64_t>(events));
}
BENCHMARK(normalise)->Args({1, 16})->Args({16, 16})->Args({64, 16})->Args({16, 64});

}  // namespace
}  // namespace stator::engine
