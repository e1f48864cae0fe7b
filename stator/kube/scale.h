#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "stator/base/error.h"
#include "stator/kube/client.h"

namespace stator::kube {

/// Something with replicas.
struct ScaleTarget {
    enum class Kind : std::uint8_t { kDeployment, kStatefulSet, kLeaderWorkerSet };
    Kind kind = Kind::kDeployment;
    std::string in_namespace;
    std::string name;
    bool operator==(const ScaleTarget&) const = default;
};

/// "deployment/decode", "statefulset/decode", "leaderworkerset/decode" (or "lws/decode"), with
/// "NAMESPACE/" before it where it is another than `own_namespace`. kInvalidArgument.
[[nodiscard]] Result<ScaleTarget> parse_scale_target(std::string_view text,
                                                     std::string_view own_namespace);

struct Scale {
    std::int64_t wanted = 0;   ///< spec.replicas
    std::int64_t present = 0;  ///< status.replicas
    std::string pod_selector;  ///< status.selector; empty where the server does not say
};

[[nodiscard]] Request get_scale(const ScaleTarget& target);
/// Takes the right "patch" on the subresource "scale" and no other.
[[nodiscard]] Request set_scale(const ScaleTarget& target, std::int64_t replicas);
/// Of the answer to either. kNotFound, kPermissionDenied, kAborted (409), kUnavailable,
/// kDataLoss.
[[nodiscard]] Result<Scale> read_scale(const Answer& answer);

/// Of the pods of a ReplicaSet, those of the lowest cost go first when it shrinks
/// (controller.kubernetes.io/pod-deletion-cost).
[[nodiscard]] Request set_deletion_cost(std::string_view in_namespace, std::string_view pod,
                                        std::int32_t cost);

/// Nothing where the answer is a success (2xx), else what it says, with the code that fits.
[[nodiscard]] Result<void> check_answer(const Answer& answer);

}  // namespace stator::kube
