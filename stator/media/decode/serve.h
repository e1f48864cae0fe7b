#pragma once

#include "stator/media/decode/decode.h"

namespace stator::media::helper {

/// What a helper's main() does: lock_in(), say hello on descriptor 0, then answer requests until
/// the parent leaves. The exit status: 0; 1 where the parent broke the protocol or left in the
/// middle; 70 where the sandbox could not be made.
[[nodiscard]] int serve(std::uint32_t decodes, Decoded (*decode)(Bytes, const Limits&));

}  // namespace stator::media::helper
