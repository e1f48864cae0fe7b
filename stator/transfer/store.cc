#include "stator/transfer/store.h"

#include <algorithm>
#include <bit>
#include <utility>

#include "stator/transfer/random.h"

namespace stator::transfer {
namespace {

/// Memory that stays for the next handoffs, however long none come.
constexpr std::uint64_t kKeepBytes = 64ULL << 20;
constexpr std::chrono::seconds kTrimEvery{5};

Result<void> check_parts(const protocol::Handoff& what, std::uint64_t room) {
    if (what.parts.size() > protocol::kMaxHandoffParts) {
        return error(ErrorCode::kInvalidArgument, "a handoff has {} parts; {} are the most",
                     what.parts.size(), protocol::kMaxHandoffParts);
    }
    std::uint64_t at = 0;
    for (const protocol::HandoffPart& part : what.parts) {
        if (part.offset != at || part.bytes > room - at) {
            return error(ErrorCode::kInvalidArgument,
                         "a handoff's parts must follow each other within its {} bytes", room);
        }
        at += part.bytes;
    }
    if (at != room) {
        return error(ErrorCode::kInvalidArgument, "a handoff's parts cover {} of its {} bytes", at,
                     room);
    }
    return {};
}

}  // namespace

class Store::Buffer final : public HandoffBuffer {
  public:
    Buffer(std::shared_ptr<Store> store, Slot slot, std::shared_ptr<ArenaRange> range)
        : store_(std::move(store)), slot_(slot), range_(std::move(range)) {}
    ~Buffer() override {
        if (range_) store_->abandon(slot_);
    }
    Buffer(const Buffer&) = delete;
    Buffer& operator=(const Buffer&) = delete;
    [[nodiscard]] std::span<std::byte> bytes() override { return range_->bytes(); }

