#include "stator/frontend/health.h"

#include <algorithm>
#include <cmath>

#include "stator/base/version.h"
#include "stator/codec/json_writer.h"

namespace stator::frontend {
namespace {

std::string_view status_word(Readiness readiness, bool healthy) {
    switch (readiness) {
        case Readiness::kStarting:
            return "starting";
        case Readiness::kReady:
            return healthy ? "ready" : "unhealthy";
        case Readiness::kDraining:
            return "draining";
    }
    return "unhealthy";
}

void append_model(codec::JsonWriter& w, const ModelEntry& entry) {
    const auto& info = entry.model.engine->info();
    const auto load = entry.model.engine->load();
    w.begin_object().key("id").string(entry.model.id);
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
                           std::int64_t inflight) {
    const bool healthy = std::ranges::all_of(
        models.entries(), [](const ModelEntry& e) { return e.model.engine->healthy(); });
    HealthReport report;
    report.status = readiness == Readiness::kReady && healthy ? 200 : 503;
    codec::JsonWriter w(report.body);
    w.begin_object().key("status").string(status_word(readiness, healthy));
    w.key("version").string(version()).key("commit").string(commit());
    w.key("uptime_s").number(std::round(uptime_seconds * 1000) / 1000);
    w.key("models").begin_array();
    for (const ModelEntry& entry : models.entries()) append_model(w, entry);
    w.end_array();
    w.key("load").begin_object().key("inflight").number(inflight).end_object().end_object();
    return report;
}

}  // namespace stator::frontend
