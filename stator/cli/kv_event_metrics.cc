#include "stator/cli/kv_event_metrics.h"

#include <array>
#include <string>
#include <utility>
#include <variant>

namespace stator::cli {
namespace {

using protocol::KvTier;

constexpr std::array kTiers{KvTier::kDevice, KvTier::kHost, KvTier::kDisk};

/// One counter for each memory.
struct ByTier {
    ByTier(metrics::Registry& registry, std::string_view name, std::string_view help) {
        for (const KvTier tier : kTiers) {
            counters[index(tier)] =
                &registry.counter(name, help, {{"tier", std::string(to_string(tier))}});
        }
    }
    void add(KvTier tier, std::uint64_t n) const { counters[index(tier)]->add(n); }
    static std::size_t index(KvTier tier) { return static_cast<std::size_t>(tier); }

    std::array<metrics::Counter*, kTiers.size()> counters{};
};

}  // namespace

engine::KvEventSink count_kv_events(metrics::Registry& registry) {
    const ByTier stored(registry, "stator_kv_blocks_stored_total",
                        "Blocks that came into a memory of the prefix cache.");
    const ByTier removed(registry, "stator_kv_blocks_removed_total",
                         "Blocks that left a memory of the prefix cache.");
    auto& cleared =
        registry.counter("stator_kv_cleared_total", "Times the whole prefix cache was lost.");
    return [stored, removed, &cleared](const std::vector<protocol::KvEvent>& events) {
        for (const protocol::KvEvent& event : events) {
            if (const auto* s = std::get_if<protocol::KvStored>(&event.what)) {
                stored.add(s->tier, s->blocks.size());
            } else if (const auto* r = std::get_if<protocol::KvRemoved>(&event.what)) {
                removed.add(r->tier, r->sequences.size());
            } else {
                cleared.add();
            }
        }
    };
}

}  // namespace stator::cli
