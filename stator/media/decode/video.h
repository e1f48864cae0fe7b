#pragma once

#include "stator/media/decode/decode.h"

namespace stator::media::helper {

/// Frames of a video, evenly from the first to the last, at most limits.max_frames. MP4/MOV,
/// Matroska/WebM and AVI, with the codecs of a list. Frames are scaled down until all fit
/// limits.max_bytes, and turned as the file says. kTooLong also where a file does not say how long
/// it is.
[[nodiscard]] Decoded decode_video(Bytes bytes, const Limits& limits);

/// Whether what the file says of itself is more than there is: AVI's RIFF, the boxes of an MP4 that
/// hold its pictures or their index, Matroska's segment. Decoders would take what is left of it.
[[nodiscard]] bool is_cut_short(Bytes bytes);

}  // namespace stator::media::helper
