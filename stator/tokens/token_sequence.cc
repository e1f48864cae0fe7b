#include "stator/tokens/token_sequence.h"

#include <algorithm>

#include "stator/base/check.h"

namespace stator::tokens {

TokenSequence::TokenSequence(std::size_t block_size, std::uint64_t seed)
    : block_size_(block_size), hasher_(seed) {
    STATOR_CHECK(block_size > 0, "a block has at least one token");
}

void TokenSequence::push(TokenId token) {
    if (size_ == tokens_.size()) make_room(size_ + 1);
    tokens_[size_++] = token;
    hash_complete_blocks();
}

void TokenSequence::append(std::span<const TokenId> tokens) {
    if (tokens.size() > tokens_.size() - size_) make_room(size_ + tokens.size());
    std::ranges::copy(tokens, tokens_.begin() + static_cast<std::ptrdiff_t>(size_));
    size_ += tokens.size();
    hash_complete_blocks();
}

void TokenSequence::truncate(std::size_t n) {
    if (n >= size_) return;
    size_ = n;
    blocks_ = n / block_size_;
}

void TokenSequence::reserve(std::size_t n) {
    if (n <= tokens_.size()) return;
    tokens_.resize(n);
    block_hashes_.resize(n / block_size_);
    sequence_hashes_.resize(n / block_size_);
}

/// At least doubles.
void TokenSequence::make_room(std::size_t tokens) {
    reserve(std::max({tokens, 2 * tokens_.size(), std::size_t{16}}));
}

std::span<const TokenId> TokenSequence::block(std::size_t i) const {
    STATOR_ASSERT(i < complete_blocks());
    return std::span(tokens_).subspan(i * block_size_, block_size_);
}

void TokenSequence::hash_complete_blocks() {
    const std::size_t begin = blocks_ * block_size_;
    const std::size_t open = size_ - begin;
    if (open < block_size_) return;
    const std::size_t more = open < 2 * block_size_ ? 1 : open / block_size_;
    hasher_.chain({tokens_.data() + begin, more * block_size_}, block_size_,
                  blocks_ == 0 ? nullptr : &sequence_hashes_[blocks_ - 1],
                  block_hashes_.data() + blocks_, sequence_hashes_.data() + blocks_);
    blocks_ += more;
}

}  // namespace stator::tokens
