#include "stator/frontend/relayed_request.h"

#include <algorithm>
#include <array>

#include "stator/frontend/field_reader.h"
#include "stator/frontend/sampling_fields.h"

namespace stator::frontend {
namespace {

constexpr std::array<std::string_view, 10> kOfEngines = {
    "kv_transfer_params", "ec_transfer_params",    "disaggregated_params", "bootstrap_host",
    "bootstrap_port",     "bootstrap_room",        "bootstrap_pair_key",   "data_parallel_rank",
    "routed_dp_rank",     "disagg_prefill_dp_rank"};
/// Members whose own members go to an engine's core as they are.
constexpr std::array<std::string_view, 3> kBags = {"vllm_xargs", "extra_args", "sampling_params"};
constexpr int kDeepestBag = 3;

/// The name of such a member, in any of those that have one name; empty: there is none.
std::string_view of_engines(codec::JsonView object, int depth) {
    std::string_view found;
    object.each_member([&](std::string_view name, codec::JsonView value) {
        if (value.is_null()) return true;
        const auto known = std::ranges::find(kOfEngines, name);
        if (known != kOfEngines.end()) {
            found = *known;
        } else if (depth < kDeepestBag && std::ranges::find(kBags, name) != kBags.end()) {
            found = of_engines(value, depth + 1);
        }
        return found.empty();
    });
    return found;
}

}  // namespace

Result<std::string> read_relayed(std::string_view body, codec::JsonDocument& document) {
    auto root = document.parse(body);
    if (!root) return tl::unexpected<Error>(std::move(root.error()));
    if (root->type() != codec::JsonType::kObject) {
        return error(ErrorCode::kInvalidArgument, "the body must be a JSON object, not {}",
                     describe(*root));
    }
    if (const auto name = of_engines(*root, 0); !name.empty()) {
        return param_error(name, "{} is for engines to hand to each other; leave it out", name);
    }
    return read_model_field(*root);
}

}  // namespace stator::frontend
