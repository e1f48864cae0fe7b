#include "stator/tokens/token_sequence.h"

#include "stator/base/check.h"

namespace stator::tokens {

TokenSequence::TokenSequence(std::size_t block_size, std::uint64_t seed)
    : block_size_(block_size), seed_(seed) {
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
    for (std::size_t end = (block_hashes_.size() + 1) * block_size_; end <= tokens_.size();
         end += block_size_) {
        const auto block = std::span(tokens_).subspan(end - block_size_, block_size_);
        const BlockHash hash = block_hash(block, seed_);
        sequence_hashes_.push_back(sequence_hashes_.empty()
                                       ? sequence_hash(hash)
                                       : sequence_hash(sequence_hashes_.back(), hash));
        block_hashes_.push_back(hash);
    }
}

}  // namespace stator::tokens
