#include "stator/engine/llama/encoded_cache.h"

#include <utility>

namespace stator::engine::llama {
namespace {

std::string name_of(const protocol::Digest& digest) { return {digest.begin(), digest.end()}; }

}  // namespace

std::shared_ptr<const Encoded> EncodedCache::find(const protocol::Digest& digest) {
    const auto found = by_name_.find(name_of(digest));
    if (found == by_name_.end()) return nullptr;
    entries_.splice(entries_.begin(), entries_, found->second);
    return entries_.front().encoded;
}

std::uint64_t EncodedCache::put(const protocol::Digest& digest,
                                std::shared_ptr<const Encoded> encoded) {
    if (encoded->bytes() > budget_ || by_name_.contains(name_of(digest))) return 0;
    bytes_ += encoded->bytes();
    entries_.push_front({name_of(digest), std::move(encoded)});
    by_name_.emplace(entries_.front().name, entries_.begin());
    std::uint64_t gone = 0;
    while (bytes_ > budget_) {
        bytes_ -= entries_.back().encoded->bytes();
        by_name_.erase(entries_.back().name);
        entries_.pop_back();
        ++gone;
    }
    return gone;
}

}  // namespace stator::engine::llama
