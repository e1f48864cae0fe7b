#pragma once

#include <cstddef>
#include <list>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>

#include "stator/base/error.h"
#include "stator/protocol/generate.h"
#include "stator/text/guides/guide.h"

namespace stator::text {

/// Compiled constraints by their text: requests of one client tend to send the same schema over and
/// over. Refusals are kept too. Forgets what was used longest ago. One thread at a time.
class GuideCache {
  public:
    struct Limits {
        std::size_t entries = 32;
        std::size_t bytes = 4U << 20;  ///< of constraint texts
    };

    explicit GuideCache(std::shared_ptr<const GuideFactory> factory) : GuideCache(factory, {}) {}
    GuideCache(std::shared_ptr<const GuideFactory> factory, Limits limits)
        : factory_(std::move(factory)), limits_(limits) {}

    /// A guide at the beginning of a text; as GuideFactory::compile().
    [[nodiscard]] Result<Guide> get(const protocol::OutputConstraint& constraint);

    /// A guide of this constraint has failed: what was compiled may be spoilt.
    void forget(const protocol::OutputConstraint& constraint);

    [[nodiscard]] std::size_t size() const { return entries_.size(); }
    [[nodiscard]] std::size_t compiled() const { return compiled_; }

  private:
    struct Entry {
        std::string key;
        Result<Guide> guide;
    };

    void drop(std::list<Entry>::iterator entry);

    std::shared_ptr<const GuideFactory> factory_;
    Limits limits_;
    std::list<Entry> entries_;  ///< the last used first
    std::unordered_map<std::string_view, std::list<Entry>::iterator> by_key_;
    std::size_t bytes_ = 0;
    std::size_t compiled_ = 0;
};

}  // namespace stator::text
