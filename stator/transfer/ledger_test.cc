#include "stator/transfer/ledger.h"

#include <gtest/gtest.h>
#include <rapidcheck.h>

#include <algorithm>
#include <vector>

namespace stator::transfer {
namespace {

using std::chrono::nanoseconds;

protocol::HandoffId id_of(std::uint8_t n) {
    protocol::HandoffId id{};
    id[0] = n;
    return id;
}

constexpr Ledger::Limits kLimits{
    .budget_bytes = 100, .most_unclaimed = 4, .lease = nanoseconds(10)};

/// A handoff as a test remembers it.
struct Known {
    Slot slot;
    std::uint64_t bytes = 0;
    int id = -1;  // not published
    TimePoint expires;
};

TEST(Ledger, EndsEveryHandoffOnceWhateverHappens) {
    EXPECT_TRUE(rc::check([](const std::vector<std::uint16_t>& steps) {
        Ledger ledger(kLimits);
        std::vector<Known> known;
        std::uint64_t reserved = 0;
        TimePoint now{1};
        const auto by_id = [&](int id) {
            return std::ranges::find_if(known, [id](const Known& k) { return k.id == id; });
        };
        for (const std::uint16_t step : steps) {
            const int argument = step / 8;
            const int id = argument % 6;
            switch (step % 8) {
                case 0:
                case 1: {
                    const std::uint64_t bytes = static_cast<std::uint64_t>(argument) % 60;
                    std::uint64_t sum = bytes;
                    for (const Known& k : known) sum += k.bytes;
                    const auto slot = ledger.reserve(bytes);
                    RC_ASSERT(slot.has_value() == (sum <= 100 && known.size() < 4));
                    if (slot) {
                        known.push_back({.slot = *slot, .bytes = bytes, .expires = {}});
                        ++reserved;
                    } else {
                        RC_ASSERT(slot.error().code == ErrorCode::kExhausted);
                    }
                    break;
                }
                case 2: {
                    const auto first = by_id(-1);
                    if (first == known.end()) break;
                    const bool taken = by_id(id) != known.end();
                    const auto expires = ledger.publish(first->slot, id_of(id), now);
                    RC_ASSERT(expires.has_value() == !taken);
                    if (expires) {
                        RC_ASSERT(*expires == now + kLimits.lease);
                        first->id = id;
                        first->expires = *expires;
                        RC_ASSERT(!ledger.publish(first->slot, id_of(99), now));
                        RC_ASSERT(!ledger.abandon(first->slot));
                    }
                    break;
                }
                case 3: {
                    const auto first = by_id(-1);
                    if (first == known.end()) break;
                    RC_ASSERT(ledger.abandon(first->slot));
                    RC_ASSERT(!ledger.abandon(first->slot));
                    known.erase(first);
                    break;
                }
                case 4: {
                    const auto found = by_id(id);
                    const auto slot = ledger.claim(id_of(id), now);
                    RC_ASSERT(slot.has_value() == (found != known.end() && now < found->expires));
                    if (slot) {
                        RC_ASSERT(*slot == found->slot);
                        known.erase(found);
                    } else {
                        RC_ASSERT(slot.error().code == ErrorCode::kNotFound);
                    }
                    break;
                }
                case 5: {
                    const auto found = by_id(id);
                    const auto slot = ledger.release(id_of(id));
                    RC_ASSERT(slot.has_value() == (found != known.end()));
                    if (slot) known.erase(found);
                    break;
                }
                case 6:
                    now = now + nanoseconds(argument % 7);
                    break;
                case 7: {
                    const auto ended = ledger.expire(now);
                    std::size_t expected = 0;
                    for (const Known& k : known) expected += k.id >= 0 && now >= k.expires ? 1 : 0;
                    RC_ASSERT(ended.size() == expected);
                    std::erase_if(known, [&](const Known& k) {
                        return std::ranges::find(ended, k.slot) != ended.end();
                    });
                    break;
                }
                default:
                    break;
            }
            std::uint64_t bytes = 0;
            std::optional<TimePoint> next;
            for (const Known& k : known) {
                bytes += k.bytes;
                if (k.id >= 0 && (!next || k.expires < *next)) next = k.expires;
            }
            RC_ASSERT(ledger.unclaimed() == known.size());
            RC_ASSERT(ledger.unclaimed_bytes() == bytes);
            RC_ASSERT(ledger.next_expiry() == next);
        }
        RC_ASSERT(ledger.clear().size() == known.size());
        RC_ASSERT(ledger.unclaimed() == 0U);
        RC_ASSERT(ledger.unclaimed_bytes() == 0U);
        std::uint64_t ended = 0;
        for (const End how : {End::kClaimed, End::kReleased, End::kExpired, End::kAbandoned}) {
            ended += ledger.ended(how);
        }
        RC_ASSERT(ended == reserved);
    }));
}

TEST(Ledger, RefusesWhatOverflowsTheSum) {
    Ledger ledger(
        {.budget_bytes = ~std::uint64_t{0}, .most_unclaimed = 4, .lease = nanoseconds(1)});
    EXPECT_TRUE(ledger.reserve(2));
    EXPECT_FALSE(ledger.reserve(~std::uint64_t{0}));
}

}  // namespace
}  // namespace stator::transfer
