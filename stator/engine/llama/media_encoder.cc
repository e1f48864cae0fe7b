#include "stator/engine/llama/media_encoder.h"

#include <fmt/format.h>
#include <llama.h>
#include <mtmd.h>
#include <unistd.h>

#include <algorithm>
#include <exception>
#include <mutex>

#include "stator/base/log.h"
#include "stator/engine/llama/media_rows.h"
#include "stator/model/artifacts.h"
#include "stator/model/llama_log.h"

namespace stator::engine::llama {
namespace {

void route_mtmd_log() {
    static std::once_flag once;
    std::call_once(once, [] {
        mtmd_log_set(
            [](ggml_log_level level, const char* text, void*) {
                std::string_view line(text);
                while (line.ends_with('\n')) line.remove_suffix(1);
                if (line.empty() || level < GGML_LOG_LEVEL_WARN) return;
                log_debug("mtmd", {{"text", line}});
            },
            nullptr);
    });
}

std::string hex(const protocol::Digest& digest) {
    std::string out;
    for (const std::uint8_t byte : digest) out += fmt::format("{:02x}", byte);
    return out;
}

tl::unexpected<Error> bad_media(std::string_view why) {
    auto refused = error(ErrorCode::kInvalidArgument, "The media item can't be encoded: {}.", why);
    refused.value().param = "media";
    return refused;
}

/// Text of two pieces in a row is one piece.
void add_text(std::vector<protocol::MediaPiece>& pieces, std::span<const llama_token> text) {
    if (text.empty()) return;
    if (pieces.empty() || pieces.back().text.empty()) pieces.emplace_back();
    auto& to = pieces.back().text;
    to.insert(to.end(), text.begin(), text.end());
}

}  // namespace

Result<std::unique_ptr<MediaEncoder>> MediaEncoder::load(const std::string& path,
                                                         const llama_model* text_model,
                                                         int threads) {
    route_mtmd_log();
    if (access(path.c_str(), R_OK) != 0) {
        return error(ErrorCode::kNotFound, "The encoder's file {} does not exist or can't be read.",
                     path);
    }
    auto params = mtmd_context_params_default();
    params.n_threads = threads;
    params.print_timings = false;
    params.warmup = false;
    auto self = std::unique_ptr<MediaEncoder>(new MediaEncoder);
    try {
        self->context_ = mtmd_init_from_file(path.c_str(), text_model, params);
    } catch (const std::exception&) {
        self->context_ = nullptr;
    }
    if (self->context_ == nullptr) {
        return error(ErrorCode::kInvalidArgument,
                     "llama.cpp can't load the encoder {}: it is damaged, of a kind that this "
                     "build does not know, or made for another text model.",
                     path);
    }
    const auto unsupported = [&](std::string_view why) {
        return error(ErrorCode::kUnsupported, "The encoder {} can't be used here: {}.", path, why);
    };
    if (!mtmd_support_vision(self->context_)) return unsupported("it encodes no pictures");
    if (mtmd_decode_use_mrope(self->context_)) {
        return unsupported("its model gives pictures positions in two dimensions (M-RoPE)");
    }
    if (mtmd_decode_use_non_causal(self->context_, nullptr)) {
        return unsupported("its model lets a picture's rows attend to later ones");
    }
    self->width_ = static_cast<std::uint32_t>(std::max(0, llama_model_n_embd_inp(text_model)));
    if (self->width_ == 0) return unsupported("the text model does not say its width");
    auto digest = model::weights_digest(path);
    if (!digest) return tl::unexpected<Error>(std::move(digest.error()));
    self->layout_ = embeddings_layout_prefix(self->width_) + *digest;
    return self;
}

MediaEncoder::~MediaEncoder() {
    if (context_ != nullptr) mtmd_free(context_);
}

Result<Encoded> MediaEncoder::encode(const protocol::MediaContent& content,
                                     const protocol::Digest& digest, const GoOn& go_on) {
    const std::uint64_t frame_bytes = std::uint64_t{content.width} * content.height * 3;
    if (content.width == 0 || content.height == 0 || content.frames == 0 ||
        content.width > 65'536 || content.height > 65'536 ||
        content.pixels.size() / content.frames != frame_bytes ||
        content.pixels.size() % content.frames != 0) {
        return bad_media("its pixels do not match its size");
    }
    Encoded out;
    for (std::uint32_t frame = 0; frame < content.frames; ++frame) {
        if (!go_on(frame)) return error(ErrorCode::kCancelled, "It was cancelled.");
        const auto* pixels =
            reinterpret_cast<const unsigned char*>(content.pixels.data()) + frame * frame_bytes;
        const std::string name = fmt::format("{}:{}", hex(digest), frame);
        auto ok = encode_frame(pixels, content.width, content.height, name.c_str(), out);
        if (!ok) return tl::unexpected<Error>(std::move(ok.error()));
        if (out.pieces.size() > protocol::kMaxMediaPieces) {
            return bad_media("it becomes too many pieces");
        }
    }
    if (out.count == 0) return bad_media("the model makes nothing of it");
    return out;
}

Result<void> MediaEncoder::encode_frame(const unsigned char* pixels, std::uint32_t width,
                                        std::uint32_t height, const char* name, Encoded& out) {
    const mtmd::bitmap bitmap(mtmd_bitmap_init(width, height, pixels));
    bitmap.set_id(name);
    const mtmd_input_part part{.text = nullptr, .bitmap = bitmap.ptr.get()};
    const mtmd_input_part* parts[] = {&part};
    const mtmd::input_chunks chunks(mtmd_input_chunks_init());
    if (mtmd_tokenize_from_parts(context_, chunks.ptr.get(), parts, 1, false) != 0) {
        return bad_media("llama.cpp can't prepare it");
    }
    for (std::size_t i = 0; i < chunks.size(); ++i) {
        const mtmd_input_chunk* chunk = chunks[i];
        const std::size_t n = mtmd_input_chunk_get_n_tokens(chunk);
        if (mtmd_input_chunk_get_type(chunk) == MTMD_INPUT_CHUNK_TYPE_TEXT) {
            std::size_t count = 0;
            const llama_token* text = mtmd_input_chunk_get_tokens_text(chunk, &count);
            add_text(out.pieces, {text, count});
            continue;
        }
        if (mtmd_input_chunk_get_n_pos(chunk) != static_cast<llama_pos>(n)) {
            return error(ErrorCode::kUnsupported, "The encoder gives rows positions of their own.");
        }
        if (mtmd_encode_chunk(context_, chunk) != 0) {
            return error(ErrorCode::kInternal, "llama.cpp could not encode a picture.");
        }
        const float* rows = mtmd_get_output_embd(context_);
        out.rows.insert(out.rows.end(), rows, rows + n * width_);
        out.pieces.push_back({.text = {}, .rows = static_cast<std::uint32_t>(n)});
        out.count += static_cast<std::uint32_t>(n);
    }
    return {};
}

Result<std::unique_ptr<WeightlessModel>> WeightlessModel::load(const std::string& path) {
    model::route_llama_log();
    llama_backend_init();
    auto params = llama_model_default_params();
    params.no_alloc = true;
    params.load_mode = LLAMA_LOAD_MODE_NONE;
    params.n_gpu_layers = 0;
    auto self = std::unique_ptr<WeightlessModel>(new WeightlessModel);
    try {
        self->model_ = llama_model_load_from_file(path.c_str(), params);
    } catch (const std::exception&) {
        self->model_ = nullptr;
    }
    if (self->model_ == nullptr) {
        const bool there = access(path.c_str(), R_OK) == 0;
        return error(there ? ErrorCode::kInvalidArgument : ErrorCode::kNotFound,
                     "llama.cpp can't load {}: it {}.", path,
                     there ? "is damaged or of a kind this build does not know"
                           : "does not exist or can't be read");
    }
    return self;
}

WeightlessModel::~WeightlessModel() {
    if (model_ != nullptr) llama_model_free(model_);
}

std::uint32_t WeightlessModel::trained_tokens() const {
    return static_cast<std::uint32_t>(std::max(0, llama_model_n_ctx_train(model_)));
}

}  // namespace stator::engine::llama
