#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "stator/engine/attached/attached_engine.h"
#include "stator/metrics/registry.h"

namespace stator::cli {

/// Shows how the events of an engine's cache are followed, by rank: stator_engine_kv_source_*.
/// Of an engine that is gone by the time of a scrape nothing is counted any more.
void show_kv_sources(metrics::Registry& registry, const std::string& engine, std::uint32_t ranks,
                     const std::shared_ptr<engine::AttachedEngine>& attached);

}  // namespace stator::cli
