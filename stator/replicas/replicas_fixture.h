#pragma once

#include <gtest/gtest.h>

#include <chrono>
#include <string>
#include <vector>

#include "stator/replicas/journal.h"
#include "stator/replicas/peer_table.h"
#include "stator/router/router.h"

namespace stator::replicas {

/// A router, what it tells and what it is told.
struct Replica {
    explicit Replica(std::uint64_t id_number, std::uint32_t ranks = 4,
                     PeerTableOptions options = {})
        : id(id_number), router({}, id_number), peers(router, options) {
        router.set_sink(&journal);
        for (std::uint32_t r = 0; r < ranks; ++r) add_rank("w" + std::to_string(r));
    }

    router::RankIndex add_rank(const std::string& name,
                               protocol::Role role = protocol::Role::kAggregated) {
        router::RankDescription d;
        d.name = name;
        d.roles = role;
        d.prefill = {.base_s = 0.01, .per_token_s = 1e-4};
        const router::RankIndex rank = router.add_rank(std::move(d));
        peers.ranks_changed();
        return rank;
    }
    router::Decision book(std::span<const std::uint64_t> blocks, Nanos now,
                          std::optional<router::RankIndex> pinned = std::nullopt) {
        router::RouteRequest r;
        r.prompt_tokens = static_cast<std::uint32_t>(blocks.size() * 16 + 8);
        r.blocks = blocks;
        r.pinned = pinned;
        auto decision = router.book(r, now);
        EXPECT_TRUE(decision.has_value());
        return decision.value_or(router::Decision{});
    }
    std::vector<Message> flush() {
        std::vector<Message> out;
        journal.flush(out);
        return out;
    }
    std::vector<Message> digest(Nanos now = {}) {
        std::vector<Message> out;
        journal.digest(now, out);
        return out;
    }
    void hear(const Replica& from, const std::vector<Message>& messages, Nanos now = {}) {
        for (const Message& m : messages) peers.take(from.id, m, now);
    }
    std::vector<Ask> asks(Nanos now) {
        std::vector<Ask> out;
        peers.asks(now, out);
        return out;
    }

    ReplicaId id;
    Journal journal;
    router::Router router;
    PeerTable peers;
};

inline std::vector<std::uint64_t> prompt(std::uint64_t name, std::size_t blocks) {
    std::vector<std::uint64_t> out;
    for (std::size_t i = 0; i < blocks; ++i) out.push_back(name * 1'000'003 + i * 7919 + 1);
    return out;
}

}  // namespace stator::replicas
