#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "stator/base/error.h"
#include "stator/config/settings.h"
#include "stator/engine/engine.h"
#include "stator/engine/mock/live/mock_host.h"
#include "stator/frontend/frontend.h"
#include "stator/metrics/registry.h"
#include "stator/model/gguf_model.h"
#include "stator/text/chat_template.h"
#include "stator/text/tokenizer.h"
#include "stator/transfer/handoff_store.h"

namespace stator::cli {

/// A model that is ready to answer, with everything the frontend needs to offer it. Owns it all.
struct ServedEngine {
    std::string id;                ///< the name clients use
    std::string title;             ///< the name people know
    std::uint64_t file_bytes = 0;  ///< 0: no file
    double load_seconds = 0.0;
    std::optional<model::ModelFacts> facts;  ///< none: a tokenizer of bytes
    bool attached = false;                   ///< the engine is a process of its own
    std::string media_mark;                  ///< ModelCard::media_mark
    std::string folder;                      ///< a Hugging Face folder; empty = none
    std::shared_ptr<const text::Tokenizer> tokenizer;
    std::shared_ptr<const text::ChatTemplate> chat_template;  ///< null: none that can be used
    std::string template_source;                              ///< what it was compiled from
    std::string template_bos;
    std::string template_eos;
    text::OutputFormat format;  ///< how the model writes thinking and calls
    frontend::SamplingDefaults defaults;
    std::shared_ptr<engine::MockHost> mock_host;  ///< the mock engine's; outlives it
    std::shared_ptr<engine::Engine> engine;
};

/// The same as the frontend takes it.
[[nodiscard]] frontend::ServedModel served_model(const ServedEngine& engine,
                                                 const config::Settings& settings);

/// Opens what the settings ask for. Shows progress on standard error. The error is one sentence for
/// the terminal. `kv_events` gets the changes of the prefix cache, where the engine has one.
/// `handoffs`: where legs leave what they make; null: they are refused. `registry`, which outlives
/// the engine, gets what an encoder of media counts; null: nobody asks.
[[nodiscard]] Result<ServedEngine> open_engine(
    const config::Settings& settings, std::uint32_t engine_threads, engine::KvEventSink kv_events,
    std::shared_ptr<transfer::HandoffStore> handoffs = nullptr,
    metrics::Registry* registry = nullptr);

}  // namespace stator::cli
