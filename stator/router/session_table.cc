#include "stator/router/session_table.h"

namespace stator::router {

void SessionTable::put(std::uint64_t session, RankIndex rank, std::uint64_t name_hash, Nanos now) {
    if (most_ == 0) return;
    if (const auto found = entries_.find(session); found != entries_.end()) {
        order_.splice(order_.begin(), order_, found->second);
    } else {
        if (entries_.size() >= most_) {
            entries_.erase(order_.back().session);
            order_.pop_back();
        }
        order_.push_front({session, {}, {}});
        entries_[session] = order_.begin();
    }
    order_.front().place = {rank, name_hash};
    order_.front().used = now;
}

std::optional<SessionTable::Place> SessionTable::find(std::uint64_t session, Nanos now,
                                                      Nanos ttl) const {
    const auto found = entries_.find(session);
    if (found == entries_.end() || now - found->second->used > ttl) return std::nullopt;
    return found->second->place;
}

}  // namespace stator::router
