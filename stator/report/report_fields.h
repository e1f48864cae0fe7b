#pragma once

#include <concepts>
#include <type_traits>

#include "stator/report/report.h"

namespace stator::report {

template <typename T, typename Of>
concept Is = std::same_as<std::remove_const_t<T>, Of>;

/// The fields of a report's JSON, named once for writing and reading: `archive.field(name, value)`
/// for a value or an object, `.list(name, values, bound)` for an array of objects,
/// `.rows(name, values, bound)` for an array of arrays, which hold the values of `fields()` in
/// order and without names.
template <typename Archive, Is<Quantile> T>
void fields(Archive& a, T& v) {
    a.field("share", v.share);
    a.field("value", v.value);
}

template <typename Archive, Is<SeriesPoint> T>
void fields(Archive& a, T& v) {
    a.field("time", v.time);
    a.field("value", v.value);
}

template <typename Archive, Is<SamplePoint> T>
void fields(Archive& a, T& v) {
    a.field("start", v.start);
    a.field("input_tokens", v.input_tokens);
    a.field("cached_tokens", v.cached_tokens);
    a.field("output_tokens", v.output_tokens);
    a.field("ttft_ms", v.ttft_ms);
    a.field("e2e_ms", v.e2e_ms);
}

template <typename Archive, Is<Fact> T>
void fields(Archive& a, T& v) {
    a.field("key", v.key);
    a.field("value", v.value);
}

template <typename Archive, Is<Slo> T>
void fields(Archive& a, T& v) {
    a.field("ttft_ms", v.ttft_ms);
    a.field("itl_ms", v.itl_ms);
    a.field("itl_rule", v.itl_rule);
    a.field("e2e_ms", v.e2e_ms);
}

template <typename Archive, Is<OutcomeCount> T>
void fields(Archive& a, T& v) {
    a.field("outcome", v.outcome);
    a.field("count", v.count);
}

template <typename Archive, Is<ReasonCount> T>
void fields(Archive& a, T& v) {
    a.field("outcome", v.outcome);
    a.field("reason", v.reason);
    a.field("count", v.count);
}

template <typename Archive, Is<Summary> T>
void fields(Archive& a, T& v) {
    a.field("count", v.count);
    a.field("mean", v.mean);
    a.field("min", v.min);
    a.field("max", v.max);
    a.field("p50", v.p50);
    a.field("p90", v.p90);
    a.field("p95", v.p95);
    a.field("p99", v.p99);
    a.field("p999", v.p999);
    a.rows("quantiles", v.quantiles, Report::kMaxQuantiles);
}

template <typename Archive, Is<Interval> T>
void fields(Archive& a, T& v) {
    a.field("offered", v.offered);
    a.field("completed", v.completed);
    a.field("failed", v.failed);
    a.field("output_tokens", v.output_tokens);
    a.field("in_flight", v.in_flight);
    a.field("ttft_count", v.ttft_count);
    a.field("ttft_p50_ms", v.ttft_p50_ms);
    a.field("ttft_p99_ms", v.ttft_p99_ms);
}

template <typename Archive, Is<Timeline> T>
void fields(Archive& a, T& v) {
    a.field("interval_seconds", v.interval_seconds);
    a.list("intervals", v.intervals, Report::kMaxIntervals);
}

template <typename Archive, Is<Series> T>
void fields(Archive& a, T& v) {
    a.field("name", v.name);
    a.field("curve", v.curve);
    a.field("unit", v.unit);
    a.rows("points", v.points, Report::kMaxSeriesPoints);
}

template <typename Archive, Is<Remark> T>
void fields(Archive& a, T& v) {
    a.field("time", v.time);
    a.field("text", v.text);
}

template <typename Archive, Is<Spread> T>
void fields(Archive& a, T& v) {
    a.field("min", v.min);
    a.field("mean", v.mean);
    a.field("max", v.max);
}

template <typename Archive, Is<WorkerRow> T>
void fields(Archive& a, T& v) {
    a.field("worker", v.worker);
    a.field("requests", v.requests);
    a.field("failed", v.failed);
    a.field("input_tokens", v.input_tokens);
    a.field("cached_tokens", v.cached_tokens);
    a.field("output_tokens", v.output_tokens);
}

template <typename Archive, Is<WorkerSummary> T>
void fields(Archive& a, T& v) {
    a.field("workers", v.workers);
    a.field("requests", v.requests);
    a.field("output_tokens", v.output_tokens);
    a.field("cached_ratio", v.cached_ratio);
    a.list("rows", v.rows, Report::kMaxWorkerRows);
}

template <typename Archive, Is<Report> T>
void fields(Archive& a, T& v) {
    a.field("name", v.name);
    a.list("facts", v.facts, Report::kMaxFacts);
    a.field("partial", v.partial);
    a.field("seconds", v.seconds);
    a.field("slo", v.slo);
    a.field("requests", v.requests);
    a.list("outcomes", v.outcomes, Report::kMaxReasons);
    a.list("reasons", v.reasons, Report::kMaxReasons);
    a.field("offered_rate", v.offered_rate);
    a.field("achieved_rate", v.achieved_rate);
    a.field("goodput", v.goodput);
    a.field("good_share", v.good_share);
    a.field("output_rate", v.output_rate);
    a.field("total_rate", v.total_rate);
    a.field("mean_in_flight", v.mean_in_flight);
    a.field("input_tokens", v.input_tokens);
    a.field("cached_tokens", v.cached_tokens);
    a.field("output_tokens", v.output_tokens);
    a.field("lost_output_tokens", v.lost_output_tokens);
    a.field("cached_ratio", v.cached_ratio);
    a.field("ttft_ms", v.ttft);
    a.field("itl_ms", v.itl);
    a.field("tpot_ms", v.tpot);
    a.field("e2e_ms", v.e2e);
    a.field("lateness_ms", v.lateness);
    a.field("timeline", v.timeline);
    a.rows("samples", v.samples, Report::kMaxSamples);
    a.list("series", v.series, Report::kMaxSeries);
    a.list("remarks", v.remarks, Report::kMaxRemarks);
    a.field("workers", v.workers);
    a.texts("warnings", v.warnings, Report::kMaxWarnings);
}

}  // namespace stator::report
