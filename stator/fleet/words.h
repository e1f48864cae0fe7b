#pragma once

#include "stator/base/error.h"
#include "stator/protocol/worker_info.h"

namespace stator::fleet {

/// Whether a worker may say this of itself, `before` being what it said last (null: its first
/// words). Ranks are numbered 0, 1, … ; name and incarnation never change; the card and the ranks
/// change only while it loads. kDataLoss names what changed.
[[nodiscard]] Result<void> check_words(const protocol::WorkerInfo* before,
                                       const protocol::WorkerInfo& now);

}  // namespace stator::fleet
