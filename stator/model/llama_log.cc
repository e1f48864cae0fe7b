#include "stator/model/llama_log.h"

#include <llama.h>

#include <algorithm>
#include <mutex>
#include <string_view>
#include <utility>

#include "stator/base/check.h"
#include "stator/base/log.h"

namespace stator::model {

namespace {

constexpr std::size_t kMaxLineBytes = 2000;

/// llama.cpp writes lines in pieces; each thread's are put together apart.
struct ThreadLog {
    std::string line;
    ggml_log_level level = GGML_LOG_LEVEL_NONE;
    bool capturing = false;
    std::string first_error;
};

ThreadLog& thread_log() {
    thread_local ThreadLog log;
    return log;
}

/// "llama_model_load: error loading model: …" without the function's name.
std::string_view without_function(std::string_view line) {
    const std::size_t colon = line.find(": ");
    if (colon == std::string_view::npos) return line;
    const std::string_view name = line.substr(0, colon);
    return name.find(' ') == std::string_view::npos ? line.substr(colon + 2) : line;
}

void write_line(ThreadLog& log) {
    const std::string line = std::exchange(log.line, {});
    if (line.find_first_not_of(". \t") == std::string::npos) return;
    const bool bad = log.level == GGML_LOG_LEVEL_ERROR || log.level == GGML_LOG_LEVEL_WARN;
    if (log.capturing && log.level == GGML_LOG_LEVEL_ERROR && log.first_error.empty()) {
        log.first_error = without_function(line);
    }
    if (bad && !log.capturing) {
        log_warn("llama.cpp wrote a line.", {{"text", line}});
    } else {
        log_debug("llama.cpp wrote a line.", {{"text", line}});
    }
}

void on_llama_log(ggml_log_level level, const char* text, void* /*user_data*/) {
    ThreadLog& log = thread_log();
    if (level != GGML_LOG_LEVEL_CONT) log.level = level;
    for (std::string_view rest = text; !rest.empty();) {
        const std::size_t end = rest.find('\n');
        const std::size_t room = kMaxLineBytes - std::min(kMaxLineBytes, log.line.size());
        log.line += rest.substr(0, std::min(end, room));
        if (end == std::string_view::npos) return;
        write_line(log);
        rest.remove_prefix(end + 1);
    }
}

}  // namespace

void route_llama_log() {
    static std::once_flag once;
    std::call_once(once, [] { llama_log_set(on_llama_log, nullptr); });
}

LlamaErrors::LlamaErrors() {
    route_llama_log();
    ThreadLog& log = thread_log();
    STATOR_ASSERT(!log.capturing);
    log.capturing = true;
    log.first_error.clear();
}

LlamaErrors::~LlamaErrors() { thread_log().capturing = false; }

std::string LlamaErrors::first() const { return thread_log().first_error; }

}  // namespace stator::model
