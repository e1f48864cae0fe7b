#include "stator/cli/transfer_figures.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>

#include "stator/base/clock.h"
#include "stator/base/version.h"
#include "stator/codec/json_writer.h"
#include "stator/report/figure.h"

namespace stator::cli {
namespace {

constexpr double kGiga = 1e9;
constexpr double kMs = 1e3;

/// The smallest value that a share `q` of all does not exceed.
double quantile(std::vector<double> values, double q) {
    std::ranges::sort(values);
    const double rank = std::ceil(q * static_cast<double>(values.size()));
    return values[static_cast<std::size_t>(std::max(rank, 1.0)) - 1];
}

}  // namespace

TransferFigures figures_of(const std::string& method, std::uint64_t bytes,
                           const HandoffSample& first, const std::vector<HandoffSample>& samples,
                           double producer_cpu_s) {
    const auto quantile_of = [&](double HandoffSample::* member, double q) {
        std::vector<double> values;
        for (const HandoffSample& sample : samples) values.push_back(sample.*member);
        return quantile(std::move(values), q);
    };
    constexpr double kMiddle = 0.5;
    constexpr double kLate = 0.99;
    const auto count = static_cast<double>(samples.size());
    const auto size = static_cast<double>(bytes);
    TransferFigures out;
    out.method = method;
    out.bytes = bytes;
    out.handoffs = samples.size();
    const double claim = quantile_of(&HandoffSample::seconds_to_claim, kMiddle);
    out.claim_ms = claim * kMs;
    // Shared memory is mapped: a rate of its claim would say nothing.
    if (method != "shm") out.gb_per_second = size / claim / kGiga;
    out.gb_per_second_read = size / quantile_of(&HandoffSample::seconds_to_read, kMiddle) / kGiga;
    out.arrive_p50_ms = quantile_of(&HandoffSample::seconds_to_arrive, kMiddle) * kMs;
    out.arrive_p99_ms = quantile_of(&HandoffSample::seconds_to_arrive, kLate) * kMs;
    out.first_claim_ms = first.seconds_to_claim * kMs;
    for (const HandoffSample& sample : samples) out.cpu_consumer_s += sample.cpu_seconds / count;
    out.cpu_producer_s = producer_cpu_s / count;
    out.resident_consumer_bytes = own_cost().resident_bytes;
    out.resident_producer_bytes = samples.back().facts.resident_bytes;
    return out;
}

TransferFigures measure_memcpy(std::uint64_t bytes, std::uint32_t times) {
    constexpr double kMostSeconds = 1;
    const auto length = static_cast<std::size_t>(bytes);
    std::vector<std::byte> from(length, std::byte{1});
    std::vector<std::byte> to(length, std::byte{2});
    std::vector<double> seconds;
    double total = 0;
    const Clock& clock = Clock::real();
    for (std::uint32_t i = 0; i < times && total < kMostSeconds; ++i) {
        // Another byte each time, and looked at: the copy can't be left out.
        from[length / 2] = static_cast<std::byte>(i);
        const TimePoint start = clock.now();
        std::memcpy(to.data(), from.data(), length);
        seconds.push_back(to_seconds(clock.now() - start));
        if (to[length / 2] != static_cast<std::byte>(i)) break;
        total += seconds.back();
    }
    constexpr double kMiddle = 0.5;
    const double median = quantile(seconds, kMiddle);
    TransferFigures out;
    out.method = "memcpy";
    out.bytes = bytes;
    out.handoffs = seconds.size();
    out.gb_per_second = out.gb_per_second_read = static_cast<double>(bytes) / median / kGiga;
    out.claim_ms = median * kMs;
    return out;
}

std::string size_text(std::uint64_t bytes) {
    constexpr std::array<std::pair<int, std::string_view>, 3> kUnits{
        {{30, "GiB"}, {20, "MiB"}, {10, "KiB"}}};
    for (const auto& [shift, unit] : kUnits) {
        if (bytes != 0 && bytes % (1ULL << shift) == 0) {
            return fmt::format("{} {}", bytes >> shift, unit);
        }
    }
    return bytes == 1 ? "1 byte" : fmt::format("{} bytes", report::whole(bytes));
}

std::string to_table(const TransferResults& results) {
    std::string out = fmt::format("Handoffs from {}{}\n", results.other,
                                  results.complete ? "" : "; broken off, this was measured");
    std::uint64_t size = 0;
    const auto line = [&](const std::array<std::string, 7>& cells) {
        std::string text = fmt::format("  {:<8}{:>10}{:>10}{:>11}{:>11}{:>11}{:>14}", cells[0],
                                       cells[1], cells[2], cells[3], cells[4], cells[5], cells[6]);
        text.erase(text.find_last_not_of(' ') + 1);
        out += text + "\n";
    };
    for (const TransferFigures& row : results.rows) {
        if (row.bytes != size) {
            size = row.bytes;
            out += fmt::format("\n{}\n", size_text(size));
            line({"", "GB/s", "read", "p50", "p99", "first", "CPU ms/GB"});
        }
        if (row.method == "memcpy") {
            line({row.method, "", report::figure(row.gb_per_second_read), "", "", "", ""});
            continue;
        }
        const double cpu = (row.cpu_consumer_s + row.cpu_producer_s) * kMs * kGiga /
                           static_cast<double>(row.bytes);
        line({row.method, row.gb_per_second == 0 ? "mapped" : report::figure(row.gb_per_second),
              report::figure(row.gb_per_second_read), report::latency(row.arrive_p50_ms),
              report::latency(row.arrive_p99_ms), report::latency(row.first_claim_ms),
              report::figure(cpu)});
    }
    if (!results.off.empty()) out += "\n";
    for (const auto& [method, why] : results.off)
        out += fmt::format("{} is off: {}\n", method, why);
    return out;
}

std::string to_json(const TransferResults& results) {
    std::string out;
    codec::JsonWriter w(out);
    w.begin_object().key("version").string(version()).key("commit").string(commit());
    w.key("from").string(results.other).key("complete").boolean(results.complete);
    w.key("checksums").boolean(results.checksums).key("rows").begin_array();
    for (const TransferFigures& row : results.rows) {
        w.begin_object().key("method").string(row.method).key("bytes").number(row.bytes);
        w.key("handoffs").number(static_cast<std::uint64_t>(row.handoffs));
        w.key("gb_per_second");
        row.gb_per_second == 0 ? w.null() : w.number(row.gb_per_second);
        w.key("gb_per_second_read").number(row.gb_per_second_read);
        w.key("claim_p50_ms").number(row.claim_ms);
        if (row.method != "memcpy") {
            w.key("arrive_p50_ms").number(row.arrive_p50_ms);
            w.key("arrive_p99_ms").number(row.arrive_p99_ms);
            w.key("first_claim_ms").number(row.first_claim_ms);
            w.key("cpu_seconds_consumer").number(row.cpu_consumer_s);
            w.key("cpu_seconds_producer").number(row.cpu_producer_s);
            w.key("resident_bytes_consumer").number(row.resident_consumer_bytes);
            w.key("resident_bytes_producer").number(row.resident_producer_bytes);
        }
        w.end_object();
    }
    w.end_array().key("off").begin_object();
    for (const auto& [method, why] : results.off) w.key(method).string(why);
    w.end_object().end_object();
    return out + "\n";
}

}  // namespace stator::cli
