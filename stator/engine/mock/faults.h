#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "stator/base/error.h"

namespace stator::engine::mock {

/// Something that goes wrong on purpose, at a time of the engine's own clock.
struct Fault {
    enum class Kind : std::uint8_t {
        kCrash,            ///< gone at once, without a word
        kHang,             ///< no step ends or begins
        kSlow,             ///< steps take `factor` times as long
        kDropEvents,       ///< each KV event is lost with `probability`; its number is used up
        kWrongTokens,      ///< other tokens come out than were computed
        kLoseEvents,       ///< each KV event is lost with `probability` before it gets a number
        kWrongTemplate,    ///< prompts are computed as if they began with other tokens
        kChangedHashSeed,  ///< KV events name blocks by other hashes; at its end the engine starts
                           ///< anew, with an empty cache
        kLoseHandoffs,     ///< each handoff that it should take does not arrive, with `probability`
    };
    Kind kind = Kind::kCrash;
    std::chrono::nanoseconds at{0};
    std::chrono::nanoseconds length{0};  ///< of all but crashes
    double factor = 1.0;
    double probability = 1.0;
    std::optional<std::uint32_t> worker = std::nullopt;  ///< none: every worker
    bool operator==(const Fault&) const = default;
};

/// Reads a schedule: faults in any order, with commas between them; empty text is no fault.
///
///     crash@30s                dies 30 seconds after the start
///     hang@10s+5s              from 10 s to 15 s
///     slow@20s+10s:x4          four times as slow
///     drop-events@5s+2s:0.5    every other event is lost; without ":0.5", all of them
///     wrong-tokens@40s+1s
///     lose-events@5s+2s:0.05   every twentieth event is lost, and no gap shows it
///     wrong-template@5s+2s     prompts that come in these 2 s get another beginning
///     changed-hash-seed@5s+2s  for 2 s events name blocks by other hashes
///     lose-handoffs@5s+2s:0.1  every tenth handoff does not arrive
///     worker=3:crash@30s       only worker 3 of many, which count from 0
///
/// Times are decimals with ms, s, m or h. The error names the fault that can't be read.
[[nodiscard]] Result<std::vector<Fault>> parse_faults(std::string_view text);

/// What the schedule says to one worker. Times since the start. A value.
class FaultPlan {
  public:
    using Nanos = std::chrono::nanoseconds;

    FaultPlan() = default;
    FaultPlan(std::span<const Fault> all, std::uint32_t worker);

    /// When it dies, if it does.
    [[nodiscard]] std::optional<Nanos> crash() const { return crash_; }
    /// `at`, or where it falls into a hang, the end of that.
    [[nodiscard]] Nanos after_hang(Nanos at) const;
    /// When a step is over that begins at `begin`, which is in no hang, and takes `length` of
    /// undisturbed work.
    [[nodiscard]] Nanos step_end(Nanos begin, Nanos length) const;
    [[nodiscard]] double drop_probability(Nanos at) const;
    [[nodiscard]] bool wrong_tokens(Nanos at) const;
    /// Of losing an event without a gap in the numbers.
    [[nodiscard]] double lose_probability(Nanos at) const;
    [[nodiscard]] bool wrong_template(Nanos at) const;
    [[nodiscard]] bool changed_hash_seed(Nanos at) const;
    /// Of not getting what was handed over to it.
    [[nodiscard]] double handoff_loss(Nanos at) const;
    /// When its events get right again, each time: the engine has started anew.
    [[nodiscard]] std::vector<Nanos> hash_seed_repaired() const;
    /// When its predictions begin to be wrong without anybody being told; none: never.
    [[nodiscard]] std::optional<Nanos> first_lie() const;

  private:
    [[nodiscard]] const Fault* active(Fault::Kind kind, Nanos at) const;

    std::vector<Fault> windows_;  ///< all but crashes, by their beginning
    std::optional<Nanos> crash_;
};

}  // namespace stator::engine::mock
