#include "stator/events/payloads.h"

#include <array>
#include <limits>
#include <utility>

#include "stator/codec/msgpack.h"

namespace stator::events {
namespace {

using codec::MsgpackReader;
using codec::MsgpackWriter;
using protocol::ForwardPassMetrics;
using protocol::LoadReport;

constexpr std::array kStates{LifecycleState::kLoading, LifecycleState::kReady,
                             LifecycleState::kDraining, LifecycleState::kStopped};

// One table per kind of number serves writing and reading.
constexpr std::array<std::pair<std::string_view, std::uint32_t LoadReport::*>, 5> kLoad32{{
    {"running", &LoadReport::running},
    {"waiting", &LoadReport::waiting},
    {"running_limit", &LoadReport::running_limit},
    {"waiting_limit", &LoadReport::waiting_limit},
    {"unclaimed_handoffs", &LoadReport::unclaimed_handoffs},
}};
constexpr std::array<std::pair<std::string_view, std::uint64_t LoadReport::*>, 6> kLoad64{{
    {"waiting_tokens", &LoadReport::waiting_tokens},
    {"kv_used_tokens", &LoadReport::kv_used_tokens},
    {"kv_cached_tokens", &LoadReport::kv_cached_tokens},
    {"kv_total_tokens", &LoadReport::kv_total_tokens},
    {"unclaimed_bytes", &LoadReport::unclaimed_bytes},
    {"unclaimed_limit", &LoadReport::unclaimed_limit},
}};
constexpr std::array<std::pair<std::string_view, std::uint64_t ForwardPassMetrics::*>, 9> kForward{{
    {"steps", &ForwardPassMetrics::steps},
    {"prefill_tokens", &ForwardPassMetrics::prefill_tokens},
    {"decode_tokens", &ForwardPassMetrics::decode_tokens},
    {"cached_tokens", &ForwardPassMetrics::cached_tokens},
    {"preemptions", &ForwardPassMetrics::preemptions},
    {"guided_tokens", &ForwardPassMetrics::guided_tokens},
    {"exported_tokens", &ForwardPassMetrics::exported_tokens},
    {"imported_tokens", &ForwardPassMetrics::imported_tokens},
    {"refused_imports", &ForwardPassMetrics::refused_imports},
}};
constexpr std::array<std::pair<std::string_view, double ForwardPassMetrics::*>, 5> kForwardReal{{
    {"model_s", &ForwardPassMetrics::model_seconds},
    {"model_cpu_s", &ForwardPassMetrics::model_cpu_seconds},
    {"engine_cpu_s", &ForwardPassMetrics::engine_cpu_seconds},
    {"guide_s", &ForwardPassMetrics::guide_seconds},
    {"handoff_s", &ForwardPassMetrics::handoff_seconds},
}};
// A field that a record gains must gain a key here: then this number changes.
static_assert(sizeof(LoadReport) == kLoad32.size() * 4 + kLoad64.size() * 8 + 4 /* padding */);
static_assert(sizeof(ForwardPassMetrics) == (kForward.size() + kForwardReal.size()) * 8);

/// Some publishers write the two records as maps of their own, "load" and "forward_pass", with
/// these names for the seconds.
constexpr std::array<std::pair<std::string_view, double ForwardPassMetrics::*>, 3> kLongReal{{
    {"model_seconds", &ForwardPassMetrics::model_seconds},
    {"model_cpu_seconds", &ForwardPassMetrics::model_cpu_seconds},
    {"engine_cpu_seconds", &ForwardPassMetrics::engine_cpu_seconds},
}};

template <typename Table, typename Record>
void write_numbers(MsgpackWriter& w, const Table& table, const Record& record) {
    for (const auto& [key, member] : table) w.string(key).number(record.*member);
}

/// Whether the key is of this table; then its value is read.
template <typename Table, typename Record>
Result<bool> read_number(MsgpackReader& r, std::string_view wanted, const Table& table,
                         Record& record) {
    for (const auto& [key, member] : table) {
        if (key != wanted) continue;
        using Number = std::remove_reference_t<decltype(record.*member)>;
        const auto n = r.number();
        if (!n) return tl::unexpected(n.error());
        if (*n > std::numeric_limits<Number>::max()) {
            return error(ErrorCode::kInvalidArgument, "{} is {}, more than a load report holds",
                         key, *n);
        }
        record.*member = static_cast<Number>(*n);
        return true;
    }
    return false;
}

template <typename Table>
Result<bool> read_real(MsgpackReader& r, std::string_view wanted, const Table& table,
                       ForwardPassMetrics& record) {
    for (const auto& [key, member] : table) {
        if (key != wanted) continue;
        const auto v = r.real();
        if (!v) return tl::unexpected(v.error());
        record.*member = *v;
        return true;
    }
    return false;
}

/// The pairs of a map; those whose key `read_field` does not know are passed over.
template <typename Record, typename ReadField>
Result<void> read_pairs(MsgpackReader& r, Record& to, ReadField read_field) {
    const auto pairs = r.map();
    if (!pairs) return tl::unexpected(pairs.error());
    for (std::size_t i = 0; i < *pairs; ++i) {
        const auto key = r.string();
        if (!key) return tl::unexpected(key.error());
        const Result<bool> known = read_field(r, *key, to);
        if (!known) return tl::unexpected(known.error());
        if (*known) continue;
        if (auto ok = r.skip(); !ok) return ok;
    }
    return {};
}

Result<bool> read_load_number(MsgpackReader& r, std::string_view key, LoadEvent& to) {
    auto done = read_number(r, key, kLoad32, to.load);
    if (done && !*done) done = read_number(r, key, kLoad64, to.load);
    if (done && !*done) done = read_number(r, key, kForward, to.forward);
    if (done && !*done) done = read_real(r, key, kForwardReal, to.forward);
    if (done && !*done) done = read_real(r, key, kLongReal, to.forward);
    return done;
}

Result<bool> read_load_field(MsgpackReader& r, std::string_view key, LoadEvent& to) {
    if (key != "load" && key != "forward_pass") return read_load_number(r, key, to);
    if (auto ok = read_pairs(r, to, read_load_number); !ok) return tl::unexpected(ok.error());
    return true;
}

Result<bool> read_lifecycle_field(MsgpackReader& r, std::string_view key, LifecycleEvent& to) {
    if (key == "at") {
        const auto at = r.integer();
        if (!at) return tl::unexpected(at.error());
        to.unix_s = *at;
        return true;
    }
    if (key != "state" && key != "worker" && key != "name" && key != "reason") return false;
    const auto text = r.string();
    if (!text) return tl::unexpected(text.error());
    if (key == "worker" || key == "name") to.worker = *text;
    if (key == "reason") to.reason = *text;
    if (key == "state") {
        for (const LifecycleState s : kStates) {
            if (to_string(s) == *text) to.state = s;
        }
        if (*text == "stopping") to.state = LifecycleState::kStopped;
    }
    return true;
}

/// A map whose fields `read_field` takes; those it does not know are passed over.
template <typename Record, typename ReadField>
Result<Record> read_map(std::string_view payload, ReadField read_field) {
    MsgpackReader r(payload);
    Record out;
    if (auto ok = read_pairs(r, out, read_field); !ok) return tl::unexpected(ok.error());
    if (!r.done()) {
        return error(ErrorCode::kInvalidArgument, "bytes follow the map of a payload, at {}",
                     r.position());
    }
    return out;
}

}  // namespace

std::string encode_load(const LoadEvent& event) {
    std::string out;
    MsgpackWriter w(out);
    w.map(kLoad32.size() + kLoad64.size() + kForward.size() + kForwardReal.size());
    write_numbers(w, kLoad32, event.load);
    write_numbers(w, kLoad64, event.load);
    write_numbers(w, kForward, event.forward);
    for (const auto& [key, member] : kForwardReal) w.string(key).real(event.forward.*member);
    return out;
}

Result<LoadEvent> decode_load(std::string_view payload) {
    return read_map<LoadEvent>(payload, read_load_field);
}

std::string_view to_string(LifecycleState state) {
    switch (state) {
        case LifecycleState::kUnknown:
            return "unknown";
        case LifecycleState::kLoading:
            return "loading";
        case LifecycleState::kReady:
            return "ready";
        case LifecycleState::kDraining:
            return "draining";
        case LifecycleState::kStopped:
            return "stopped";
    }
    return "unknown";
}

std::string encode_lifecycle(const LifecycleEvent& event) {
    std::string out;
    MsgpackWriter(out)
        .map(4)
        .string("state")
        .string(to_string(event.state))
        .string("worker")
        .string(event.worker)
        .string("reason")
        .string(event.reason)
        .string("at")
        .integer(event.unix_s);
    return out;
}

Result<LifecycleEvent> decode_lifecycle(std::string_view payload) {
    return read_map<LifecycleEvent>(payload, read_lifecycle_field);
}

}  // namespace stator::events
