#include <array>
#include <memory>
#include <mutex>
#include <utility>

#include "stator/base/log.h"
#include "stator/routing/pool_router.h"

// Whether what workers' events say is what their caches give, and what follows where it is not.
namespace stator::routing {

/// Under the lock. True: what the rank holds is to be fetched again.
bool PoolRouter::audit(const Route& route, std::uint32_t cached_tokens) {
    Member& m = members_[route.rank];
    if (!m.rank.worker || !m.writer) return false;
    settle_snapshot(route.rank);
    const std::uint64_t orphans = m.writer->orphans(m.rank.rank);
    const std::uint64_t before = std::exchange(m.orphans, orphans);
    bool changed = audit_.observe_orphans(route.rank, orphans > before ? orphans - before : 0);
    router::AuditSample sample{route.held_tokens, cached_tokens, card_.block_tokens};
    sample.expected_tokens = route.cached_tokens;
    sample.prompt_tokens = route.prompt_tokens;
    sample.resyncs_done = route.resyncs_done;
    changed |= audit_.observe(route.rank, sample);
    const auto verdict = audit_.verdict(route.rank);
    router_.set_distrusted(route.rank, !verdict.believed);
    const bool fetch = verdict.wants_snapshot && !m.resyncing;
    if (fetch) {
        m.resyncing = true;
        m.writer.reset();  // what it says is believed again from the snapshot on
    }
    if (!changed) return fetch;
    show_trust();
    log_warn("What a worker's cache gives is not what its events say.",
             {{"rank", router_.ranks().description(route.rank).name},
              {"finding", std::string(router::to_string(verdict.finding))},
              {"verdict", std::string(router::to_string(verdict.trust))},
              {"mismatch_rate", verdict.mismatch_rate}});
    if (verdict.trust != router::Trust::kTrusted) metrics_.audit_alarms.add();
    return fetch;
}

/// Under the lock: a snapshot that was asked for has come.
void PoolRouter::settle_snapshot(router::RankIndex rank) {
    Member& m = members_[rank];
    if (!m.resyncing || !m.writer || !m.writer->is_live(m.rank.rank)) return;
    m.resyncing = false;
    audit_.on_resynced(rank);
    show_trust();
}

/// Under the lock.
void PoolRouter::show_trust() {
    std::array<double, 3> ranks{};
    for (std::size_t i = 0; i < members_.size(); ++i) {
        if (!members_[i].rank.worker) continue;
        const auto trust = audit_.verdict(static_cast<router::RankIndex>(i)).trust;
        ++ranks[static_cast<std::size_t>(trust)];
    }
    for (std::size_t t = 0; t < ranks.size(); ++t) metrics_.ranks_by_trust[t]->set(ranks[t]);
}

/// As if the worker were new here: what it holds is read from a snapshot.
void PoolRouter::fetch_again(router::RankIndex rank) {
    const std::scoped_lock following(following_mutex_);
    std::shared_ptr<fleet::Worker> worker;
    {
        const std::scoped_lock lock(mutex_);
        worker = members_[rank].rank.worker;
        for (Member& m : members_) {
            if (!worker || m.rank.worker != worker) continue;
            m.writer.reset();
            m.orphans = 0;
        }
    }
    if (!worker) return;
    std::erase_if(following_, [&](const auto& f) { return f.first == worker; });
    follow_events();
}

}  // namespace stator::routing
