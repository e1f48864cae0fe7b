#include "stator/transfer/nixl_mover.h"

namespace stator::transfer {

Result<std::unique_ptr<NixlMover>> start_nixl(
    const std::string& library, const std::vector<std::shared_ptr<Arena>>& /*arenas*/) {
    return error(ErrorCode::kUnsupported, "NIXL's library '{}' was not found", library);
}

}  // namespace stator::transfer
