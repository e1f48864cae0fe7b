#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "stator/report/collector.h"
#include "stator/report/record.h"

namespace stator::report {

/// A made-up server for tests and previews: requests arrive at random, prompts are computed one
/// after another by a few workers, decoding slows down as more requests share a worker.
struct SyntheticRun {
    double rate = 20;
    double seconds = 60;
    std::uint32_t workers = 4;
    double prefill_tokens_per_second = 30'000;
    double cached_share = 0.4;
    double failure_share = 0;
    /// The server computes nothing from here on for five seconds.
    std::optional<double> stall_at = std::nullopt;
    std::uint64_t seed = 1;
};

/// Owns the gaps that its records point to.
struct SyntheticRecords {
    std::vector<RequestRecord> records;  ///< in the order of their ends
    std::vector<std::vector<float>> gaps;
};
[[nodiscard]] SyntheticRecords synthetic_records(const SyntheticRun& run);

/// The report of such a run, with facts as a load generator would give.
[[nodiscard]] Report synthetic_report(const SyntheticRun& run, CollectorOptions options);

}  // namespace stator::report
