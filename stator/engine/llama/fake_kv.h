#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <stdexcept>
#include <string>

#include "stator/engine/llama/scheduler.h"

namespace stator::engine::llama {

/// A model of llama.cpp's unified KV cache for tests: cells with a position and a set of sequences,
/// counted. A cell's content depends on its token and on the cell before it, as KV does, so that a
/// plan which shares or drops the wrong cells produces other tokens than the prompt alone
/// determines. Throws std::logic_error where a plan breaks the rules.
class FakeKv {
  public:
    explicit FakeKv(std::uint32_t capacity) : capacity_(capacity) {}

    void apply(std::span<const KvOp> ops) {
        for (const KvOp& op : ops) {
            auto& mine = sequences_[op.sequence];
            if (op.kind == KvOp::Kind::kRemove) {
                mine.erase(mine.lower_bound(op.begin), mine.lower_bound(op.end));
            } else {
                const auto& theirs = sequences_[op.source];
                for (auto it = theirs.lower_bound(op.begin); it != theirs.lower_bound(op.end);
                     ++it) {
                    if (!mine.insert(*it).second)
                        throw std::logic_error("copy onto a used position");
                }
            }
        }
    }

    /// Computes the batch; `drawn` gets the next token of each output row.
    void forward(const StepPlan& plan, std::vector<SampledToken>& drawn) {
        std::vector<std::uint64_t> contents;
        for (const BatchToken& t : plan.batch) {
            auto& mine = sequences_[t.sequence];
            if (mine.size() != t.position ||
                (!mine.empty() && mine.rbegin()->first + 1 != t.position)) {
                throw std::logic_error("position " + std::to_string(t.position) +
                                       " does not follow");
            }
            const std::uint64_t before = mine.empty() ? 0 : *mine.rbegin()->second;
            const auto cell = std::make_shared<std::uint64_t>(content(before, t.token));
            cells_.push_back(cell);
            mine.emplace(t.position, cell);
            contents.push_back(*cell);
        }
        if (used() > capacity_) throw std::logic_error("out of cells");
        for (const OutputRow& row : plan.outputs) {
            if (!plan.batch[row.index].output) throw std::logic_error("row without logits");
            drawn.push_back({row.id, next_token(contents[row.index]), false});
        }
    }

    void clear() { sequences_.clear(); }

    std::uint32_t used() {
        std::erase_if(cells_, [](const auto& c) { return c.expired(); });
        return static_cast<std::uint32_t>(cells_.size());
    }

    static std::uint64_t content(std::uint64_t before, TokenId token) {
        std::uint64_t x = (before ^ (token + 0x9e3779b97f4a7c15ULL)) * 0xbf58476d1ce4e5b9ULL;
        return x ^ (x >> 29);
    }
    static TokenId next_token(std::uint64_t content) { return static_cast<TokenId>(content % 5); }

    /// What a prompt determines, without any cache.
    static std::vector<TokenId> oracle(const std::vector<TokenId>& prompt, std::uint32_t count) {
        std::uint64_t c = 0;
        for (const TokenId t : prompt) c = content(c, t);
        std::vector<TokenId> out;
        for (std::uint32_t i = 0; i < count; ++i) {
            out.push_back(next_token(c));
            c = content(c, out.back());
        }
        return out;
    }

  private:
    std::uint32_t capacity_;
    std::map<SeqId, std::map<std::uint32_t, std::shared_ptr<std::uint64_t>>> sequences_;
    std::vector<std::weak_ptr<std::uint64_t>> cells_;
};

}  // namespace stator::engine::llama
