#include "stator/tokens/token_sequence.h"

#include "stator/base/check.h"

namespace stator::tokens {

TokenSequence::TokenSequence(std::size_t block_size, std::uint64_t seed)
    : block_size_(block_size), hasher_(seed) {
    STATOR_CHECK(block_size > 0, "a block has at least one token");
}

void TokenSequence::push(TokenId token) {
    tokens_.push_back(token);
    hash_complete_blocks();
}

void TokenSequence::append(std::span<const TokenId> tokens) {
    tokens_.insert(tokens_.end(), tokens.begin(), tokens.end());
    hash_complete_blocks();
}

void TokenSequence::truncate(std::size_t n) {
    if (n >= tokens_.size()) return;
    tokens_.resize(n);
    block_hashes_.resize(n / block_size_);
    sequence_hashes_.resize(n / block_size_);
}

void TokenSequence::reserve(std::size_t n) {
    tokens_.reserve(n);
    block_hashes_.reserve(n / block_size_);
    sequence_hashes_.reserve(n / block_size_);
}

std::span<const TokenId> TokenSequence::block(std::size_t i) const {
    STATOR_ASSERT(i < complete_blocks());
    return std::span(tokens_).subspan(i * block_size_, block_size_);
}

void TokenSequence::hash_complete_blocks() {
    const std::size_t before = block_hashes_.size();
    if (tokens_.size() - before * block_size_ < block_size_) return;
    const std::size_t blocks = tokens_.size() / block_size_;
    if (blocks == before + 1) {  // growing: cheaper than to resize
        block_hashes_.emplace_back();
        sequence_hashes_.emplace_back();
    } else {
        block_hashes_.resize(blocks);
        sequence_hashes_.resize(blocks);
    }
    hasher_.chain(std::span(tokens_).subspan(before * block_size_, (blocks - before) * block_size_),
                  block_size_, before == 0 ? nullptr : &sequence_hashes_[before - 1],
                  std::span(block_hashes_).subspan(before),
                  std::span(sequence_hashes_).subspan(before));
}

}  // namespace stator::tokens
