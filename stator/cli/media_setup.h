#pragma once

#include <memory>

#include "stator/base/error.h"
#include "stator/config/settings.h"
#include "stator/media/loader.h"
#include "stator/metrics/registry.h"

namespace stator::cli {

/// Reads clients' images and videos as --media… say. kUnavailable: this machine or this
/// installation can't (no helper program, no seccomp).
[[nodiscard]] Result<std::shared_ptr<media::MediaLoader>> make_media_loader(
    const config::MediaSettings& settings, metrics::Registry& registry);

}  // namespace stator::cli
