#include "stator/cli/mock_model.h"

#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <string>
#include <string_view>
#include <utility>

#include "stator/cli/model_parts.h"
#include "stator/cli/text_file.h"
#include "stator/cli/transfer_setup.h"
#include "stator/config/yaml_file.h"
#include "stator/engine/mock/step_time_file.h"

namespace stator::cli {
namespace {

using engine::mock::CoreOptions;
using engine::mock::StepTime;
using tokens::TokenId;

constexpr std::uint32_t kPresetBlockTokens = 16;
constexpr std::size_t kMaxAlphabet = 4096;
constexpr std::uint32_t kUsualContext = 131'072;
/// With many workers tokens may be later for the sake of fewer wake-ups.
std::chrono::microseconds gather_for(std::uint32_t workers) {
    constexpr std::uint32_t kMany = 32;
    constexpr std::uint32_t kVeryMany = 128;
    return std::chrono::microseconds(workers >= kVeryMany ? 1000 : workers >= kMany ? 500 : 100);
}

bool is_printable(std::string_view bytes) {
    return !bytes.empty() &&
           std::ranges::all_of(bytes, [](char c) { return c >= 0x20 && c < 0x7F; });
}

/// " word" or "word".
bool is_word(std::string_view bytes) {
    if (bytes.starts_with(' ')) bytes.remove_prefix(1);
    return bytes.size() > 1 && std::ranges::all_of(bytes, [](char c) {
               return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
           });
}

/// Tokens that make an answer one can look at.
std::vector<TokenId> alphabet_of(const text::Tokenizer& tokenizer, bool (*fits)(std::string_view)) {
    std::vector<TokenId> out;
    for (TokenId id = 0; id < tokenizer.vocab_size() && out.size() < kMaxAlphabet; ++id) {
        if (tokenizer.is_control(id) || tokenizer.is_end(id)) continue;
        if (fits(tokenizer.bytes(id))) out.push_back(id);
    }
    return out;
}

void set_vocabulary(const ServedEngine& served, CoreOptions& core) {
    const text::Tokenizer& tokenizer = *served.tokenizer;
    core.vocab_size = tokenizer.vocab_size();
    if (served.facts) core.alphabet = alphabet_of(tokenizer, is_word);
    if (core.alphabet.empty()) core.alphabet = alphabet_of(tokenizer, is_printable);
    for (TokenId id = 0; id < tokenizer.vocab_size(); ++id) {
        if (!tokenizer.is_end(id)) continue;
        core.eos = id;
        break;
    }
}

Result<StepTime> read_step_time_file(const std::string& path) {
    const auto text = read_text_file("The step time file", path, config::kMaxFileBytes);
    if (!text) return tl::unexpected(text.error());
    auto read = engine::mock::read_step_time(path, *text);
    if (read) return std::move(*read);
    std::string problems;
    for (const config::Problem& p : read.error()) {
        problems += (problems.empty() ? "" : "\n") + p.text();
    }
    return error(ErrorCode::kInvalidArgument, "{}", problems);
}

engine::mock::TierOptions tier(std::uint32_t blocks, double gb_per_s) {
    return {.blocks = blocks, .read_gb_per_s = gb_per_s, .write_gb_per_s = gb_per_s};
}

void set_limits(const config::Settings& settings, const engine::mock::Preset& preset,
                CoreOptions& core) {
    const config::EngineSettings& e = settings.engine;
    const config::MockSettings& m = settings.mock;
    core.block_tokens = e.block_tokens.value_or(core.block_tokens);
    const std::uint64_t tokens = std::uint64_t{preset.blocks} * kPresetBlockTokens;
    core.blocks = m.blocks.value_or(
        static_cast<std::uint32_t>(std::max<std::uint64_t>(tokens / core.block_tokens, 1)));
    const std::uint64_t memory = std::uint64_t{core.blocks} * core.block_tokens;
    core.context_tokens =
        e.max_sequence != 0
            ? e.max_sequence
            : static_cast<std::uint32_t>(std::min<std::uint64_t>(kUsualContext, memory));
    core.max_running = e.max_running.value_or(core.max_running);
    core.max_waiting = e.max_waiting.value_or(core.max_waiting);
    core.step_tokens = e.step_tokens.value_or(core.step_tokens);
    core.prefix_cache = e.prefix_cache;
    core.kv_bytes_per_token = m.kv_bytes.value_or(preset.kv_bytes_per_token);
    core.host = tier(m.host_blocks, m.host_bandwidth);
    core.disk = tier(m.disk_blocks, m.disk_bandwidth);
    core.noise = m.noise;
    core.seed = e.seed;
    core.mean_output_tokens = m.mean_output;
}

void set_legs(const config::Settings& settings, engine::MockOptions& options) {
    const config::MockSettings& m = settings.mock;
    StepTime& time = options.core.step_time;
    time.set_encoder({m.image_ms.value_or(time.encoder().image_ms),
                      m.image_token_us.value_or(time.encoder().token_us)});
    options.handoffs.encodes = encoding_of(settings) != Encoding::kNone;
    options.handoffs.pixels_per_row = m.image_pixels;
    options.handoffs.most_rows = m.image_tokens;
    options.handoffs.embedding_width = m.embedding_width;
}

}  // namespace

Result<MockModel> open_mock_model(const config::Settings& settings) {
    const config::MockSettings& m = settings.mock;
    MockModel model;
    const auto preset = engine::mock::find_preset(m.preset);
    if (!preset) {
        return error(ErrorCode::kInvalidArgument, "--mock-preset: {}.", preset.error().message);
    }
    auto faults = engine::mock::parse_faults(m.faults);
    if (!faults) {
        return error(ErrorCode::kInvalidArgument, "--mock-faults: {}.", faults.error().message);
    }
    model.faults = std::move(*faults);
    CoreOptions& core = model.options.core;
    core.step_time = (*preset)->step_time;
    if (!m.step_time.empty()) {
        auto read = read_step_time_file(m.step_time);
        if (!read) return tl::unexpected(read.error());
        core.step_time = std::move(*read);
    }
    set_limits(settings, **preset, core);
    model.options.speedup = m.speedup;
    set_legs(settings, model.options);

    const auto parts = !settings.model.folder.empty()
                           ? use_model_folder(settings.model.folder, settings, model.served)
                       : settings.model.path.empty()
                           ? use_byte_tokenizer("Mock", "mock", settings, model.served)
                           : use_model_file(settings.model.path, settings, model.served);
    if (!parts) return tl::unexpected(parts.error());
    set_vocabulary(model.served, core);
    engine::MockHostOptions host;
    host.threads = m.threads;
    host.gather = gather_for(settings.worker.count);
    model.served.mock_host = std::make_shared<engine::MockHost>(host);
    return model;
}

std::shared_ptr<engine::Engine> make_engine(const MockModel& model, MockPlace place,
                                            std::function<void()> crash,
                                            engine::KvEventSink kv_events) {
    engine::MockOptions options = model.options;
    // Otherwise all would have the same noise at the same step.
    options.core.seed += (std::uint64_t{place.worker} << 16U) + place.rank;
    options.faults = engine::mock::FaultPlan(model.faults, place.worker);
    options.crash = std::move(crash);
    options.handoffs.store = std::move(place.handoffs);
    return engine::make_mock_engine(*model.served.mock_host, std::move(options),
                                    std::move(kv_events));
}

void die_at_once() { ::kill(::getpid(), SIGKILL); }

}  // namespace stator::cli
