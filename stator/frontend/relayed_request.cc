#include "stator/frontend/relayed_request.h"

#include <array>

#include "stator/frontend/field_reader.h"
#include "stator/frontend/sampling_fields.h"

namespace stator::frontend {
namespace {

constexpr std::array<std::string_view, 7> kOfEngines = {
    "kv_transfer_params", "ec_transfer_params", "disaggregated_params", "bootstrap_host",
    "bootstrap_port",     "bootstrap_room",     "data_parallel_rank"};

}  // namespace

Result<std::string> read_relayed(std::string_view body, codec::JsonDocument& document) {
    auto root = document.parse(body);
    if (!root) return tl::unexpected<Error>(std::move(root.error()));
    if (root->type() != codec::JsonType::kObject) {
        return error(ErrorCode::kInvalidArgument, "the body must be a JSON object, not {}",
                     describe(*root));
    }
    for (const std::string_view name : kOfEngines) {
        if (root->find(name).is_null()) continue;
        return param_error(name, "{} is for engines to hand to each other; leave it out", name);
    }
    return read_model_field(*root);
}

}  // namespace stator::frontend
