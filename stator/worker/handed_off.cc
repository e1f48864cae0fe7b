#include "stator/worker/handed_off.h"

#include <algorithm>
#include <utility>

namespace stator::worker {

void HandedOff::add(std::uint32_t stream, std::shared_ptr<const protocol::Handoff> what,
                    TimePoint now) {
    while (!entries_.empty() &&
           (entries_.size() >= kMost || entries_.front().what->expires.reached(now))) {
        entries_.pop_front();
    }
    entries_.push_back({stream, std::move(what)});
}

std::shared_ptr<const protocol::Handoff> HandedOff::take(std::uint32_t stream) {
    const auto it = std::ranges::find(entries_, stream, &Entry::stream);
    if (it == entries_.end()) return nullptr;
    auto what = std::move(it->what);
    entries_.erase(it);
    return what;
}

std::vector<std::shared_ptr<const protocol::Handoff>> HandedOff::take_all(TimePoint now) {
    std::vector<std::shared_ptr<const protocol::Handoff>> out;
    for (Entry& entry : std::exchange(entries_, {})) {
        if (!entry.what->expires.reached(now)) out.push_back(std::move(entry.what));
    }
    return out;
}

}  // namespace stator::worker
