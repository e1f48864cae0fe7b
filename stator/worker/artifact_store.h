#pragma once

#include <map>
#include <memory>
#include <string>
#include <utility>

#include "stator/protocol/worker_info.h"

namespace stator::worker {

/// What a worker hands out by digest. Plain data; filled before it is given to the worker.
struct ArtifactStore {
    std::map<std::string, std::shared_ptr<const std::string>> by_sha256;

    /// Keeps the bytes and says how the card names them.
    [[nodiscard]] protocol::Artifact add(std::string kind, std::string bytes);
};

}  // namespace stator::worker
