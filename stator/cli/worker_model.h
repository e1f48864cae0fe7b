#pragma once

#include "stator/base/error.h"
#include "stator/cli/served_engine.h"
#include "stator/config/settings.h"
#include "stator/protocol/worker_info.h"
#include "stator/worker/artifact_store.h"

namespace stator::cli {

/// What a worker says about the model it serves, and the files it hands out with it.
struct WorkerModel {
    protocol::ModelCard card;
    worker::ArtifactStore artifacts;
};

/// Reads the model file once more (its head and samples): some 10 ms.
[[nodiscard]] Result<WorkerModel> describe_model(const config::Settings& settings,
                                                 const ServedEngine& engine);

}  // namespace stator::cli
