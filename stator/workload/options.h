#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "stator/base/error.h"
#include "stator/workload/request_spec.h"

namespace stator::workload {

/// What the requests of a run look like.
enum class Kind : std::uint8_t {
    kFixed,         ///< prompts that share nothing
    kSharedPrefix,  ///< groups of prompts that begin alike
    kChat,          ///< sessions of several turns, each with all that was said before
    kAgent,         ///< sessions that send bursts of calls over one long context
    kMooncake,      ///< a trace: JSON lines of timestamp, input_length, output_length, hash_ids
    kAzure,         ///< a trace: CSV of TIMESTAMP, ContextTokens, GeneratedTokens
    kPrompts,       ///< a file of prompts
};

/// When they start.
enum class Arrivals : std::uint8_t { kConstant, kPoisson, kGamma, kTrace, kClosed };

/// A whole description of a workload, but for the trace's text and the seed. What an option means
/// is in option_descriptions().
struct WorkloadOptions {
    Kind kind = Kind::kFixed;
    std::optional<Arrivals> arrivals;  ///< none: a trace's own times, else Poisson
    double rate = 1.0;
    double rate_end = 0.0;
    double cv = 1.0;
    double speed = 1.0;
    std::uint32_t concurrency = 1;
    std::uint64_t requests = 0;
    double duration_s = 0.0;
    std::uint64_t skip = 0;
    std::uint32_t isl = 1000;
    std::optional<std::uint32_t> osl;  ///< none: 100, or what the trace says
    double isl_cv = 0.0;
    double osl_cv = 0.0;
    std::uint32_t groups = 10;
    std::uint32_t prefix = 500;
    double zipf = 0.0;
    std::uint32_t turns = 4;
    std::uint32_t system = 500;
    double think_s = 5.0;
    std::uint32_t calls = 4;
    std::uint32_t max_isl = 0;
    bool skip_bad = false;
    bool spread_ties = false;
    std::uint32_t images = 0;
    double image_share = 1.0;
    std::uint32_t image_size = 512;
    std::uint32_t image_pool = 0;
    std::uint32_t adapters = 0;
    bool operator==(const WorkloadOptions&) const = default;

    [[nodiscard]] bool is_trace() const { return kind == Kind::kMooncake || kind == Kind::kAzure; }
    [[nodiscard]] bool needs_file() const { return is_trace() || kind == Kind::kPrompts; }
    [[nodiscard]] Arrivals effective_arrivals() const {
        return arrivals.value_or(is_trace() ? Arrivals::kTrace : Arrivals::kPoisson);
    }
};

/// An option as it is written: `--NAME VALUE` for programs, `NAME: VALUE` in scenario files.
struct OptionDescription {
    std::string_view name;      ///< "isl", "think-time"
    std::string_view value;     ///< placeholder: "TOKENS", "fixed|shared-prefix|…"
    std::string_view meaning;   ///< a sentence
    std::string_view standard;  ///< the default, as it would be written; empty: none
};
[[nodiscard]] std::span<const OptionDescription> option_descriptions();

/// Sets one option from its text. kInvalidArgument: an unknown name (with the nearest that exists),
/// a value that is no such thing or out of range; the sentence says what would be right.
[[nodiscard]] Result<void> set_option(WorkloadOptions& options, std::string_view name,
                                      std::string_view text);

/// Bad lines of a trace that were passed over, because skip_bad said so.
struct SkippedLines {
    std::uint64_t count = 0;
    std::string first;  ///< what was wrong with the first of them
};

/// Bounds of a trace's text.
constexpr std::size_t kMaxTraceBytes = 4ULL << 30;
constexpr std::size_t kMaxTraceLine = 1U << 20;
constexpr std::uint32_t kMaxTokens = 10'000'000;  ///< of one prompt or output

/// Makes the requests of a run. `trace` is the text of the trace or file of prompts, where the kind
/// needs one; it is read whole before the first request, so that a bad line is known at once.
/// kInvalidArgument: options that don't go together; a bad line, with its number and what is wrong.
[[nodiscard]] Result<std::unique_ptr<Workload>> make_workload(const WorkloadOptions& options,
                                                              std::string_view trace,
                                                              std::uint64_t seed,
                                                              SkippedLines* skipped = nullptr);

}  // namespace stator::workload
