#include "stator/cli/attached_metrics.h"

#include <array>
#include <functional>
#include <string_view>
#include <utility>

namespace stator::cli {
namespace {

using State = engine::EngineKvSource::RankState;
using Follower = engine::EngineFollower;

std::string_view name_of(const State& s) {
    if (!s.connected) return "gone";
    switch (s.state) {
        case Follower::State::kSyncing:
            return "sync";
        case Follower::State::kLive:
            return "live";
        case Follower::State::kGap:
            return "gap";
    }
    return "gone";
}

struct Shown {
    std::string_view name;
    std::string_view help;
    bool counter;
    std::uint64_t (*of)(const State&);
};

constexpr std::array kShown{
    Shown{"stator_engine_kv_source_incomplete",
          "1: what the engine held before it was followed, or while it was not, is not all known.",
          false, [](const State& s) { return std::uint64_t{s.incomplete}; }},
    Shown{"stator_engine_kv_source_messages_total", "Messages that the engine has published.", true,
          [](const State& s) { return s.messages.messages; }},
    Shown{"stator_engine_kv_source_unreadable_total", "Messages that were no KV events.", true,
          [](const State& s) { return s.messages.unreadable; }},
    Shown{"stator_engine_kv_source_gaps_total", "Holes in its numbers.", true,
          [](const State& s) { return s.messages.gaps; }},
    Shown{"stator_engine_kv_source_restarts_total", "New lives of the engine.", true,
          [](const State& s) { return s.messages.restarts; }},
    Shown{"stator_engine_kv_source_resets_total",
          "Times that all that was known was let go, because something was missed for good.", true,
          [](const State& s) { return s.messages.lost_history; }},
    Shown{"stator_engine_kv_source_pages", "Pages that the engine holds, in any memory.", false,
          [](const State& s) { return s.blocks.pages; }},
    Shown{"stator_engine_kv_source_orphans", "Of them: below a page that was never named.", false,
          [](const State& s) { return s.blocks.orphans; }},
    Shown{"stator_engine_kv_source_not_indexed_total",
          "Pages that came and are no part of any chain here.", true,
          [](const State& s) { return s.blocks.not_indexed; }},
    Shown{"stator_engine_kv_source_unknown_events_total", "Events that were passed over.", true,
          [](const State& s) { return s.blocks.unknown; }},
    Shown{"stator_engine_kv_source_unknown_removed_total", "Removals of pages that were not here.",
          true, [](const State& s) { return s.blocks.unknown_removed; }},
    Shown{"stator_engine_kv_source_dropped_total", "Pages for which there was no memory.", true,
          [](const State& s) { return s.blocks.dropped; }},
};

}  // namespace

void show_kv_sources(metrics::Registry& registry, const std::string& engine, std::uint32_t ranks,
                     const std::shared_ptr<engine::AttachedEngine>& attached) {
    const std::weak_ptr<engine::AttachedEngine> weak = attached;
    for (std::uint32_t rank = 0; rank < ranks; ++rank) {
        const auto ask = [weak, rank](auto f) {
            const auto a = weak.lock();
            if (!a) return 0.0;
            for (const State& s : a->kv_sources()) {
                if (s.rank == rank) return static_cast<double>(f(s));
            }
            return 0.0;
        };
        const metrics::Labels labels{{"engine", engine}, {"rank", std::to_string(rank)}};
        for (const Shown& shown : kShown) {
            registry.callback(
                shown.name, shown.help, shown.counter, [ask, of = shown.of] { return ask(of); },
                labels);
        }
        for (const std::string_view state : {"sync", "live", "gap", "gone"}) {
            metrics::Labels with = labels;
            with.emplace_back("state", std::string(state));
            registry.callback(
                "stator_engine_kv_source_state", "1 for the state that it is in.", false,
                [ask, state] { return ask([&](const State& s) { return name_of(s) == state; }); },
                std::move(with));
        }
    }
}

}  // namespace stator::cli
