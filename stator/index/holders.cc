#include "stator/index/holders.h"

#include <algorithm>

namespace stator::index {

using std::memory_order_relaxed;

void Holders::set_entry(Run& run, std::uint32_t i, std::uint64_t word) {
    const RunChange change(run);
    if (run.entries.load(memory_order_relaxed) == 1) {
        run.only.store(word, memory_order_relaxed);
    } else {
        pool_.set(run.list.load(memory_order_relaxed) + i, word);
    }
}

std::uint32_t Holders::lower(const Run& run, std::uint32_t rank) const {
    std::uint32_t from = 0;
    std::uint32_t to = run.entries.load(memory_order_relaxed);
    while (from < to) {
        const std::uint32_t middle = (from + to) / 2;
        if (Entry::of(entry(run, middle)).rank < rank) {
            from = middle + 1;
        } else {
            to = middle;
        }
    }
    return from;
}

bool Holders::bit(const Run& run, std::uint32_t way, std::uint32_t rank) const {
    const std::uint32_t at = run.bits[way].load(memory_order_relaxed);
    if (at == 0 || rank / 64 >= static_cast<std::uint32_t>(pool_.get(at))) return false;
    return (pool_.get(at + 1 + rank / 64) >> (rank % 64) & 1) != 0;
}

bool Holders::splice(Run& run, std::uint32_t from, std::uint32_t to,
                     std::span<const std::uint64_t> words) {
    const std::uint32_t old_count = run.entries.load(memory_order_relaxed);
    const auto added = static_cast<std::uint32_t>(words.size());
    const std::uint32_t count = old_count - (to - from) + added;
    const std::uint32_t old_list = run.list.load(memory_order_relaxed);
    const auto old_class = run.list_class;
    std::uint32_t list = 0;
    std::uint8_t list_class = 0;
    if (count > 1) {
        list_class = static_cast<std::uint8_t>(HolderPool::class_of(count));
        const bool fits = old_count > 1 && old_class >= list_class;
        if (!fits || old_class > list_class + 1) list = pool_.allocate(list_class);
        if (list == HolderPool::kNone) {
            if (!fits) return false;
            list = old_list;
            list_class = old_class;
        }
    }
    // The tail is moved aside: source and target may overlap.
    moved_.clear();
    for (std::uint32_t i = to; i < old_count; ++i) moved_.push_back(entry(run, i));
    {
        const RunChange change(run);
        if (count == 1) {
            run.only.store(from == 1    ? entry(run, 0)
                           : added == 1 ? words[0]
                                        : moved_[0],
                           memory_order_relaxed);
        } else if (count > 1) {
            if (list != old_list || old_count <= 1) {
                for (std::uint32_t i = 0; i < from; ++i) pool_.set(list + i, entry(run, i));
            }
            for (std::uint32_t i = 0; i < added; ++i) pool_.set(list + from + i, words[i]);
            for (std::uint32_t i = 0; i < moved_.size(); ++i) {
                pool_.set(list + from + added + i, moved_[i]);
            }
        }
        run.entries.store(count, memory_order_relaxed);
        run.list.store(list, memory_order_relaxed);
        run.list_class = list_class;
    }
    if (old_count > 1 && list != old_list) pool_.free(old_list, old_class);
    return true;
}

bool Holders::set_bit(Run& run, std::uint32_t way, std::uint32_t rank, std::uint32_t rank_words) {
    std::uint32_t at = run.bits[way].load(memory_order_relaxed);
    const auto words = static_cast<std::uint32_t>(at == 0 ? 0 : pool_.get(at));
    const std::uint64_t count = at == 0 ? 0 : pool_.get(at) >> 32;
    if (rank / 64 >= words) {
        const std::uint32_t more = std::max(rank_words, rank / 64 + 1);
        const std::uint32_t c = HolderPool::class_of(more + 1);
        const std::uint32_t bigger = pool_.allocate(c);
        if (bigger == HolderPool::kNone) return false;
        for (std::uint32_t w = 0; w < more; ++w) {
            pool_.set(bigger + 1 + w, w < words ? pool_.get(at + 1 + w) : 0);
        }
        pool_.set(bigger, count << 32 | more);
        const std::uint32_t old_class = run.words_class[way];
        {
            const RunChange change(run);
            run.bits[way].store(bigger, memory_order_relaxed);
            run.words_class[way] = static_cast<std::uint8_t>(c);
        }
        if (at != 0) pool_.free(at, old_class);
        at = bigger;
    }
    const RunChange change(run);
    pool_.set(at, pool_.get(at) + (std::uint64_t{1} << 32));
    pool_.set(at + 1 + rank / 64, pool_.get(at + 1 + rank / 64) | std::uint64_t{1} << (rank % 64));
    return true;
}

void Holders::clear_bit(Run& run, std::uint32_t way, std::uint32_t rank) {
    const std::uint32_t at = run.bits[way].load(memory_order_relaxed);
    const std::uint64_t left = (pool_.get(at) >> 32) - 1;
    {
        const RunChange change(run);
        pool_.set(at, pool_.get(at) - (std::uint64_t{1} << 32));
        pool_.set(at + 1 + rank / 64,
                  pool_.get(at + 1 + rank / 64) & ~(std::uint64_t{1} << (rank % 64)));
        if (left == 0) run.bits[way].store(0, memory_order_relaxed);
    }
    if (left == 0) pool_.free(at, run.words_class[way]);
}

std::optional<std::uint32_t> Holders::add(Run& run, const Entry& e, std::uint32_t rank_words) {
    if (holds_all(run, e.rank, e.way)) return 0;
    const std::uint32_t from = lower(run, e.rank);
    const std::uint32_t count = run.entries.load(memory_order_relaxed);
    mine_.clear();
    Entry sum = e;
    std::uint32_t fresh = e.end - e.begin;
    std::uint32_t to = from;
    std::uint32_t touching = 0;
    std::uint32_t touched = 0;  // the last that touches
    for (; to < count; ++to) {
        const Entry old = Entry::of(entry(run, to));
        if (old.rank != e.rank) break;
        if (old.way == e.way && old.begin <= e.end && e.begin <= old.end) {
            const std::uint32_t both_begin = std::max(old.begin, e.begin);
            const std::uint32_t both_end = std::min(old.end, e.end);
            if (both_begin < both_end) fresh -= both_end - both_begin;
            sum.begin = std::min(sum.begin, old.begin);
            sum.end = std::max(sum.end, old.end);
            ++touching;
            touched = to;
        } else {
            mine_.push_back(old.word());
        }
    }
    if (fresh == 0) return 0;
    const bool full = sum.begin == 0 && sum.end == run.length.load(memory_order_relaxed);
    if (full && e.way < kMemories && run.bits[e.way].load(memory_order_relaxed) != 0) {
        if (!set_bit(run, e.way, e.rank, rank_words)) return std::nullopt;
        // Fewer words need no memory.
        if (touching > 0) static_cast<void>(splice(run, from, to, mine_));
        return fresh;
    }
    if (touching == 1 && Entry::of(entry(run, touched)).begin == sum.begin) {
        set_entry(run, touched, sum.word());
    } else {
        mine_.insert(std::ranges::upper_bound(mine_, sum.word()), sum.word());
        if (!splice(run, from, to, mine_)) return std::nullopt;
    }
    if (full && e.way < kMemories && run.entries.load(memory_order_relaxed) >= kManyFull) {
        gather_full(run, e.way, rank_words);
    }
    return fresh;
}

void Holders::gather_full(Run& run, std::uint32_t way, std::uint32_t rank_words) {
    const std::uint32_t length = run.length.load(memory_order_relaxed);
    const std::uint32_t count = run.entries.load(memory_order_relaxed);
    std::vector<std::uint64_t> rest;
    std::vector<std::uint32_t> full;
    for (std::uint32_t i = 0; i < count; ++i) {
        const Entry e = Entry::of(entry(run, i));
        if (e.way == way && e.begin == 0 && e.end == length) {
            full.push_back(e.rank);
        } else {
            rest.push_back(e.word());
        }
    }
    if (full.size() < kManyFull) return;
    for (const std::uint32_t rank : full) {
        if (!set_bit(run, way, rank, rank_words)) return;  // entry and bit say the same
    }
    static_cast<void>(splice(run, 0, count, rest));
}

std::uint32_t Holders::remove(Run& run, const Entry& e) {
    if (holds_all(run, e.rank, e.way)) {
        // What is left first, so that nothing is lost if there is no memory: then all goes.
        const std::uint32_t length = run.length.load(memory_order_relaxed);
        const std::uint32_t from = lower(run, e.rank);
        std::uint32_t to = from;
        mine_.clear();
        for (; to < run.entries.load(memory_order_relaxed); ++to) {
            const Entry old = Entry::of(entry(run, to));
            if (old.rank != e.rank) break;
            if (old.way != e.way) mine_.push_back(old.word());
        }
        if (e.begin > 0) mine_.push_back(Entry{e.rank, 0, e.way, e.begin}.word());
        if (e.end < length) mine_.push_back(Entry{e.rank, e.end, e.way, length}.word());
        std::ranges::sort(mine_);
        const bool kept = splice(run, from, to, mine_);
        clear_bit(run, e.way, e.rank);
        return kept ? e.end - e.begin : length;
    }
    const std::uint32_t from = lower(run, e.rank);
    const std::uint32_t count = run.entries.load(memory_order_relaxed);
    std::uint32_t to = from;
    std::uint32_t gone = 0;
    std::uint32_t cut = 0;       // entries that change
    std::uint32_t only_cut = 0;  // the last of them
    mine_.clear();
    for (; to < count; ++to) {
        const Entry old = Entry::of(entry(run, to));
        if (old.rank != e.rank) break;
        const std::uint32_t both_begin = std::max(old.begin, e.begin);
        const std::uint32_t both_end = std::min(old.end, e.end);
        if (old.way != e.way || both_begin >= both_end) {
            mine_.push_back(old.word());
            continue;
        }
        gone += both_end - both_begin;
        ++cut;
        only_cut = to;
        if (old.begin < both_begin) {
            mine_.push_back(Entry{e.rank, old.begin, e.way, both_begin}.word());
        }
        if (both_end < old.end) mine_.push_back(Entry{e.rank, both_end, e.way, old.end}.word());
    }
    if (gone == 0) return 0;
    if (cut == 1) {
        const Entry old = Entry::of(entry(run, only_cut));
        if (old.begin < e.begin && e.end >= old.end) {  // the usual one: from the end
            set_entry(run, only_cut, Entry{e.rank, old.begin, e.way, e.begin}.word());
            return gone;
        }
    }
    std::ranges::sort(mine_);
    if (!splice(run, from, to, mine_)) {
        // No memory for one entry more: what is behind the hole goes, too.
        std::erase_if(mine_, [&](std::uint64_t word) {
            const Entry left = Entry::of(word);
            const bool behind = left.way == e.way && left.begin >= e.end;
            if (behind) gone += left.end - left.begin;
            return behind;
        });
        static_cast<void>(splice(run, from, to, mine_));
    }
    return gone;
}

void Holders::clear(Run& run) {
    for (std::uint32_t way = 0; way < kMemories; ++way) {
        const std::uint32_t at = run.bits[way].load(memory_order_relaxed);
        if (at == 0) continue;
        {
            const RunChange change(run);
            run.bits[way].store(0, memory_order_relaxed);
        }
        pool_.free(at, run.words_class[way]);
    }
    static_cast<void>(splice(run, 0, run.entries.load(memory_order_relaxed), {}));
}

std::span<const Entry> Holders::of(const Run& run, std::uint32_t rank) {
    of_.clear();
    for (std::uint32_t way = 0; way < kMemories; ++way) {
        if (bit(run, way, rank)) {
            of_.push_back({rank, 0, way, run.length.load(memory_order_relaxed)});
        }
    }
    for (std::uint32_t i = lower(run, rank); i < run.entries.load(memory_order_relaxed); ++i) {
        const Entry e = Entry::of(entry(run, i));
        if (e.rank != rank) break;
        of_.push_back(e);
    }
    return of_;
}

bool Holders::holds(const Run& run, std::uint32_t rank, std::uint32_t way) const {
    if (holds_all(run, rank, way)) return true;
    for (std::uint32_t i = lower(run, rank); i < run.entries.load(memory_order_relaxed); ++i) {
        const Entry e = Entry::of(entry(run, i));
        if (e.rank != rank) return false;
        if (e.way == way) return true;
    }
    return false;
}

std::uint32_t Holders::end(const Run& run) const {
    if (any_bits(run)) return run.length.load(memory_order_relaxed);
    std::uint32_t end = 0;
    for (std::uint32_t i = 0; i < run.entries.load(memory_order_relaxed); ++i) {
        end = std::max(end, Entry::of(entry(run, i)).end);
    }
    return end;
}

bool Holders::any_bits(const Run& run) const {
    return std::ranges::any_of(run.bits,
                               [](const auto& b) { return b.load(memory_order_relaxed) != 0; });
}

bool Holders::assign(Run& run, std::span<const std::uint64_t> words) {
    return splice(run, 0, 0, words);
}

}  // namespace stator::index
