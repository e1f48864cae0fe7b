#pragma once

#include <cstdint>
#include <string>

#include "stator/cli/terminal.h"
#include "stator/cli/thread_plan.h"
#include "stator/engine/engine.h"

namespace stator::cli {

/// What the summary tells.
struct StartupFacts {
    std::string program;  ///< as it was called
    std::string version;
    std::string model_id;
    std::string model_title;
    std::uint64_t file_bytes = 0;  ///< 0: no file
    double load_seconds = 0.0;
    engine::EngineInfo engine;
    std::uint64_t kv_tokens = 0;
    ThreadPlan threads;
    std::string host;
    std::uint16_t port = 0;
    bool api_keys = false;
    bool can_chat = true;  ///< the model has a chat template
};

/// "http://127.0.0.1:8000": where a client on this machine finds a server that listens on `host`.
[[nodiscard]] std::string local_url(const std::string& host, std::uint16_t port);

/// A curl line to paste, with line breaks.
[[nodiscard]] std::string try_line(const std::string& url, const std::string& model, bool can_chat,
                                   bool api_keys);

/// What `stator serve` prints when it is ready: model, limits, threads, address, and lines to
/// paste. 10 lines or so.
[[nodiscard]] std::string startup_summary(const StartupFacts& facts, const Style& style);

}  // namespace stator::cli
