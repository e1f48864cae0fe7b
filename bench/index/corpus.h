#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "stator/index/overlap.h"
#include "stator/tokens/token.h"

namespace stator::bench {

/// A recorded history of KV events and requests, mapped from a file: little-endian, header of 16
/// words, then slabs (queries, stored, stored local, removed, expected answers, operations). Made
/// by the peers' generator; the same file drives both sides.
class Corpus {
  public:
    enum Kind : std::uint32_t { kQuery, kStored, kRemoved, kFinalQuery };
    struct Op {
        std::uint32_t kind;
        std::uint32_t worker;
        std::uint64_t parent;
        std::uint64_t start;
        std::uint32_t length;
        std::uint32_t has_parent;
        std::uint32_t expected;
        std::uint32_t start_position;
    };
    static constexpr std::uint32_t kNone = 0xffffffff;

    /// Ends the program with a message if the file is not such a corpus.
    explicit Corpus(const std::string& path);
    ~Corpus();
    Corpus(const Corpus&) = delete;
    Corpus& operator=(const Corpus&) = delete;

    [[nodiscard]] std::span<const Op> ops() const { return ops_; }
    [[nodiscard]] std::uint32_t workers() const { return static_cast<std::uint32_t>(header_[2]); }
    [[nodiscard]] std::uint64_t entries() const { return header_[8]; }
    [[nodiscard]] std::uint64_t distinct() const { return header_[9]; }
    [[nodiscard]] std::span<const tokens::SequenceHash> stored(const Op& op) const;
    [[nodiscard]] std::span<const tokens::SequenceHash> removed(const Op& op) const;
    /// The request's sequence hashes, made from its block hashes when the corpus was opened.
    [[nodiscard]] std::span<const tokens::SequenceHash> query(const Op& op) const;
    /// Holders and depths by rank, sorted; only for operations that have them.
    [[nodiscard]] std::vector<index::RankDepth> expected(const Op& op) const;
    /// Requests about the final state, `n` in a scattered order.
    [[nodiscard]] std::vector<std::span<const tokens::SequenceHash>> final_queries(
        std::size_t n) const;

  private:
    void* data_ = nullptr;
    std::size_t size_ = 0;
    std::span<const std::uint64_t> header_;
    std::span<const tokens::SequenceHash> stored_;
    std::span<const tokens::SequenceHash> removed_;
    std::span<const std::uint32_t> expected_;
    std::span<const Op> ops_;
    std::vector<tokens::SequenceHash> queries_;
};

}  // namespace stator::bench
