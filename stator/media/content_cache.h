#pragma once

#include <cstddef>
#include <cstdint>
#include <list>
#include <map>
#include <memory>
#include <mutex>
#include <optional>

#include "stator/protocol/handoff.h"

namespace stator::media {

/// A decoded item and its name.
struct LoadedMedia {
    protocol::Digest digest{};
    std::shared_ptr<const protocol::MediaContent> content;
};

/// Decoded items by source_digest(). Holds at most so many bytes of pixels; what was used longest
/// ago goes first. Thread-safe.
class ContentCache {
  public:
    explicit ContentCache(std::size_t max_bytes) : max_bytes_(max_bytes) {}
    [[nodiscard]] std::optional<LoadedMedia> find(const protocol::Digest& source);
    /// An item over a quarter of the room is not kept.
    void keep(const protocol::Digest& source, const LoadedMedia& media);
    [[nodiscard]] std::size_t bytes() const;

  private:
    struct Entry {
        protocol::Digest source;
        LoadedMedia media;
    };
    const std::size_t max_bytes_;
    mutable std::mutex mutex_;
    std::size_t bytes_ = 0;
    std::list<Entry> entries_;  ///< the one used last comes first
    std::map<protocol::Digest, std::list<Entry>::iterator> by_source_;
};

}  // namespace stator::media
