#include "stator/media/content_cache.h"

#include <vector>

namespace stator::media {

std::optional<LoadedMedia> ContentCache::find(const protocol::Digest& source) {
    const std::scoped_lock lock(mutex_);
    const auto at = by_source_.find(source);
    if (at == by_source_.end()) return std::nullopt;
    entries_.splice(entries_.begin(), entries_, at->second);
    return at->second->media;
}

void ContentCache::keep(const protocol::Digest& source, const LoadedMedia& media) {
    const std::size_t bytes = media.content->pixels.size();
    if (bytes > max_bytes_ / 4) return;
    std::vector<LoadedMedia> dropped;  // freed without the lock
    const std::scoped_lock lock(mutex_);
    if (by_source_.contains(source)) return;
    entries_.push_front({source, media});
    by_source_[source] = entries_.begin();
    bytes_ += bytes;
    while (bytes_ > max_bytes_) {
        Entry& last = entries_.back();
        bytes_ -= last.media.content->pixels.size();
        by_source_.erase(last.source);
        dropped.push_back(std::move(last.media));
        entries_.pop_back();
    }
}

std::size_t ContentCache::bytes() const {
    const std::scoped_lock lock(mutex_);
    return bytes_;
}

}  // namespace stator::media
