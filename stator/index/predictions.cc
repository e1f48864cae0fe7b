#include "stator/index/predictions.h"

#include <algorithm>

namespace stator::index {

void Predictions::push(Due due) {
    due_.push_back(due);
    std::push_heap(due_.begin(), due_.end());
    // Prolonging again and again must not fill the heap.
    if (due_.size() <= 2 * count_ + 1024) return;
    due_.clear();
    for (const auto& [k, list] : pieces_) {
        for (const Piece& p : list) due_.push_back({p.expires_at, k});
    }
    std::make_heap(due_.begin(), due_.end());
}

void Predictions::set(std::uint32_t rank, std::uint32_t run, Piece piece) {
    std::vector<Piece>& list = pieces_[key(rank, run)];
    std::vector<Piece> next;
    std::uint32_t at = piece.begin;  // what is not yet written of `piece`
    const auto put = [&](std::uint32_t begin, std::uint32_t end, TimePoint expires) {
        if (begin >= end) return;
        if (!next.empty() && next.back().end == begin && next.back().expires_at == expires) {
            next.back().end = end;
        } else {
            next.push_back({begin, end, expires});
        }
    };
    for (const Piece& old : list) {
        if (old.begin > at) {
            const std::uint32_t until = std::min(old.begin, piece.end);
            put(at, until, piece.expires_at);
            at = std::max(at, until);
        }
        const std::uint32_t both_begin = std::clamp(piece.begin, old.begin, old.end);
        const std::uint32_t both_end = std::clamp(piece.end, old.begin, old.end);
        put(old.begin, both_begin, old.expires_at);
        put(both_begin, both_end, std::max(old.expires_at, piece.expires_at));
        at = std::max(at, both_end);
        put(std::max(both_end, both_begin), old.end, old.expires_at);
    }
    put(at, piece.end, piece.expires_at);
    count_ += next.size() - list.size();
    list = std::move(next);
    push({piece.expires_at, key(rank, run)});
}

void Predictions::erase(std::uint32_t rank, std::uint32_t run, std::uint32_t begin,
                        std::uint32_t end) {
    const auto found = pieces_.find(key(rank, run));
    if (found == pieces_.end()) return;
    std::vector<Piece> next;
    for (const Piece& old : found->second) {
        if (old.begin < begin)
            next.push_back({old.begin, std::min(old.end, begin), old.expires_at});
        if (old.end > end) next.push_back({std::max(old.begin, end), old.end, old.expires_at});
    }
    count_ += next.size() - found->second.size();
    if (next.empty()) {
        pieces_.erase(found);
    } else {
        found->second = std::move(next);
    }
}

bool Predictions::take_expired(TimePoint now, Expired& out) {
    while (!due_.empty() && due_.front().at <= now) {
        const std::uint64_t k = due_.front().key;
        if (const auto found = pieces_.find(k); found != pieces_.end()) {
            for (const Piece& p : found->second) {
                if (p.expires_at > now) continue;
                out = {static_cast<std::uint32_t>(k >> 32), static_cast<std::uint32_t>(k), p.begin,
                       p.end};
                erase(out.rank, out.run, out.begin, out.end);
                return true;  // there may be more of this key: the entry stays
            }
        }
        std::pop_heap(due_.begin(), due_.end());
        due_.pop_back();
    }
    return false;
}

std::size_t Predictions::memory_bytes() const {
    return pieces_.bucket_count() * 8 + pieces_.size() * 64 + count_ * sizeof(Piece) * 2 +
           due_.capacity() * sizeof(Due);
}

}  // namespace stator::index
