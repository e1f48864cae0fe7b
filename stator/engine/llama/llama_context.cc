#include "stator/engine/llama/llama_context.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <exception>
#include <thread>

#include "stator/base/check.h"
#include "stator/base/log.h"
#include "stator/engine/llama/huge_pages.h"
#include "stator/model/llama_log.h"

namespace stator::engine::llama {
namespace {

constexpr std::uint32_t kDefaultSequenceTokens = 8192;

bool report_progress(float done, void* user) {
    const auto& f = *static_cast<const std::function<void(float)>*>(user);
    if (f) f(done);
    return true;
}

std::string_view memory_kind(const llama_model* model) {
    if (llama_model_is_recurrent(model)) return "recurrent layers";
    if (llama_model_is_hybrid(model)) return "recurrent and attention layers";
    if (llama_model_n_swa(model) > 0) return "a sliding window";
    return {};
}

Result<void> check_options(const LlamaOptions& o) {
    const auto range = [](std::string_view name, std::uint64_t value, std::uint64_t low,
                          std::uint64_t high) -> Result<void> {
        if (value >= low && value <= high) return {};
        return error(ErrorCode::kInvalidArgument, "{} is {}; it must be {} to {}.", name, value,
                     low, high);
    };
    if (auto r = range("max_running", o.max_running, 1, 128); !r) return r;
    if (auto r = range("max_waiting", o.max_waiting, 0, 1'000'000); !r) return r;
    if (auto r = range("step_tokens", o.step_tokens, o.max_running, 65'536); !r) return r;
    return range("block_tokens", o.block_tokens, 1, 1024);
}

}  // namespace

Result<std::unique_ptr<LlamaContext>> LlamaContext::load(const LlamaOptions& options) {
    if (auto ok = check_options(options); !ok) return tl::unexpected(ok.error());
    model::route_llama_log();
    llama_backend_init();
    auto self = std::unique_ptr<LlamaContext>(new LlamaContext);
    auto params = llama_model_default_params();
    params.n_gpu_layers = options.gpu_layers;
    params.progress_callback = report_progress;
    params.progress_callback_user_data =
        const_cast<void*>(static_cast<const void*>(&options.progress));  // NOLINT: C callback
    try {
        self->model_ = llama_model_load_from_file(options.model_path.c_str(), params);
    } catch (const std::exception&) {
        self->model_ = nullptr;  // the reason is in the log; its text is not fit for users
    }
    if (self->model_ == nullptr) {
        if (access(options.model_path.c_str(), R_OK) != 0) {
            return error(ErrorCode::kNotFound, "The model file {} does not exist or can't be read.",
                         options.model_path);
        }
        return error(
            ErrorCode::kInvalidArgument,
            "llama.cpp can't load {}: it is damaged or of a kind this build does not know.",
            options.model_path);
    }
    if (auto ok = self->size(options); !ok) return tl::unexpected(ok.error());
    if (auto ok = self->make_context(); !ok) return tl::unexpected(ok.error());
    if (auto ok = self->warm_up(options); !ok) return tl::unexpected(ok.error());
    return self;
}

Result<void> LlamaContext::size(const LlamaOptions& o) {
    if (llama_model_has_encoder(model_) || !llama_model_has_decoder(model_)) {
        return error(ErrorCode::kInvalidArgument,
                     "{} is no decoder-only model, which is what this engine runs.", o.model_path);
    }
    const auto trained = static_cast<std::uint32_t>(std::max(1, llama_model_n_ctx_train(model_)));
    SchedulerOptions& s = scheduler_;
    s.max_sequence_tokens =
        o.max_sequence_tokens != 0
            ? o.max_sequence_tokens
            : std::min(trained, o.context_tokens != 0 ? o.context_tokens : kDefaultSequenceTokens);
    if (s.max_sequence_tokens > trained) {
        log_warn(
            "Sequences may be longer than the model was trained for; expect worse answers there.",
            {{"max_sequence_tokens", s.max_sequence_tokens}, {"trained", trained}});
    }
    s.kv_tokens = o.context_tokens != 0 ? o.context_tokens
                                        : std::max(s.max_sequence_tokens, kDefaultSequenceTokens);
    s.kv_tokens = (s.kv_tokens + 255) / 256 * 256;  // llama.cpp pads the cache to this
    if (s.max_sequence_tokens > s.kv_tokens) {
        return error(
            ErrorCode::kInvalidArgument,
            "max_sequence_tokens ({}) is more than the whole KV cache holds (context_tokens = {}).",
            s.max_sequence_tokens, s.kv_tokens);
    }
    s.block_tokens = o.block_tokens;
    s.step_tokens = o.step_tokens;
    s.max_running = o.max_running;
    s.max_waiting = o.max_waiting;
    s.prefix_cache = o.prefix_cache;
    if (const auto kind = memory_kind(model_); !kind.empty() && s.prefix_cache) {
        s.prefix_cache = false;
        log_info("Prefixes are not shared between requests: the model's memory can't be cut.",
                 {{"because_of", kind}});
    }
    const auto rope = llama_model_rope_type(model_);
    if (rope != LLAMA_ROPE_TYPE_MROPE && rope != LLAMA_ROPE_TYPE_IMROPE) {
        embedding_width_ = static_cast<std::uint32_t>(std::max(0, llama_model_n_embd_inp(model_)));
    }
    const auto cores = static_cast<int>(std::max(1U, std::thread::hardware_concurrency()));
    threads_ = o.threads > 0 ? o.threads : std::max(1, cores / 2);

    const llama_vocab* vocab = llama_model_get_vocab(model_);
    vocab_size_ = static_cast<std::uint32_t>(llama_vocab_n_tokens(vocab));
    for (std::uint32_t t = 0; t < vocab_size_; ++t) {
        if (llama_vocab_is_eog(vocab, static_cast<llama_token>(t))) end_tokens_.push_back(t);
    }
    return {};
}

Result<void> LlamaContext::make_context() {
    auto params = llama_context_default_params();
    params.n_ctx = scheduler_.kv_tokens;
    params.n_batch = scheduler_.step_tokens;
    params.n_ubatch = std::min<std::uint32_t>(scheduler_.step_tokens, 512);
    scratch_ = static_cast<SeqId>(scheduler_.max_running);
    params.n_seq_max = scheduler_.max_running + 1;
    // At least n_seq_max, as llama.cpp demands; its default would reserve logits for every token of
    // a batch (100 MB). In whole 32s, because the compute buffer's layout follows from it: 17 to 24
    // rows made prefill 25 % slower (AMX).
    params.n_outputs_max = (params.n_seq_max + 31) / 32 * 32;
    params.n_threads = params.n_threads_batch = threads_;
    // Unified: partial prefix sharing and handing state to other processes need it. Flash attention
    // is set explicitly because the layout of V depends on it.
    params.kv_unified = true;
    params.flash_attn_type = LLAMA_FLASH_ATTN_TYPE_ENABLED;
    params.no_perf = true;
    try {
        context_ = llama_init_from_model(model_, params);
    } catch (const std::exception&) {
        context_ = nullptr;
    }
    if (context_ == nullptr) {
        return error(ErrorCode::kExhausted,
                     "llama.cpp can't make a KV cache of {} tokens: too little memory. Try a "
                     "smaller --context.",
                     scheduler_.kv_tokens);
    }
    memory_ = llama_get_memory(context_);
    batch_ = llama_batch_init(static_cast<std::int32_t>(scheduler_.step_tokens), 0, 1);
    batch_made_ = true;

    return {};
}

Result<void> LlamaContext::warm_up(const LlamaOptions& o) {
    // The first pass touches the weights and allocates; nobody's first token should wait for that.
    const BatchToken one{end_tokens_.empty() ? 0 : end_tokens_.front(), 0, 0, true};
    if (forward({&one, 1}) != Pass::kDone) {
        return error(ErrorCode::kInternal,
                     "llama.cpp can't compute with this model: its first forward pass failed.");
    }
    const std::size_t bytes_per_token =
        std::max<std::size_t>(1, llama_state_seq_get_size(context_, 0));
    scheduler_.parked_tokens = static_cast<std::uint32_t>(
        std::min<std::uint64_t>(o.prefix_cache_bytes / bytes_per_token, 1U << 30));
    learn_handoff_format();
    clear();
    use_huge_pages();
    return {};
}

void LlamaContext::learn_handoff_format() {
    if (!memory_kind(model_).empty()) return;
    std::vector<std::byte> state(llama_state_seq_get_size(context_, 0));
    auto* bytes = reinterpret_cast<std::uint8_t*>(state.data());
    if (llama_state_seq_get_data(context_, bytes, state.size(), 0) != state.size()) return;
    auto format = KvBlobFormat::learn(state, 1);
    if (!format) {
        log_info("This model's KV is not handed over to other ranks.",
                 {{"why", format.error().message}});
        return;
    }
    std::array<char, 64> architecture{};
    llama_model_meta_val_str(model_, "general.architecture", architecture.data(),
                             architecture.size());
    kv_layout_ = fmt::format("llama.cpp/{}/{}", architecture.data(), format->text());
    handoff_format_ = std::move(*format);
}

LlamaContext::~LlamaContext() {
    if (batch_made_) llama_batch_free(batch_);
    if (rows_made_) llama_batch_free(rows_);
    if (context_ != nullptr) llama_free(context_);
    if (model_ != nullptr) llama_model_free(model_);
}

bool LlamaContext::apply(std::span<const KvOp> ops) {
    const auto position = [](std::uint32_t p) {
        return p == kToEnd ? llama_pos{-1} : static_cast<llama_pos>(p);
    };
    for (const KvOp& op : ops) {
        switch (op.kind) {
            case KvOp::Kind::kRemove:
                if (!llama_memory_seq_rm(memory_, op.sequence, position(op.begin),
                                         position(op.end))) {
                    STATOR_BUG("llama.cpp refused to remove part of a sequence");
                    return false;
                }
                break;
            case KvOp::Kind::kCopy:
                llama_memory_seq_cp(memory_, op.source, op.sequence, position(op.begin),
                                    position(op.end));
                break;
            case KvOp::Kind::kSave:
                if (!save(op)) return false;
                break;
            case KvOp::Kind::kLoad:
                if (!load(op)) return false;
                break;
            case KvOp::Kind::kDrop:
                segments_.erase(op.segment);
                break;
        }
    }
    return true;
}

// llama.cpp saves and restores whole sequences only, so a range passes through a sequence of its
// own. That shares cells with the one it belongs to: no copy beside the one to or from host memory.
bool LlamaContext::save(const KvOp& op) {
    llama_memory_seq_cp(memory_, op.sequence, scratch_, static_cast<llama_pos>(op.begin),
                        static_cast<llama_pos>(op.end));
    Saved saved;
    saved.size = llama_state_seq_get_size(context_, scratch_);
    saved.bytes = std::make_unique_for_overwrite<std::uint8_t[]>(saved.size);
    const bool ok =
        llama_state_seq_get_data(context_, saved.bytes.get(), saved.size, scratch_) == saved.size;
    llama_memory_seq_rm(memory_, scratch_, -1, -1);
    if (ok) segments_[op.segment] = std::move(saved);
    return ok;
}

bool LlamaContext::load(const KvOp& op) {
    const auto found = segments_.find(op.segment);
    if (found == segments_.end()) return false;
    const Saved& saved = found->second;
    const bool ok =
        llama_state_seq_set_data(context_, saved.bytes.get(), saved.size, scratch_) != 0;
    if (ok) {
        llama_memory_seq_cp(memory_, scratch_, op.sequence, static_cast<llama_pos>(op.begin),
                            static_cast<llama_pos>(op.end));
    }
    llama_memory_seq_rm(memory_, scratch_, -1, -1);
    return ok;
}

bool LlamaContext::export_range(SeqId sequence, std::uint32_t begin, std::uint32_t end,
                                std::span<std::byte> out) {
    llama_memory_seq_cp(memory_, sequence, scratch_, static_cast<llama_pos>(begin),
                        static_cast<llama_pos>(end));
    auto* bytes = reinterpret_cast<std::uint8_t*>(out.data());
    const bool ok = llama_state_seq_get_data(context_, bytes, out.size(), scratch_) == out.size();
    llama_memory_seq_rm(memory_, scratch_, -1, -1);
    return ok;
}

std::uint32_t LlamaContext::import_parts(const KvImport& import, std::string& why) {
    std::uint32_t there = import.begin;
    for (std::size_t i = import.first_part; i < import.last_part; ++i) {
        const protocol::HandoffPart& part = import.from->what->parts[i];
        const auto state = import.from->parts[i];
        why = handoff_format_->why_not(state, part.first, part.tokens);
        if (!why.empty()) break;
        const auto* bytes = reinterpret_cast<const std::uint8_t*>(state.data());
        if (llama_state_seq_set_data(context_, bytes, state.size(), scratch_) != state.size()) {
            llama_memory_seq_rm(memory_, scratch_, -1, -1);
            why = "is not taken by llama.cpp";
            break;
        }
        const std::uint32_t end = part.first + part.tokens;
        llama_memory_seq_cp(memory_, scratch_, import.sequence, static_cast<llama_pos>(there),
                            static_cast<llama_pos>(end));
        llama_memory_seq_rm(memory_, scratch_, -1, -1);
        there = end;
    }
    return there;
}

// llama.cpp computes a batch of tokens or one of embeddings: a pass over both is several runs, in
// the order of the batch.
LlamaContext::Pass LlamaContext::forward(std::span<const BatchToken> tokens) {
    STATOR_CHECK(tokens.size() <= scheduler_.step_tokens, "a step's batch fits its buffer");
    kept_logits_.clear();
    last_run_ = 0;
    for (std::size_t begin = 0; begin < tokens.size();) {
        std::size_t end = begin + 1;
        const bool rows = tokens[begin].row != nullptr;
        while (end < tokens.size() && (tokens[end].row != nullptr) == rows) ++end;
        last_run_ = static_cast<std::uint32_t>(begin);
        const int rc = decode_run(tokens.subspan(begin, end - begin));
        if (rc != 0) {
            undo(tokens.first(begin));
            return rc == 1 ? Pass::kNoRoom : Pass::kFailed;
        }
        llama_synchronize(context_);
        for (std::size_t i = begin; i < end && end < tokens.size(); ++i) {
            if (!tokens[i].output) continue;
            const auto row = logits(static_cast<std::uint32_t>(i));
            kept_logits_.emplace(static_cast<std::uint32_t>(i),
                                 std::vector<float>(row.begin(), row.end()));
        }
        begin = end;
    }
    return Pass::kDone;
}

int LlamaContext::decode_run(std::span<const BatchToken> run) {
    const bool rows = run.front().row != nullptr;
    if (rows && !rows_made_) {
        rows_ = llama_batch_init(static_cast<std::int32_t>(scheduler_.step_tokens),
                                 static_cast<std::int32_t>(embedding_width_), 1);
        rows_made_ = true;
    }
    llama_batch& batch = rows ? rows_ : batch_;
    for (std::size_t i = 0; i < run.size(); ++i) {
        if (rows) {
            std::memcpy(batch.embd + i * embedding_width_, run[i].row,
                        embedding_width_ * sizeof(float));
        } else {
            batch.token[i] = static_cast<llama_token>(run[i].token);
        }
        batch.pos[i] = static_cast<llama_pos>(run[i].position);
        batch.n_seq_id[i] = 1;
        batch.seq_id[i][0] = run[i].sequence;
        batch.logits[i] = run[i].output ? 1 : 0;
    }
    batch.n_tokens = static_cast<std::int32_t>(run.size());
    try {
        return llama_decode(context_, batch);
    } catch (const std::exception& e) {
        log_error("llama.cpp threw in a forward pass.", {{"what", e.what()}});
        return -1;
    }
}

/// Takes the cells back that earlier runs of a pass have filled: what a pass computes is the end of
/// each of its sequences.
void LlamaContext::undo(std::span<const BatchToken> done) {
    for (const BatchToken& t : done) {
        llama_memory_seq_rm(memory_, t.sequence, static_cast<llama_pos>(t.position), -1);
    }
}

std::span<float> LlamaContext::logits(std::uint32_t index) {
    if (const auto kept = kept_logits_.find(index); kept != kept_logits_.end()) {
        return kept->second;
    }
    float* row = llama_get_logits_ith(context_, static_cast<std::int32_t>(index - last_run_));
    STATOR_CHECK(row != nullptr, "the batch asked for these logits");
    return {row, vocab_size_};
}

void LlamaContext::clear() { llama_memory_clear(memory_, false); }

bool LlamaContext::is_end(TokenId token) const {
    return std::ranges::binary_search(end_tokens_, token);
}

std::string LlamaContext::device() const { return llama_supports_gpu_offload() ? "gpu" : "cpu"; }

}  // namespace stator::engine::llama
