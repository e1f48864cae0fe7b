#include "stator/cli/served_engine.h"

#include <fmt/format.h>
#include <unistd.h>

#include <chrono>
#include <utility>

#include "stator/base/clock.h"
#include "stator/cli/mock_model.h"
#include "stator/cli/model_location.h"
#include "stator/cli/model_parts.h"
#include "stator/cli/terminal.h"
#include "stator/cli/transfer_setup.h"
#include "stator/engine/echo/echo_engine.h"
#include "stator/engine/llama/llama_engine.h"

namespace stator::cli {
namespace {

/// "Loading NAME 42 %" on one line of a terminal; nothing elsewhere. Cleared when done.
class ProgressLine {
  public:
    explicit ProgressLine(std::string label)
        : label_(std::move(label)), shown_(is_terminal(STDERR_FILENO)) {
        update(0.0F);
    }
    ~ProgressLine() {
        if (shown_) print_err("\r\x1b[K");
    }
    ProgressLine(const ProgressLine&) = delete;
    ProgressLine& operator=(const ProgressLine&) = delete;

    void update(float fraction) {
        const int percent = static_cast<int>(fraction * 100.0F);
        if (!shown_ || percent == percent_) return;
        percent_ = percent;
        print_err(fmt::format("\r{} … {} %\x1b[K", label_, percent));
    }

  private:
    std::string label_;
    bool shown_;
    int percent_ = -1;
};

engine::LlamaOptions llama_options(const config::EngineSettings& s, std::string path,
                                   std::uint32_t threads) {
    engine::LlamaOptions o;
    o.model_path = std::move(path);
    o.context_tokens = s.context;
    o.max_sequence_tokens = s.max_sequence;
    o.max_running = s.max_running.value_or(16);
    o.max_waiting = s.max_waiting.value_or(256);
    o.step_tokens = s.step_tokens.value_or(512);
    o.block_tokens = s.block_tokens.value_or(o.block_tokens);
    o.prefix_cache_bytes = s.prefix_cache_size.bytes;
    o.prefix_cache = s.prefix_cache;
    o.threads = static_cast<int>(threads);
    o.gpu_layers = s.gpu_layers;
    o.seed = s.seed;
    return o;
}

/// Tokenizer and template of the folder, if one is given, else of the file; the file's path.
Result<std::string> use_text_of_llama(const config::Settings& settings, ServedEngine& out) {
    std::string path = settings.model.path;
    if (!settings.model.folder.empty()) {
        if (auto ok = use_model_folder(settings.model.folder, settings, out); !ok) {
            return tl::unexpected(ok.error());
        }
        if (path.empty()) path = out.facts->path;
        if (path.empty()) {
            return error(ErrorCode::kNotFound,
                         "The model folder '{}' holds no single .gguf file, and the llama engine "
                         "has no weights without one. Name it with --model FILE.gguf",
                         settings.model.folder);
        }
        // Token ids must mean the same to both.
        auto file = model::GgufModel::open(path);
        if (!file) return tl::unexpected(file.error());
        if (auto ok = same_vocabulary(*out.tokenizer, (*file)->tokenizer()); !ok) {
            return tl::unexpected(ok.error());
        }
        out.facts->path = path;
        out.facts->architecture = (*file)->facts().architecture;
        out.file_bytes = (*file)->facts().file_bytes;
        return path;
    }
    if (path.empty()) {
        auto found = find_default_model(model_folder());
        if (!found) return tl::unexpected(found.error());
        path = std::move(*found);
    }
    if (auto ok = use_model_file(path, settings, out); !ok) return tl::unexpected(ok.error());
    return path;
}

Result<ServedEngine> open_llama(const config::Settings& settings, std::uint32_t threads,
                                engine::KvEventSink kv_events,
                                std::shared_ptr<transfer::HandoffStore> handoffs,
                                metrics::Registry* registry) {
    const TimePoint start = Clock::real().now();
    ServedEngine out;
    auto weights = use_text_of_llama(settings, out);
    if (!weights) return tl::unexpected(weights.error());
    const std::string path = *std::move(weights);
    ProgressLine progress(fmt::format("Loading {}", out.facts->name));
    engine::LlamaOptions options = llama_options(settings.engine, path, threads);
    options.tokenizer = out.tokenizer;
    options.handoffs = std::move(handoffs);
    options.registry = registry;
    options.embeddings_cache_bytes = settings.engine.encoder_cache_size.bytes;
    const Encoding encoding = encoding_of(settings);
    if (encoding != Encoding::kNone) options.mmproj_path = settings.model.mmproj;
    options.progress = [&progress](float fraction) { progress.update(fraction); };
    auto made = encoding == Encoding::kAlone
                    ? engine::make_llama_encoder(std::move(options))
                    : engine::make_llama_engine(std::move(options), std::move(kv_events));
    if (!made) return tl::unexpected(made.error());
    out.engine = std::move(*made);
    out.load_seconds = to_seconds(Clock::real().now() - start);
    return out;
}

Result<ServedEngine> open_echo(const config::Settings& settings) {
    ServedEngine out;
    if (auto ok = use_byte_tokenizer("Echo", "echo", settings, out); !ok) {
        return tl::unexpected(ok.error());
    }
    engine::EchoOptions options;
    const config::EngineSettings& e = settings.engine;
    constexpr std::uint32_t kUsualContext = 8192;  // as with llama: nobody wants pages of echo
    options.context_tokens = e.max_sequence != 0 ? e.max_sequence
                             : e.context != 0    ? e.context
                                                 : kUsualContext;
    options.max_running = e.max_running.value_or(16);
    options.max_waiting = e.max_waiting.value_or(256);
    options.step = std::chrono::microseconds(settings.echo.step_us);
    options.tokens_per_step = settings.echo.tokens_per_step;
    options.fail_after_tokens = settings.echo.fail_after;
    out.engine = engine::make_echo_engine(options);
    return out;
}

}  // namespace

frontend::ServedModel served_model(const ServedEngine& engine, const config::Settings& settings) {
    frontend::ServedModel model;
    model.id = engine.id;
    model.aliases = settings.model.aliases;
    model.created = Clock::real().unix_seconds();
    model.tokenizer = engine.tokenizer;
    model.chat_template = engine.chat_template;
    model.format = engine.format;
    model.engine = engine.engine;
    model.defaults = engine.defaults;
    return model;
}

Result<ServedEngine> open_engine(const config::Settings& settings, std::uint32_t engine_threads,
                                 engine::KvEventSink kv_events,
                                 std::shared_ptr<transfer::HandoffStore> handoffs,
                                 metrics::Registry* registry) {
    switch (settings.engine.kind) {
        case config::EngineKind::kLlama:
            return open_llama(settings, engine_threads, std::move(kv_events), std::move(handoffs),
                              registry);
        case config::EngineKind::kEcho:
            return open_echo(settings);
        case config::EngineKind::kMock: {
            auto model = open_mock_model(settings);
            if (!model) return tl::unexpected(model.error());
            ServedEngine out = model->served;
            // As the process of a real engine would.
            out.engine = make_engine(*model, {}, die_at_once, std::move(kv_events));
            return out;
        }
        case config::EngineKind::kAttached:
            break;  // a worker's group opens it
    }
    return error(ErrorCode::kInternal, "This engine is unknown");
}

}  // namespace stator::cli
