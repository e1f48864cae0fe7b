#include "stator/frontend/health.h"

#include <algorithm>
#include <cmath>
#include <map>

#include "stator/base/version.h"
#include "stator/codec/json_writer.h"

namespace stator::frontend {
namespace {

/// How many models there are, and how many of them have a healthy pool.
struct Answered {
    std::size_t models = 0;
    std::size_t healthy = 0;
};

Answered count_answered(const ModelDirectory& models) {
    std::map<std::string_view, bool> healthy;
    for (const auto& e : models.entries()) healthy[e->model.id] |= e->model.engine->healthy();
    Answered out;
    out.models = healthy.size();
    for (const auto& [id, well] : healthy) out.healthy += well ? 1 : 0;
    return out;
}

std::string_view status_word(Readiness readiness, const Answered& answered, bool concerns) {
    switch (readiness) {
        case Readiness::kStarting:
            return "starting";
        case Readiness::kReady:
            if (answered.models == 0) return "no_workers";
            if (answered.healthy == 0) return "unhealthy";
            return answered.healthy < answered.models || concerns ? "degraded" : "ready";
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
                           const std::function<void(codec::JsonWriter&)>& append_fleet,
                           const std::vector<std::string>& concerns, bool relay_healthy) {
    Answered answered = count_answered(models);
    if (relay_healthy) {
        ++answered.models;
        ++answered.healthy;
    }
    HealthReport report;
    // One model without workers must not take the others' door away.
    report.status = readiness == Readiness::kReady && answered.healthy > 0 ? 200 : 503;
    codec::JsonWriter w(report.body);
    w.begin_object().key("status").string(status_word(readiness, answered, !concerns.empty()));
    w.key("version").string(version()).key("commit").string(commit());
    w.key("uptime_s").number(std::round(uptime_seconds * 1000) / 1000);
    w.key("models").begin_array();
    for (const auto& entry : models.entries()) append_model(w, *entry);
    w.end_array();
    if (!concerns.empty()) {
        w.key("degraded").begin_array();
        for (const std::string& concern : concerns) w.string(concern);
        w.end_array();
    }
    if (append_fleet) append_fleet(w.key("fleet"));
    w.key("load").begin_object().key("inflight").number(inflight).end_object().end_object();
    return report;
}

}  // namespace stator::frontend
