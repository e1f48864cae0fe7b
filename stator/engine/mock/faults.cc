#include "stator/engine/mock/faults.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <string>
#include <utility>

namespace stator::engine::mock {
namespace {

using Kind = Fault::Kind;
using Nanos = std::chrono::nanoseconds;

constexpr std::array<std::pair<std::string_view, Kind>, 9> kKinds{{
    {"crash", Kind::kCrash},
    {"hang", Kind::kHang},
    {"slow", Kind::kSlow},
    {"drop-events", Kind::kDropEvents},
    {"wrong-tokens", Kind::kWrongTokens},
    {"lose-events", Kind::kLoseEvents},
    {"wrong-template", Kind::kWrongTemplate},
    {"changed-hash-seed", Kind::kChangedHashSeed},
    {"lose-handoffs", Kind::kLoseHandoffs},
}};
constexpr std::array<std::pair<std::string_view, double>, 4> kUnits{
    {{"ms", 1e6}, {"s", 1e9}, {"m", 60e9}, {"h", 3600e9}}};
constexpr double kLongest = 30 * 24 * 3600e9;  // ns
constexpr double kMaxFactor = 1e6;

std::string_view trimmed(std::string_view s) {
    const auto first = s.find_first_not_of(" \t\n");
    if (first == std::string_view::npos) return {};
    return s.substr(first, s.find_last_not_of(" \t\n") - first + 1);
}

/// A finite decimal of at least 0 that is all of `text`.
std::optional<double> number(std::string_view text) {
    double v = 0;
    const auto [end, ec] = std::from_chars(text.data(), text.data() + text.size(), v);
    if (ec != std::errc{} || end != text.data() + text.size()) return std::nullopt;
    if (!std::isfinite(v) || std::signbit(v)) return std::nullopt;
    return v;
}

std::optional<Nanos> duration(std::string_view text) {
    const auto unit_at = text.find_first_not_of("0123456789.");
    if (unit_at == std::string_view::npos) return std::nullopt;
    const auto unit = std::ranges::find(kUnits, text.substr(unit_at),
                                        &std::pair<std::string_view, double>::first);
    const auto v = number(text.substr(0, unit_at));
    if (unit == kUnits.end() || !v || *v * unit->second > kLongest) return std::nullopt;
    return Nanos(std::llround(*v * unit->second));
}

template <typename... Args>
tl::unexpected<Error> bad(std::string_view fault, ErrorFormat why, Args&&... args) {
    auto e = error(ErrorCode::kInvalidArgument, why, std::forward<Args>(args)...);
    e.value().message = fmt::format("the fault \"{}\" {}", fault, e.value().message);
    return e;
}

/// What follows the last colon: "x4", "0.5".
Result<void> read_amount(std::string_view whole, std::string_view text, Fault& fault) {
    switch (fault.kind) {
        case Kind::kSlow: {
            const auto v = text.starts_with('x') ? number(text.substr(1)) : std::nullopt;
            if (!v || *v <= 0 || *v > kMaxFactor) {
                return bad(whole, "needs how many times as slow, as in slow@20s+10s:x4");
            }
            fault.factor = *v;
            return {};
        }
        case Kind::kDropEvents:
        case Kind::kLoseEvents:
        case Kind::kLoseHandoffs: {
            const auto v = number(text);
            if (!v || *v > 1) {
                return bad(whole, "needs a probability from 0 to 1, as in drop-events@5s+2s:0.5");
            }
            fault.probability = *v;
            return {};
        }
        case Kind::kCrash:
        case Kind::kHang:
        case Kind::kWrongTokens:
        case Kind::kWrongTemplate:
        case Kind::kChangedHashSeed:
            break;
    }
    return bad(whole, "takes nothing after a colon, not \"{}\"", text);
}

Result<void> read_times(std::string_view whole, std::string_view text, Fault& fault) {
    const auto plus = text.find('+');
    const auto at = duration(text.substr(0, plus));
    if (!at) {
        return bad(whole, "has no time that can be read: \"{}\"; 500ms, 30s, 2m and 1h can",
                   text.substr(0, plus));
    }
    fault.at = *at;
    const bool crash = fault.kind == Kind::kCrash;
    if (plus == std::string_view::npos) {
        if (crash) return {};
        return bad(whole, "needs a length, as in hang@10s+5s");
    }
    if (crash) return bad(whole, "has a length, but what has crashed stays so");
    const auto length = duration(text.substr(plus + 1));
    if (!length || length->count() == 0) {
        return bad(whole, "has no length that can be read: \"{}\"", text.substr(plus + 1));
    }
    fault.length = *length;
    return {};
}

Result<Fault> parse_one(std::string_view whole) {
    Fault fault;
    std::string_view text = whole;
    if (constexpr std::string_view kWorker = "worker="; text.starts_with(kWorker)) {
        const auto colon = text.find(':');
        const std::string_view digits =
            text.substr(0, colon).substr(std::min(kWorker.size(), text.size()));
        std::uint32_t n = 0;
        const auto [end, ec] = std::from_chars(digits.data(), digits.data() + digits.size(), n);
        if (colon == std::string_view::npos || ec != std::errc{} ||
            end != digits.data() + digits.size()) {
            return bad(whole, "needs a worker's number and a colon, as in worker=3:crash@30s");
        }
        fault.worker = n;
        text.remove_prefix(colon + 1);
    }
    const auto sign = text.find('@');
    const auto kind =
        std::ranges::find(kKinds, text.substr(0, sign), &std::pair<std::string_view, Kind>::first);
    if (kind == kKinds.end() || sign == std::string_view::npos) {
        return bad(whole,
                   "is none of crash@TIME, hang@TIME+LENGTH, slow@TIME+LENGTH:xFACTOR, "
                   "drop-events@TIME+LENGTH[:PROBABILITY], wrong-tokens@TIME+LENGTH, "
                   "lose-events@TIME+LENGTH[:PROBABILITY], wrong-template@TIME+LENGTH, "
                   "changed-hash-seed@TIME+LENGTH, lose-handoffs@TIME+LENGTH[:PROBABILITY]");
    }
    fault.kind = kind->second;
    text.remove_prefix(sign + 1);
    const auto colon = text.find(':');
    if (auto ok = read_times(whole, text.substr(0, colon), fault); !ok) {
        return tl::unexpected(ok.error());
    }
    if (colon != std::string_view::npos) {
        if (auto ok = read_amount(whole, text.substr(colon + 1), fault); !ok) {
            return tl::unexpected(ok.error());
        }
    } else if (fault.kind == Kind::kSlow) {
        return bad(whole, "needs how many times as slow, as in slow@20s+10s:x4");
    }
    return fault;
}

}  // namespace

Result<std::vector<Fault>> parse_faults(std::string_view text) {
    std::vector<Fault> out;
    if (trimmed(text).empty()) return out;
    for (std::size_t begin = 0; begin <= text.size();) {
        const std::size_t comma = std::min(text.find(',', begin), text.size());
        auto fault = parse_one(trimmed(text.substr(begin, comma - begin)));
        if (!fault) return tl::unexpected(fault.error());
        out.push_back(*fault);
        begin = comma + 1;
    }
    return out;
}

FaultPlan::FaultPlan(std::span<const Fault> all, std::uint32_t worker) {
    for (const Fault& fault : all) {
        if (fault.worker && *fault.worker != worker) continue;
        if (fault.kind != Kind::kCrash) {
            windows_.push_back(fault);
        } else if (!crash_ || fault.at < *crash_) {
            crash_ = fault.at;
        }
    }
    std::ranges::sort(windows_, {}, &Fault::at);
}

const Fault* FaultPlan::active(Kind kind, Nanos at) const {
    for (const Fault& f : windows_) {
        if (f.at > at) break;
        if (f.kind == kind && at < f.at + f.length) return &f;
    }
    return nullptr;
}

FaultPlan::Nanos FaultPlan::after_hang(Nanos at) const {
    while (const Fault* hang = active(Kind::kHang, at)) at = hang->at + hang->length;
    return at;
}

FaultPlan::Nanos FaultPlan::step_end(Nanos begin, Nanos length) const {
    if (windows_.empty()) return begin + length;
    double work = static_cast<double>(length.count());
    if (const Fault* slow = active(Kind::kSlow, begin)) work *= slow->factor;
    Nanos end = begin + Nanos(std::llround(work));
    // A hang that begins within the step holds it up for all of its length.
    Nanos hung_until = begin;
    for (const Fault& f : windows_) {
        if (f.kind != Kind::kHang || f.at < begin) continue;
        if (f.at > end) break;
        const Nanos from = std::max(f.at, hung_until);
        const Nanos until = f.at + f.length;
        if (until <= from) continue;
        end += until - from;
        hung_until = until;
    }
    return end;
}

double FaultPlan::drop_probability(Nanos at) const {
    const Fault* drop = active(Kind::kDropEvents, at);
    return drop != nullptr ? drop->probability : 0.0;
}

bool FaultPlan::wrong_tokens(Nanos at) const { return active(Kind::kWrongTokens, at) != nullptr; }

double FaultPlan::lose_probability(Nanos at) const {
    const Fault* lose = active(Kind::kLoseEvents, at);
    return lose != nullptr ? lose->probability : 0.0;
}

bool FaultPlan::wrong_template(Nanos at) const {
    return active(Kind::kWrongTemplate, at) != nullptr;
}

bool FaultPlan::changed_hash_seed(Nanos at) const {
    return active(Kind::kChangedHashSeed, at) != nullptr;
}

double FaultPlan::handoff_loss(Nanos at) const {
    const Fault* lose = active(Kind::kLoseHandoffs, at);
    return lose != nullptr ? lose->probability : 0.0;
}

std::vector<Nanos> FaultPlan::hash_seed_repaired() const {
    std::vector<Nanos> out;
    for (const Fault& f : windows_) {
        if (f.kind == Kind::kChangedHashSeed) out.push_back(f.at + f.length);
    }
    return out;
}

std::optional<Nanos> FaultPlan::first_lie() const {
    for (const Fault& f : windows_) {
        if (f.kind == Kind::kLoseEvents || f.kind == Kind::kWrongTemplate ||
            f.kind == Kind::kChangedHashSeed) {
            return f.at;
        }
    }
    return std::nullopt;
}

}  // namespace stator::engine::mock
