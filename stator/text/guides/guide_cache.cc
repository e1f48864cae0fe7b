#include "stator/text/guides/guide_cache.h"

#include <iterator>
#include <utility>

namespace stator::text {
namespace {

std::string key_of(const protocol::OutputConstraint& constraint) {
    std::string key;
    key.reserve(constraint.text.size() + constraint.after.size() + 2);
    key += static_cast<char>(constraint.kind);
    key += constraint.after;
    key += '\0';
    key += constraint.text;
    return key;
}

}  // namespace

Result<Guide> GuideCache::get(const protocol::OutputConstraint& constraint) {
    std::string key = key_of(constraint);
    auto found = by_key_.find(key);
    if (found == by_key_.end()) {
        ++compiled_;
        entries_.push_front({std::move(key), factory_->compile(constraint)});
        const Entry& made = entries_.front();
        bytes_ += made.key.size();
        found = by_key_.emplace(made.key, entries_.begin()).first;
        while (entries_.size() > 1 &&
               (entries_.size() > limits_.entries || bytes_ > limits_.bytes)) {
            drop(std::prev(entries_.end()));
        }
    } else {
        entries_.splice(entries_.begin(), entries_, found->second);
    }
    const Entry& entry = *found->second;
    if (!entry.guide) return tl::unexpected<Error>(entry.guide.error());
    return entry.guide->copy();
}

void GuideCache::forget(const protocol::OutputConstraint& constraint) {
    const auto found = by_key_.find(key_of(constraint));
    if (found != by_key_.end()) drop(found->second);
}

void GuideCache::drop(std::list<Entry>::iterator entry) {
    bytes_ -= entry->key.size();
    by_key_.erase(entry->key);
    entries_.erase(entry);
}

}  // namespace stator::text
