#include "stator/frontend/health.h"

#include <algorithm>
#include <cmath>
#include <map>

#include "stator/base/version.h"
#include "stator/codec/json_writer.h"

namespace stator::frontend {
namespace {

/// Every name can be answered: one of its pools is healthy.
bool all_answered(const ModelDirectory& models) {
    std::map<std::string_view, bool> healthy;
    for (const auto& e : models.entries()) healthy[e->model.id] |= e->model.engine->healthy();
    return std::ranges::all_of(healthy, [](const auto& entry) { return entry.second; });
}

std::string_view status_word(Readiness readiness, bool any, bool healthy) {
    switch (readiness) {
        case Readiness::kStarting:
            return "starting";
        case Readiness::kReady:
            return !any ? "no_workers" : healthy ? "ready" : "unhealthy";
        case Readiness::kDraining:
            return "draining";
    }
    return "unhealthy";
}

void append_model(codec::JsonWriter& w, const ModelEntry& entry) {
    const auto& info = entry.model.engine->info();
    const auto load = entry.model.engine->load();
    w.begin_object().key("id").string(entry.model.id);
    if (!entry.model.pool.empty()) {
        w.key("pool").string(entry.model.pool).key("share").number(entry.model.share);
    }
    w.key("engine").string(info.kind).key("device").string(info.device);
    w.key("healthy").boolean(entry.model.engine->healthy());
    w.key("context_length").number(info.context_tokens);
    w.key("load").begin_object();
    w.key("running").number(load.running).key("waiting").number(load.waiting);
    w.key("running_limit").number(load.running_limit);
    w.key("waiting_limit").number(load.waiting_limit);
    w.key("kv_used_tokens").number(load.kv_used_tokens);
    w.key("kv_cached_tokens").number(load.kv_cached_tokens);
    w.key("kv_total_tokens").number(load.kv_total_tokens);
    w.end_object().end_object();
}

}  // namespace

HealthReport health_report(Readiness readiness, const ModelDirectory& models, double uptime_seconds,
                           std::int64_t inflight,
                           const std::function<void(codec::JsonWriter&)>& append_fleet) {
    const bool any = !models.entries().empty();
    const bool healthy = any && all_answered(models);
    HealthReport report;
    report.status = readiness == Readiness::kReady && healthy ? 200 : 503;
    codec::JsonWriter w(report.body);
    w.begin_object().key("status").string(status_word(readiness, any, healthy));
    w.key("version").string(version()).key("commit").string(commit());
    w.key("uptime_s").number(std::round(uptime_seconds * 1000) / 1000);
    w.key("models").begin_array();
    for (const auto& entry : models.entries()) append_model(w, *entry);
    w.end_array();
    if (append_fleet) append_fleet(w.key("fleet"));
    w.key("load").begin_object().key("inflight").number(inflight).end_object().end_object();
    return report;
}

}  // namespace stator::frontend