    std::shared_ptr<Store> store_;
    Slot slot_;
    std::shared_ptr<ArenaRange> range_;
};

Result<std::shared_ptr<Store>> Store::make(Ledger::Limits limits, const Clock& clock) {
    auto arena = Arena::make("stator-handoffs", 2 * limits.budget_bytes);
    if (!arena) return tl::unexpected<Error>(std::move(arena.error()));
    return std::shared_ptr<Store>(new Store(limits, clock, std::move(*arena)));
}

Result<std::unique_ptr<HandoffBuffer>> Store::reserve(std::uint64_t bytes) {
    Slot slot;
    {
        const std::scoped_lock lock(mutex_);
        if (closed_) return error(ErrorCode::kUnavailable, "the transfer plane is stopped");
        auto reserved = ledger_.reserve(bytes);
        if (!reserved) return tl::unexpected<Error>(std::move(reserved.error()));
        slot = *reserved;
    }
    auto range = arena_->take(bytes);
    Result<void> ready;
    if (range) ready = (*range)->populate();
    if (!range || !ready) {
        abandon(slot);
        return tl::unexpected<Error>(std::move(range ? ready.error() : range.error()));
    }
    return std::make_unique<Buffer>(shared_from_this(), slot, std::move(*range));
}

void Store::abandon(Slot slot) {
    const std::scoped_lock lock(mutex_);
    ledger_.abandon(slot);
}

Result<std::shared_ptr<const protocol::Handoff>> Store::publish(
    std::unique_ptr<HandoffBuffer> buffer, protocol::Handoff what) {
    auto* own = dynamic_cast<Buffer*>(buffer.get());
    if (own == nullptr || own->store_.get() != this) {
        return error(ErrorCode::kInvalidArgument, "the buffer is not of this transfer plane");
    }
    what.bytes = own->range_->bytes().size();
    if (auto ok = check_parts(what, what.bytes); !ok) {
        return tl::unexpected<Error>(std::move(ok.error()));
    }
    what.id = random_bytes<std::tuple_size_v<protocol::HandoffId>>();
    const std::scoped_lock lock(mutex_);
    if (closed_) return error(ErrorCode::kUnavailable, "the transfer plane is stopped");
    auto expires = ledger_.publish(own->slot_, what.id, clock_.now());
    if (!expires) return tl::unexpected<Error>(std::move(expires.error()));
    what.expires = Deadline::at(*expires);
    auto shared = std::make_shared<const protocol::Handoff>(std::move(what));
    published_.emplace(own->slot_, Published{.what = shared, .range = std::move(own->range_)});
    return shared;
}

Result<std::shared_ptr<const Granted>> Store::claim(const protocol::HandoffId& id,
                                                    const ClaimKey& key, Owner owner) {
    const std::scoped_lock lock(mutex_);
    if (const auto again = by_key_.find(key); again != by_key_.end()) {
        Grant& grant = grants_.at(again->second);
        if (grant.granted->what->id != id) {
            return error(ErrorCode::kInvalidArgument, "a claim's key is used for another handoff");
        }
        grant.owner = owner;
        return grant.granted;
    }
    auto slot = ledger_.claim(id, clock_.now());
    if (!slot) return tl::unexpected<Error>(std::move(slot.error()));
    const auto published = published_.find(*slot);
    auto granted = std::make_shared<Granted>();
    granted->what = std::move(published->second.what);
    granted->range = std::move(published->second.range);
    published_.erase(published);
    do {
        granted->number = std::bit_cast<std::uint64_t>(random_bytes<8>());
    } while (granted->number == 0 || grants_.contains(granted->number));
    grants_.emplace(granted->number, Grant{.granted = granted, .key = key, .owner = owner});
    by_key_.emplace(key, granted->number);
    return granted;
}

std::shared_ptr<const Granted> Store::granted(std::uint64_t number) const {
    const std::scoped_lock lock(mutex_);
    const auto found = grants_.find(number);
    return found == grants_.end() ? nullptr : found->second.granted;
}

void Store::finish(std::uint64_t number) {
    std::shared_ptr<const Granted> last;  // goes without the lock
    const std::scoped_lock lock(mutex_);
    const auto found = grants_.find(number);
    if (found == grants_.end()) return;
    last = std::move(found->second.granted);
    by_key_.erase(found->second.key);
    grants_.erase(found);
}

void Store::drop(Owner owner) {
    const std::scoped_lock lock(mutex_);
    for (auto grant = grants_.begin(); grant != grants_.end();) {
        if (grant->second.owner == owner) {
            by_key_.erase(grant->second.key);
            grant = grants_.erase(grant);
        } else {
            ++grant;
        }
    }
}

bool Store::holds(Owner owner) const {
    const std::scoped_lock lock(mutex_);
    return std::ranges::any_of(grants_,
                               [owner](const auto& entry) { return entry.second.owner == owner; });
}

void Store::release(const protocol::HandoffId& id) {
    const std::scoped_lock lock(mutex_);
    if (const auto slot = ledger_.release(id)) published_.erase(*slot);
}

void Store::upkeep() {
    const TimePoint now = clock_.now();
    bool trim = false;
    {
        const std::scoped_lock lock(mutex_);
        for (const Slot slot : ledger_.expire(now)) published_.erase(slot);
        if (now - last_trim_ >= kTrimEvery) {
            last_trim_ = now;
            trim = true;
        }
    }
    if (trim) arena_->trim(kKeepBytes);
}

void Store::close() {
    const std::scoped_lock lock(mutex_);
    closed_ = true;
    for (const Slot slot : ledger_.clear()) published_.erase(slot);
    grants_.clear();
    by_key_.clear();
}

Store::Counts Store::counts() const {
    const std::scoped_lock lock(mutex_);
    Counts out;
    out.unclaimed = ledger_.unclaimed();
    out.unclaimed_bytes = ledger_.unclaimed_bytes();
    out.granted = grants_.size();
    for (std::size_t i = 0; i < kEnds; ++i) out.ended[i] = ledger_.ended(static_cast<End>(i));
    return out;
}

}  // namespace stator::transfer
