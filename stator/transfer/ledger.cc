#include "stator/transfer/ledger.h"

namespace stator::transfer {

Result<Slot> Ledger::reserve(std::uint64_t bytes) {
    if (bytes > limits_.budget_bytes || bytes_ > limits_.budget_bytes - bytes) {
        return error(ErrorCode::kExhausted,
                     "a handoff of {} bytes finds no room: {} of {} bytes wait to be claimed",
                     bytes, bytes_, limits_.budget_bytes);
    }
    if (slots_.size() >= limits_.most_unclaimed) {
        return error(ErrorCode::kExhausted,
                     "{} handoffs wait to be claimed, and more than {} may not", slots_.size(),
                     limits_.most_unclaimed);
    }
    const Slot slot(++last_slot_);
    slots_.emplace(slot, Entry{.bytes = bytes, .id = std::nullopt, .expires = {}});
    bytes_ += bytes;
    return slot;
}

bool Ledger::abandon(Slot slot) {
    const auto entry = slots_.find(slot);
    if (entry == slots_.end() || entry->second.id) return false;
    end(entry, End::kAbandoned);
    return true;
}

Result<TimePoint> Ledger::publish(Slot slot, const protocol::HandoffId& id, TimePoint now) {
    const auto entry = slots_.find(slot);
    if (entry == slots_.end() || entry->second.id) {
        return error(ErrorCode::kInvalidArgument, "only a reservation can be published, and once");
    }
    if (!published_.emplace(id, slot).second) {
        return error(ErrorCode::kAborted, "the handoff's id is taken");
    }
    entry->second.id = id;
    entry->second.expires = now + limits_.lease;
    by_expiry_.emplace(entry->second.expires, slot);
    return entry->second.expires;
}

Result<Slot> Ledger::claim(const protocol::HandoffId& id, TimePoint now) {
    const auto found = published_.find(id);
    const auto entry = found == published_.end() ? slots_.end() : slots_.find(found->second);
    if (entry == slots_.end() || now >= entry->second.expires) {
        return error(ErrorCode::kNotFound,
                     "the handoff is not here: claimed, released or expired already");
    }
    return end(entry, End::kClaimed);
}

std::optional<Slot> Ledger::release(const protocol::HandoffId& id) {
    const auto found = published_.find(id);
    if (found == published_.end()) return std::nullopt;
    return end(slots_.find(found->second), End::kReleased);
}

std::vector<Slot> Ledger::expire(TimePoint now) {
    std::vector<Slot> out;
    while (!by_expiry_.empty() && now >= by_expiry_.begin()->first) {
        out.push_back(end(slots_.find(by_expiry_.begin()->second), End::kExpired));
    }
    return out;
}

std::vector<Slot> Ledger::clear() {
    std::vector<Slot> out;
    while (!slots_.empty()) {
        const auto entry = slots_.begin();
        out.push_back(end(entry, entry->second.id ? End::kReleased : End::kAbandoned));
    }
    return out;
}

std::optional<TimePoint> Ledger::next_expiry() const {
    if (by_expiry_.empty()) return std::nullopt;
    return by_expiry_.begin()->first;
}

Slot Ledger::end(Slots::iterator entry, End how) {
    const Slot slot = entry->first;
    if (entry->second.id) {
        published_.erase(*entry->second.id);
        by_expiry_.erase({entry->second.expires, slot});
    }
    bytes_ -= entry->second.bytes;
    slots_.erase(entry);
    ++ended_[static_cast<std::size_t>(how)];
    return slot;
}

}  // namespace stator::transfer
