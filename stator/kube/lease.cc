#include "stator/kube/lease.h"

#include <fmt/format.h>

#include <ctime>

#include "stator/codec/json.h"
#include "stator/codec/json_writer.h"

namespace stator::kube {
namespace {

constexpr std::size_t kMaxText = 1024;

std::string text_of(codec::JsonView v) {
    return std::string(v.as_string().value_or("").substr(0, kMaxText));
}

}  // namespace

Result<Lease> parse_lease(std::string_view json) {
    codec::JsonDocument document;
    const auto view = document.parse(json);
    if (!view) return error(ErrorCode::kDataLoss, "the Lease is no JSON: {}", view.error().message);
    Lease lease;
    lease.version = text_of(view->find("metadata").find("resourceVersion"));
    if (lease.version.empty()) {
        return error(ErrorCode::kDataLoss, "the Lease has no resourceVersion");
    }
    const codec::JsonView spec = view->find("spec");
    lease.holder = text_of(spec.find("holderIdentity"));
    lease.duration_seconds = spec.find("leaseDurationSeconds").as_int().value_or(0);
    lease.acquired = text_of(spec.find("acquireTime"));
    lease.renewed = text_of(spec.find("renewTime"));
    lease.transitions = spec.find("leaseTransitions").as_int().value_or(0);
    return lease;
}

std::string format_lease(const Lease& lease, std::string_view in_namespace, std::string_view name) {
    std::string out;
    codec::JsonWriter w(out);
    w.begin_object().key("apiVersion").string("coordination.k8s.io/v1").key("kind").string("Lease");
    w.key("metadata").begin_object();
    w.key("namespace").string(in_namespace).key("name").string(name);
    if (!lease.version.empty()) w.key("resourceVersion").string(lease.version);
    w.end_object().key("spec").begin_object();
    w.key("holderIdentity").string(lease.holder);
    w.key("leaseDurationSeconds").number(lease.duration_seconds);
    w.key("acquireTime").string(lease.acquired).key("renewTime").string(lease.renewed);
    w.key("leaseTransitions").number(lease.transitions);
    w.end_object().end_object();
    return out;
}

std::string micro_time(std::int64_t unix_seconds) {
    const std::time_t t = unix_seconds;
    std::tm tm{};
    ::gmtime_r(&t, &tm);
    return fmt::format("{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.000000Z", tm.tm_year + 1900,
                       tm.tm_mon + 1, tm.tm_mday, tm.tm_hour, tm.tm_min, tm.tm_sec);
}

}  // namespace stator::kube
