#include "stator/engine/mock/live/kv_announcer.h"

#include <utility>
#include <variant>

#include "stator/base/check.h"

namespace stator::engine::mock {
namespace {

using protocol::KvEvent;
using protocol::KvStored;

bool goes_on(const KvStored& last, const KvChange& next) {
    return last.tier == next.tier && next.parent && !last.blocks.empty() &&
           last.blocks.back().sequence == *next.parent;
}

}  // namespace

void KvAnnouncer::announce(std::span<const KvChange> changes, const SequenceOf& sequence_of,
                           std::vector<KvEvent>& events) {
    const std::size_t begin = events.size();
    for (const KvChange& change : changes) {
        // Runs end where the caller's own events do.
        KvEvent* last = events.size() > begin ? &events.back() : nullptr;
        switch (change.kind) {
            case KvChange::Kind::kStored: {
                auto* run = last != nullptr ? std::get_if<KvStored>(&last->what) : nullptr;
                if (run == nullptr || !goes_on(*run, change)) {
                    number({{}, KvStored{change.parent, {}, change.tier}}, events);
                }
                stored(change, sequence_of, events);
                break;
            }
            case KvChange::Kind::kRemoved: {
                auto* run =
                    last != nullptr ? std::get_if<protocol::KvRemoved>(&last->what) : nullptr;
                if (run == nullptr || run->tier != change.tier) {
                    run = &std::get<protocol::KvRemoved>(
                        number({{}, protocol::KvRemoved{{}, change.tier}}, events).what);
                }
                run->sequences.push_back(change.block);
                break;
            }
            case KvChange::Kind::kCleared:
                number({{}, protocol::KvCleared{}}, events);
                break;
        }
        if (!slower_tiers_) continue;
        // One block at a time: the next change may need what this one says.
        switch (change.kind) {
            case KvChange::Kind::kStored: {
                const auto& run = std::get<KvStored>(events.back().what);
                announced_.apply({{}, KvStored{change.parent, {run.blocks.back()}, change.tier}});
                break;
            }
            case KvChange::Kind::kRemoved:
                announced_.apply({{}, protocol::KvRemoved{{change.block}, change.tier}});
                break;
            case KvChange::Kind::kCleared:
                announced_.clear();
                break;
        }
    }
}

/// Adds the block to the last event.
void KvAnnouncer::stored(const KvChange& change, const SequenceOf& sequence_of,
                         std::vector<KvEvent>& events) {
    protocol::StoredBlock block;
    block.sequence = change.block;
    if (change.tier == KvTier::kDevice) {
        const tokens::TokenSequence* owner = sequence_of(change.owner);
        if (owner != nullptr && change.index < owner->complete_blocks() &&
            owner->sequence_hashes()[change.index] == change.block) {
            const auto tokens = owner->block(change.index);
            block.block = owner->block_hashes()[change.index];
            block.tokens.assign(tokens.begin(), tokens.end());
        } else {
            STATOR_BUG("a block's owner is there when it is stored, and has its tokens");
        }
    } else if (const auto known = announced_.find(change.block)) {
        block.block = known->block;
    } else {
        STATOR_BUG("a block was announced on the device before it went elsewhere");
    }
    std::get<KvStored>(events.back().what).blocks.push_back(std::move(block));
}

KvEvent& KvAnnouncer::number(KvEvent event, std::vector<KvEvent>& events) {
    event.seq = protocol::EventSeq(++last_);
    return events.emplace_back(std::move(event));
}

}  // namespace stator::engine::mock
