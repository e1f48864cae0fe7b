#pragma once

#include <cstdint>
#include <map>
#include <set>
#include <stdexcept>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "stator/engine/llama/fake_kv.h"
#include "stator/engine/llama/scheduler.h"

namespace stator::engine::llama {

using protocol::FinishReason;

inline protocol::GenerateRequest request(std::uint64_t id, std::vector<TokenId> prompt,
                                         std::uint32_t max_tokens) {
    protocol::GenerateRequest r;
    r.id = RequestId(id);
    r.prompt = std::move(prompt);
    r.max_tokens = max_tokens;
    return r;
}

inline std::vector<TokenId> counting(std::uint32_t n, TokenId start = 100) {
    std::vector<TokenId> v(n);
    for (std::uint32_t i = 0; i < n; ++i) v[i] = start + i;
    return v;
}

/// Runs a scheduler on a FakeKv and keeps what comes out, checking the bookkeeping at every step.
class Bench {
  public:
    explicit Bench(SchedulerOptions options) : scheduler(options), kv(options.kv_tokens) {}

    StepPlan step() {
        StepPlan plan = scheduler.plan();
        kv.apply(plan.ops);
        for (const KvImport& import : plan.imports) {
            const std::uint32_t until = kv.import_parts(import);
            imported += until - import.begin;
            scheduler.imported(plan, import, until);
        }
        kv.apply(scheduler.take_ops());
        std::vector<SampledToken> drawn;
        kv.forward(plan, drawn);
        if (kv.used() != scheduler.used_cells()) {
            throw std::logic_error("cells: " + std::to_string(kv.used()) + " used, " +
                                   std::to_string(scheduler.used_cells()) + " counted");
        }
        std::vector<Progress> progress;
        scheduler.complete(drawn, progress);
        for (std::size_t i = 0; i < progress.size(); ++i) {
            outputs[progress[i].id.value].push_back(drawn[i].token);
            if (!progress[i].finish) continue;
            finished[progress[i].id.value] = *progress[i].finish;
            cached[progress[i].id.value] = progress[i].cached_tokens;
            prompt_tokens[progress[i].id.value] = progress[i].prompt_tokens;
        }
        std::vector<RequestId> ready;
        scheduler.ready(ready);
        for (const RequestId id : ready) {
            const Sequence& s = *scheduler.find(id);
            handed_over[id.value] = kv.export_range(s.kv, 0, s.computed);
            const Progress p = scheduler.hand_over(id);
            finished[id.value] = *p.finish;
            cached[id.value] = p.cached_tokens;
            prompt_tokens[id.value] = p.prompt_tokens;
        }
        if (plan.batch.empty() && plan.imports.empty() && ready.empty()) {
            throw std::logic_error("a step of nothing");
        }
        replay();
        return plan;
    }

    void run(int max_steps = 10'000) {
        while (!scheduler.idle()) {
            if (max_steps-- == 0) throw std::logic_error("no end");
            step();
        }
    }

    void replay() {
        for (const auto& event : scheduler.take_events()) {
            if (event.seq.value != ++last_event) throw std::logic_error("gap in events");
            if (const auto* stored = std::get_if<protocol::KvStored>(&event.what)) {
                auto parent = stored->parent;
                for (const auto& block : stored->blocks) {
                    if (parent && !resident.contains(parent->value))
                        throw std::logic_error("orphan");
                    if (!resident.insert(block.sequence.value).second)
                        throw std::logic_error("twice");
                    parent = block.sequence;
                }
            } else if (const auto* removed = std::get_if<protocol::KvRemoved>(&event.what)) {
                for (const auto hash : removed->sequences) {
                    if (resident.erase(hash.value) != 1) throw std::logic_error("removed unknown");
                }
            } else {
                resident.clear();
            }
        }
        if (resident.size() != scheduler.cached_blocks()) throw std::logic_error("events drifted");
    }

    Scheduler scheduler;
    FakeKv kv;
    std::map<std::uint64_t, std::vector<TokenId>> outputs;
    std::map<std::uint64_t, FinishReason> finished;
    std::map<std::uint64_t, std::uint32_t> cached;
    std::map<std::uint64_t, std::uint32_t> prompt_tokens;
    std::map<std::uint64_t, std::vector<std::uint64_t>> handed_over;  ///< contents by position
    std::uint64_t imported = 0;
    std::set<std::uint64_t> resident;
    std::uint64_t last_event = 0;
};

inline SchedulerOptions small() {
    return {.kv_tokens = 64,
            .max_sequence_tokens = 48,
            .block_tokens = 4,
            .step_tokens = 8,
            .max_running = 4,
            .max_waiting = 64,
            .parked_tokens = 64,
            .prefix_cache = true};
}

}  // namespace stator::engine::llama
