#include "stator/events/demand_payload.h"

#include <array>
#include <cmath>
#include <utility>

#include "stator/codec/msgpack.h"

namespace stator::events {
namespace {

using codec::MsgpackReader;
using codec::MsgpackWriter;
using protocol::DemandTotals;
using protocol::DurationTotals;

// One table serves writing and reading.
constexpr std::array<std::pair<std::string_view, std::uint64_t DemandTotals::*>, 8> kNumbers{{
    {"offered", &DemandTotals::offered},
    {"refused", &DemandTotals::refused},
    {"prompt_tokens", &DemandTotals::prompt_tokens},
    {"media_items", &DemandTotals::media_items},
    {"started_prompt_tokens", &DemandTotals::started_prompt_tokens},
    {"cached_tokens", &DemandTotals::cached_tokens},
    {"finished", &DemandTotals::finished},
    {"output_tokens", &DemandTotals::output_tokens},
}};
constexpr std::array<std::pair<std::string_view, DurationTotals DemandTotals::*>, 2> kDurations{{
    {"ttft", &DemandTotals::ttft},
    {"itl", &DemandTotals::itl},
}};

void write_durations(MsgpackWriter& w, const DurationTotals& d) {
    w.map(3).string("bounds").array(d.bounds.size());
    for (const double bound : d.bounds) w.real(bound);
    w.string("counts").array(d.counts.size());
    for (const std::uint64_t count : d.counts) w.number(count);
    w.string("sum_s").real(d.sum_s);
}

Result<void> read_bounds(MsgpackReader& r, DurationTotals& to) {
    const auto n = r.array();
    if (!n) return tl::unexpected(n.error());
    if (*n > kMaxDurationBounds) {
        return error(ErrorCode::kInvalidArgument, "{} bounds of durations; at most {} are read", *n,
                     kMaxDurationBounds);
    }
    for (std::size_t i = 0; i < *n; ++i) {
        const auto bound = r.real();
        if (!bound) return tl::unexpected(bound.error());
        if (!std::isfinite(*bound) || (!to.bounds.empty() && *bound <= to.bounds.back())) {
            return error(ErrorCode::kInvalidArgument,
                         "bounds of durations must be finite and ascend; number {} is {}", i,
                         *bound);
        }
        to.bounds.push_back(*bound);
    }
    return {};
}

Result<void> read_counts(MsgpackReader& r, DurationTotals& to) {
    const auto n = r.array();
    if (!n) return tl::unexpected(n.error());
    if (*n > kMaxDurationBounds + 1) {
        return error(ErrorCode::kInvalidArgument, "{} counts of durations; at most {} are read", *n,
                     kMaxDurationBounds + 1);
    }
    for (std::size_t i = 0; i < *n; ++i) {
        const auto count = r.number();
        if (!count) return tl::unexpected(count.error());
        to.counts.push_back(*count);
    }
    return {};
}

Result<DurationTotals> read_durations(MsgpackReader& r) {
    DurationTotals out;
    const auto pairs = r.map();
    if (!pairs) return tl::unexpected(pairs.error());
    for (std::size_t i = 0; i < *pairs; ++i) {
        const auto key = r.string();
        if (!key) return tl::unexpected(key.error());
        Result<void> ok;
        if (*key == "bounds") {
            out.bounds.clear();
            ok = read_bounds(r, out);
        } else if (*key == "counts") {
            out.counts.clear();
            ok = read_counts(r, out);
        } else if (*key == "sum_s") {
            const auto sum = r.real();
            if (!sum) return tl::unexpected(sum.error());
            if (std::isfinite(*sum) && *sum >= 0) out.sum_s = *sum;
        } else {
            ok = r.skip();
        }
        if (!ok) return tl::unexpected(ok.error());
    }
    const bool none = out.bounds.empty() && out.counts.empty();
    if (!none && out.counts.size() != out.bounds.size() + 1) {
        return error(ErrorCode::kInvalidArgument,
                     "{} counts for {} bounds of durations; there must be one more",
                     out.counts.size(), out.bounds.size());
    }
    return out;
}

Result<DemandTotals> read_model(MsgpackReader& r) {
    DemandTotals out;
    const auto pairs = r.map();
    if (!pairs) return tl::unexpected(pairs.error());
    for (std::size_t i = 0; i < *pairs; ++i) {
        const auto key = r.string();
        if (!key) return tl::unexpected(key.error());
        bool known = false;
        if (*key == "model") {
            const auto name = r.string();
            if (!name) return tl::unexpected(name.error());
            out.model = *name;
            known = true;
        }
        for (const auto& [wanted, member] : kNumbers) {
            if (wanted != *key) continue;
            const auto n = r.number();
            if (!n) return tl::unexpected(n.error());
            out.*member = *n;
            known = true;
        }
        for (const auto& [wanted, member] : kDurations) {
            if (wanted != *key) continue;
            auto d = read_durations(r);
            if (!d) return tl::unexpected(d.error());
            out.*member = std::move(*d);
            known = true;
        }
        if (known) continue;
        if (auto ok = r.skip(); !ok) return tl::unexpected(ok.error());
    }
    return out;
}

}  // namespace

std::string encode_demand(const std::vector<DemandTotals>& models) {
    std::string out;
    MsgpackWriter w(out);
    w.map(1).string("models").array(models.size());
    for (const DemandTotals& m : models) {
        w.map(1 + kNumbers.size() + kDurations.size()).string("model").string(m.model);
        for (const auto& [key, member] : kNumbers) w.string(key).number(m.*member);
        for (const auto& [key, member] : kDurations) {
            w.string(key);
            write_durations(w, m.*member);
        }
    }
    return out;
}

Result<std::vector<DemandTotals>> decode_demand(std::string_view payload) {
    MsgpackReader r(payload);
    std::vector<DemandTotals> out;
    const auto pairs = r.map();
    if (!pairs) return tl::unexpected(pairs.error());
    for (std::size_t i = 0; i < *pairs; ++i) {
        const auto key = r.string();
        if (!key) return tl::unexpected(key.error());
        if (*key != "models") {
            if (auto ok = r.skip(); !ok) return tl::unexpected(ok.error());
            continue;
        }
        const auto n = r.array();
        if (!n) return tl::unexpected(n.error());
        if (*n > kMaxDemandModels) {
            return error(ErrorCode::kInvalidArgument, "demand of {} models; at most {} are read",
                         *n, kMaxDemandModels);
        }
        out.clear();
        for (std::size_t k = 0; k < *n; ++k) {
            auto model = read_model(r);
            if (!model) return tl::unexpected(model.error());
            out.push_back(std::move(*model));
        }
    }
    if (!r.done()) {
        return error(ErrorCode::kInvalidArgument, "bytes follow the map of a payload, at {}",
                     r.position());
    }
    return out;
}

}  // namespace stator::events
