#pragma once

#include <cstdint>
#include <cstring>
#include <map>
#include <memory>
#include <span>
#include <stdexcept>
#include <string>
#include <vector>

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
            switch (op.kind) {
                case KvOp::Kind::kRemove:
                    mine.erase(mine.lower_bound(op.begin), mine.lower_bound(op.end));
                    break;
                case KvOp::Kind::kCopy:
                    share(sequences_[op.source], op, mine);
                    break;
                case KvOp::Kind::kSave:
                    save(mine, op);
                    break;
                case KvOp::Kind::kLoad:
                    load(op, mine);
                    break;
                case KvOp::Kind::kDrop:
                    if (segments_.erase(op.segment.value) != 1)
                        throw std::logic_error("no such segment");
                    break;
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

    /// What the parts hold, as far as they are whole: eight bytes of content a token.
    std::uint32_t import_parts(const KvImport& import) {
        std::uint32_t there = import.begin;
        for (std::size_t i = import.first_part; i < import.last_part; ++i) {
            const protocol::HandoffPart& part = import.from->what->parts[i];
            const auto bytes = import.from->parts[i];
            if (bytes.size() != part.tokens * sizeof(std::uint64_t)) return there;
            Cells scratch;
            for (std::uint32_t k = 0; k < part.tokens; ++k) {
                std::uint64_t content = 0;
                std::memcpy(&content, bytes.data() + k * sizeof content, sizeof content);
                const auto cell = std::make_shared<std::uint64_t>(content);
                cells_.push_back(cell);
                scratch.emplace(part.first + k, cell);
            }
            if (used() > capacity_) throw std::logic_error("out of cells while importing");
            const std::uint32_t end = part.first + part.tokens;
            KvOp range;
            range.begin = there;
            range.end = end;
            share(scratch, range, sequences_[import.sequence]);
            there = end;
        }
        return there;
    }

    std::vector<std::uint64_t> export_range(SeqId sequence, std::uint32_t begin,
                                            std::uint32_t end) {
        std::vector<std::uint64_t> out;
        for (std::uint32_t p = begin; p < end; ++p) out.push_back(*sequences_[sequence].at(p));
        return out;
    }

    void clear() { sequences_.clear(); }
    std::size_t segments() const { return segments_.size(); }

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
    using Cells = std::map<std::uint32_t, std::shared_ptr<std::uint64_t>>;

    static void share(const Cells& from, const KvOp& op, Cells& to) {
        for (std::uint32_t p = op.begin; p < op.end; ++p) {
            const auto it = from.find(p);
            if (it == from.end()) throw std::logic_error("copy of a position that is not there");
            if (!to.insert(*it).second) throw std::logic_error("copy onto a used position");
        }
    }

    void save(const Cells& from, const KvOp& op) {
        auto& saved = segments_[op.segment.value];
        if (!saved.empty() || op.begin >= op.end) throw std::logic_error("bad save");
        for (std::uint32_t p = op.begin; p < op.end; ++p) saved.emplace(p, *from.at(p));
    }

    void load(const KvOp& op, Cells& to) {
        Cells scratch;
        for (const auto& [position, content] : segments_.at(op.segment.value)) {
            const auto cell = std::make_shared<std::uint64_t>(content);
            cells_.push_back(cell);
            scratch.emplace(position, cell);
        }
        if (used() > capacity_) throw std::logic_error("out of cells while loading");
        share(scratch, op, to);
    }

    std::uint32_t capacity_;
    std::map<SeqId, Cells> sequences_;
    std::map<std::uint64_t, std::map<std::uint32_t, std::uint64_t>> segments_;
    std::vector<std::weak_ptr<std::uint64_t>> cells_;
};

}  // namespace stator::engine::llama
