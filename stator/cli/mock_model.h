#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "stator/base/error.h"
#include "stator/cli/served_engine.h"
#include "stator/config/settings.h"
#include "stator/engine/mock/faults.h"
#include "stator/engine/mock/live/mock_engine.h"

namespace stator::cli {

/// What the mock engines of a process have in common.
struct MockModel {
    ServedEngine served;  ///< without an engine; with the host of all
    engine::MockOptions options;
    std::vector<engine::mock::Fault> faults;
};

/// Reads preset, step times and faults as the settings say. With a model its vocabulary is used
/// and its weights are not; without, tokens are bytes.
[[nodiscard]] Result<MockModel> open_mock_model(const config::Settings& settings);

struct MockPlace {
    std::uint32_t worker = 0;
    std::uint32_t rank = 0;
    std::shared_ptr<transfer::HandoffStore> handoffs = nullptr;  ///< null: no legs
};
/// One of the engines; `crash` is what its faults do when it dies.
[[nodiscard]] std::shared_ptr<engine::Engine> make_engine(const MockModel& model, MockPlace place,
                                                          std::function<void()> crash,
                                                          engine::KvEventSink kv_events);

/// Ends this process as `kill -9` would.
void die_at_once();

}  // namespace stator::cli
