#include "stator/kube/scale.h"

#include <fmt/format.h>

#include <algorithm>

#include "stator/codec/json.h"
#include "stator/kube/status.h"

namespace stator::kube {
namespace {

constexpr std::string_view kMergePatch = "application/merge-patch+json";

bool is_name(std::string_view text, bool dots) {
    return !text.empty() && text.size() <= 253 && text.front() != '.' &&
           std::ranges::all_of(text, [&](char c) {
               return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' ||
                      (dots && c == '.');
           });
}

std::string path_of(const ScaleTarget& t) {
    switch (t.kind) {
        case ScaleTarget::Kind::kDeployment:
            return fmt::format("/apis/apps/v1/namespaces/{}/deployments/{}/scale", t.in_namespace,
                               t.name);
        case ScaleTarget::Kind::kStatefulSet:
            return fmt::format("/apis/apps/v1/namespaces/{}/statefulsets/{}/scale", t.in_namespace,
                               t.name);
        case ScaleTarget::Kind::kLeaderWorkerSet:
            break;
    }
    return fmt::format("/apis/leaderworkerset.x-k8s.io/v1/namespaces/{}/leaderworkersets/{}/scale",
                       t.in_namespace, t.name);
}

ErrorCode code_of(int status) {
    switch (status) {
        case 400:
        case 422:
            return ErrorCode::kInvalidArgument;
        case 401:
            return ErrorCode::kUnauthenticated;
        case 403:
            return ErrorCode::kPermissionDenied;
        case 404:
            return ErrorCode::kNotFound;
        case 409:
            return ErrorCode::kAborted;
        case 429:
            return ErrorCode::kOverloaded;
        default:
            return ErrorCode::kUnavailable;
    }
}

}  // namespace

Result<ScaleTarget> parse_scale_target(std::string_view text, std::string_view own_namespace) {
    const auto bad = [&] {
        return error(ErrorCode::kInvalidArgument,
                     "'{}' is nothing to scale: [NAMESPACE/]deployment/NAME, statefulset/NAME or "
                     "leaderworkerset/NAME",
                     text.substr(0, 300));
    };
    ScaleTarget t;
    const auto last = text.rfind('/');
    if (last == std::string_view::npos) return bad();
    t.name = text.substr(last + 1);
    std::string_view kind = text.substr(0, last);
    t.in_namespace = own_namespace;
    if (const auto first = kind.find('/'); first != std::string_view::npos) {
        t.in_namespace = kind.substr(0, first);
        kind = kind.substr(first + 1);
    }
    if (kind == "deployment") {
        t.kind = ScaleTarget::Kind::kDeployment;
    } else if (kind == "statefulset") {
        t.kind = ScaleTarget::Kind::kStatefulSet;
    } else if (kind == "leaderworkerset" || kind == "lws") {
        t.kind = ScaleTarget::Kind::kLeaderWorkerSet;
    } else {
        return bad();
    }
    if (!is_name(t.name, true) || !is_name(t.in_namespace, false)) return bad();
    return t;
}

Request get_scale(const ScaleTarget& target) {
    Request r;
    r.path = path_of(target);
    return r;
}

Request set_scale(const ScaleTarget& target, std::int64_t replicas) {
    Request r;
    r.method = "PATCH";
    r.path = path_of(target);
    r.content_type = kMergePatch;
    r.body = fmt::format(R"({{"spec":{{"replicas":{}}}}})", std::max<std::int64_t>(replicas, 0));
    return r;
}

Result<void> check_answer(const Answer& answer) {
    if (answer.status >= 200 && answer.status < 300) return {};
    return error(code_of(answer.status), "{}", describe(read_status(answer.body, answer.status)));
}

Result<Scale> read_scale(const Answer& answer) {
    if (auto ok = check_answer(answer); !ok) return tl::unexpected(std::move(ok.error()));
    codec::JsonDocument document;
    const auto view = document.parse(answer.body);
    if (!view) return error(ErrorCode::kDataLoss, "the Scale is no JSON: {}", view.error().message);
    const auto spec = view->find("spec");
    if (view->find("kind").as_string() != "Scale" || spec.type() != codec::JsonType::kObject) {
        return error(ErrorCode::kDataLoss, "the API server's answer is no Scale");
    }
    Scale s;
    // None is how it is written where it is 0.
    s.wanted = spec.find("replicas").as_int().value_or(0);
    s.present = view->find("status").find("replicas").as_int().value_or(0);
    s.pod_selector = view->find("status").find("selector").as_string().value_or("");
    if (s.wanted < 0 || s.present < 0) {
        return error(ErrorCode::kDataLoss, "the API server's Scale has fewer than no replicas");
    }
    return s;
}

Request set_deletion_cost(std::string_view in_namespace, std::string_view pod, std::int32_t cost) {
    Request r;
    r.method = "PATCH";
    r.path =
        fmt::format("/api/v1/namespaces/{}/pods/{}", query_escape(in_namespace), query_escape(pod));
    r.content_type = kMergePatch;
    r.body = fmt::format(
        R"({{"metadata":{{"annotations":{{"controller.kubernetes.io/pod-deletion-cost":"{}"}}}}}})",
        cost);
    return r;
}

}  // namespace stator::kube
