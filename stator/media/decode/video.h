#pragma once

#include "stator/media/decode/decode.h"

namespace stator::media::helper {

/// Frames of a video, evenly from the first to the last, at most limits.max_frames. MP4/MOV,
/// Matroska/WebM and AVI, with the codecs of a list. Frames are scaled down until all fit
/// limits.max_bytes, and turned as the file says. kTooLong also where a file does not say how long
/// it is.
[[nodiscard]] Decoded decode_video(Bytes bytes, const Limits& limits);

}  // namespace stator::media::helper
