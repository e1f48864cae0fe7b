#include "stator/cli/bench_results.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "stator/codec/json.h"
#include "stator/codec/json_writer.h"
#include "stator/config/value.h"
#include "stator/report/figure.h"
#include "stator/report/render.h"

namespace stator::cli {
namespace {

/// Without the newline at its end.
std::string one_line(std::string json) {
    while (json.ends_with('\n')) json.pop_back();
    return json;
}

void write_knee(codec::JsonWriter& w, const report::KneeResult& knee) {
    w.key("knee").begin_object().key("end").string(report::to_string(knee.end));
    w.key("met_rate");
    knee.met ? w.number(*knee.met) : w.null();
    w.key("unmet_rate");
    knee.unmet ? w.number(*knee.unmet) : w.null();
    w.key("runs").begin_array();
    for (const report::KneeRun& run : knee.runs) {
        w.begin_object().key("rate").number(run.rate).key("met").boolean(run.met).end_object();
    }
    w.end_array().end_object();
}

}  // namespace

std::string to_json(const BenchResults& results) {
    if (!results.knee && !results.comparison && results.reports.size() == 1) {
        return report::to_json(results.reports.front());
    }
    std::string out;
    codec::JsonWriter w(out);
    w.begin_object();
    if (results.knee) write_knee(w, *results.knee);
    if (results.comparison) w.key("comparison").raw(one_line(report::to_json(*results.comparison)));
    w.key("reports").begin_array();
    for (const report::Report& r : results.reports) w.raw(one_line(report::to_json(r)));
    w.end_array().end_object();
    return out + "\n";
}

Result<std::vector<report::Report>> read_results(std::string_view json, const std::string& path) {
    std::vector<report::Report> out;
    const auto bad = [&path](std::string_view why) {
        return error(ErrorCode::kInvalidArgument, "{} has no report of `stator bench`: {}",
                     config::path_in_quotes(path), why);
    };
    codec::JsonDocument document;
    while (!json.empty()) {
        const auto end = std::min(json.find('\n'), json.size());
        const std::string_view line = json.substr(0, end);
        json.remove_prefix(std::min(end + 1, json.size()));
        if (line.empty()) continue;
        const auto root = document.parse(line);
        if (!root) return bad(root.error().message);
        std::vector<std::string> texts;
        if (const auto list = root->find("reports"); list.type() == codec::JsonType::kArray) {
            list.each_element([&](std::size_t, codec::JsonView v) {
                v.write_to(texts.emplace_back());
                return true;
            });
        } else {
            texts.emplace_back(line);
        }
        for (const std::string& text : texts) {
            auto report = report::parse_report(text);
            if (!report) return bad(report.error().message);
            out.push_back(std::move(*report));
        }
    }
    if (out.empty()) return bad("the file is empty");
    return out;
}

std::string knee_line(const report::Report& report, double rate, bool met) {
    return fmt::format("{:>8} req/s: {} good, TTFT p99 {}, TPOT p99 {}: {}\n", report::figure(rate),
                       report::percent(report.good_share), report::latency(report.ttft.p99),
                       report::latency(report.tpot.p99), met ? "meets the SLO" : "misses it");
}

std::string knee_sentence(const report::KneeResult& knee) {
    const std::string runs = fmt::format(" ({} runs)\n", knee.runs.size());
    if (knee.met && knee.unmet) {
        return fmt::format("The highest rate that meets the SLO is {} req/s; {} misses it{}",
                           report::figure(*knee.met), report::figure(*knee.unmet), runs);
    }
    if (knee.met)
        return fmt::format("Even {} req/s meets the SLO{}", report::figure(*knee.met), runs);
    if (knee.unmet)
        return fmt::format("Not even {} req/s meets the SLO{}", report::figure(*knee.unmet), runs);
    return "Nothing was found: no run came to its end\n";
}

}  // namespace stator::cli
