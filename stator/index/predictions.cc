#include "stator/index/predictions.h"

#include <algorithm>

namespace stator::index {
namespace {

using Piece = Predictions::Piece;

Piece part_of(const Piece& of, std::uint32_t begin, std::uint32_t end, TimePoint expires_at) {
    Piece part = of;
    part.first += begin - of.begin;
    part.begin = begin;
    part.end = end;
    part.expires_at = expires_at;
    return part;
}

bool continues(const Piece& a, const Piece& b) {
    return a.end == b.begin && a.expires_at == b.expires_at && a.call == b.call &&
           a.first + (a.end - a.begin) == b.first;
}

/// Blocks, owner and age; they may expire at another time.
bool same_owner(const Piece& a, const Piece& b) {
    return a.begin == b.begin && a.end == b.end && a.call == b.call && a.first == b.first;
}

}  // namespace

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

void Predictions::set(std::uint32_t rank, std::uint32_t run, const Piece& piece) {
    std::vector<Piece>& list = pieces_[key(rank, run)];
    std::vector<Piece> next;
    std::uint32_t at = piece.begin;  // what is not yet written of `piece`
    const auto put = [&](std::uint32_t begin, std::uint32_t end, const Piece& of,
                         TimePoint expires) {
        if (begin >= end) return;
        const Piece part = part_of(of, begin, end, expires);
        if (!next.empty() && continues(next.back(), part)) {
            next.back().end = end;
        } else {
            next.push_back(part);
        }
    };
    for (const Piece& old : list) {
        if (old.begin > at) {
            const std::uint32_t until = std::min(old.begin, piece.end);
            put(at, until, piece, piece.expires_at);
            at = std::max(at, until);
        }
        const std::uint32_t both_begin = std::clamp(piece.begin, old.begin, old.end);
        const std::uint32_t both_end = std::clamp(piece.end, old.begin, old.end);
        put(old.begin, both_begin, old, old.expires_at);
        put(both_begin, both_end, piece, std::max(old.expires_at, piece.expires_at));
        at = std::max(at, both_end);
        put(std::max(both_end, both_begin), old.end, old, old.expires_at);
    }
    put(at, piece.end, piece, piece.expires_at);
    count_ += next.size() - list.size();
    count_owners(key(rank, run), list, next);
    list = std::move(next);
    push({piece.expires_at, key(rank, run)});
}

/// Those that are in both stay as they are; others of the run are few.
void Predictions::count_owners(std::uint64_t key, const std::vector<Piece>& before,
                               const std::vector<Piece>& after) {
    const auto only_in = [](const std::vector<Piece>& these, const std::vector<Piece>& those,
                            auto take) {
        auto other = those.begin();
        for (const Piece& p : these) {
            while (other != those.end() && other->begin < p.begin) ++other;
            if (other == those.end() || !same_owner(*other, p)) take(p);
        }
    };
    // Ages are used again by what is left of a piece.
    only_in(before, after, [&](const Piece& p) {
        owners_.remove(PredictionOwners::age(p.tenant, p.call, p.first), p.end - p.begin);
    });
    only_in(after, before, [&](const Piece& p) {
        owners_.add(PredictionOwners::age(p.tenant, p.call, p.first), key, p.end - p.begin);
    });
}

void Predictions::erase(std::uint32_t rank, std::uint32_t run, std::uint32_t begin,
                        std::uint32_t end) {
    const auto found = pieces_.find(key(rank, run));
    if (found == pieces_.end()) return;
    std::vector<Piece> next;
    for (const Piece& old : found->second) {
        if (old.begin < begin)
            next.push_back(part_of(old, old.begin, std::min(old.end, begin), old.expires_at));
        if (old.end > end)
            next.push_back(part_of(old, std::max(old.begin, end), old.end, old.expires_at));
    }
    count_ += next.size() - found->second.size();
    count_owners(found->first, found->second, next);
    if (next.empty()) {
        pieces_.erase(found);
    } else {
        found->second = std::move(next);
    }
}

bool Predictions::take_oldest(std::uint64_t tenant, std::size_t most, Ended& out) {
    const auto oldest = owners_.oldest(tenant);
    if (!oldest || most == 0) return false;
    const auto found = pieces_.find(oldest->where);
    if (found == pieces_.end()) return false;
    for (const Piece& p : found->second) {
        if (p.call != oldest->call || p.first != oldest->first) continue;
        const auto blocks =
            static_cast<std::uint32_t>(std::min<std::size_t>(most, p.end - p.begin));
        out = {static_cast<std::uint32_t>(oldest->where >> 32),
               static_cast<std::uint32_t>(oldest->where), p.end - blocks, p.end};
        erase(out.rank, out.run, out.begin, out.end);
        return true;
    }
    return false;
}

bool Predictions::take_expired(TimePoint now, Ended& out) {
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
           due_.capacity() * sizeof(Due) + owners_.memory_bytes();
}

}  // namespace stator::index
