#include "stator/transfer/transfer_metrics.h"

#include <array>
#include <utility>

namespace stator::transfer {
namespace {

constexpr double kNewest = 0.2;  ///< weight of the newest claim in the average
/// Smaller claims say more of the way's latency than of its width.
constexpr std::uint64_t kMeasuredBytes = 64 * 1024;

constexpr std::array<std::pair<End, std::string_view>, kEnds> kEndNames{
    {{End::kClaimed, "claimed"},
     {End::kReleased, "released"},
     {End::kExpired, "expired"},
     {End::kAbandoned, "abandoned"}}};

}  // namespace

TransferMetrics::TransferMetrics(metrics::Registry& registry, const std::shared_ptr<Store>& store)
    : registry_(registry) {
    const auto value = [&](std::string_view name, std::string_view help, auto f) {
        registry.callback(name, help, false, [store, f] {
            return static_cast<double>(f(store->counts(), store->arena()));
        });
    };
    using Counts = Store::Counts;
    value("stator_transfer_unclaimed", "Handoffs made or being made that nobody has claimed yet.",
          [](const Counts& c, const Arena&) { return c.unclaimed; });
    value("stator_transfer_unclaimed_bytes", "Bytes of handoffs that nobody has claimed yet.",
          [](const Counts& c, const Arena&) { return c.unclaimed_bytes; });
    value("stator_transfer_granted", "Claimed handoffs whose bytes are still in use.",
          [](const Counts& c, const Arena&) { return c.granted; });
    value("stator_transfer_memory_bytes", "Memory for handoffs that is there, in use or not.",
          [](const Counts&, const Arena& a) { return a.resident_bytes(); });
    for (const auto& [how, name] : kEndNames) {
        registry.callback(
            "stator_transfer_ended_total", "Handoffs of this process that ended, by how.", true,
            [store, how] {
                return static_cast<double>(store->counts().ended[static_cast<std::size_t>(how)]);
            },
            {{"how", std::string(name)}});
    }
}

metrics::Counter& TransferMetrics::claims(std::string_view method, std::string_view outcome) {
    return registry_.counter("stator_transfer_claims_total",
                             "Attempts to claim a handoff, by method and outcome.",
                             {{"method", std::string(method)}, {"outcome", std::string(outcome)}});
}

metrics::Counter& TransferMetrics::bytes(std::string_view method, std::string_view direction) {
    return registry_.counter(
        "stator_transfer_bytes_total", "Bytes of handoffs given and taken, by method.",
        {{"method", std::string(method)}, {"direction", std::string(direction)}});
}

void TransferMetrics::gave(std::string_view method, std::uint64_t n) {
    bytes(method, "out").add(n);
}

void TransferMetrics::claimed(std::string_view method, std::uint64_t n, double seconds) {
    claims(method, "ok").add();
    bytes(method, "in").add(n);
    registry_
        .histogram("stator_transfer_claim_seconds", "How long claims took, by method.",
                   metrics::exponential_bounds(0.0001, 2, 18), {{"method", std::string(method)}})
        .observe(seconds);
    if (n < kMeasuredBytes || seconds <= 0) return;
    const double rate = static_cast<double>(n) / seconds;
    const std::scoped_lock lock(mutex_);
    double& average = rates_[std::string(method)];
    average = average == 0 ? rate : kNewest * rate + (1 - kNewest) * average;
}

void TransferMetrics::failed(std::string_view method, ErrorCode why) {
    claims(method, to_string(why)).add();
}

double TransferMetrics::bytes_per_second(std::string_view method) const {
    const std::scoped_lock lock(mutex_);
    const auto found = rates_.find(method);
    return found == rates_.end() ? 0 : found->second;
}

}  // namespace stator::transfer
