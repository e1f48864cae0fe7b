#pragma once

#include <string>
#include <string_view>

#include "stator/base/error.h"
#include "stator/frontend/field_reader.h"
#include "stator/frontend/sampling_fields.h"
#include "stator/media/loader.h"

namespace stator::frontend {

/// Whether a content part of this type is an image or a video in one of the forms that are read.
[[nodiscard]] bool is_media_part(std::string_view type);

/// Such a part, if the model takes its kind. On nullopt the error is in `part`.
[[nodiscard]] std::optional<media::MediaSource> read_media_part(FieldReader& part,
                                                                std::string_view path,
                                                                std::string_view type,
                                                                const RequestRules& rules);

/// Of a part of any other type but text: says what the model reads.
[[nodiscard]] tl::unexpected<Error> unsupported_part(std::string_view type, std::string_view path,
                                                     const RequestRules& rules);

}  // namespace stator::frontend
