#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "stator/base/error.h"
#include "stator/protocol/handoff.h"

struct llama_model;
struct mtmd_context;

namespace stator::engine::llama {

/// What a picture has become: pieces in order, and the rows of all of them, one behind the other.
struct Encoded {
    std::vector<protocol::MediaPiece> pieces;
    std::vector<float> rows;  ///< width() each
    std::uint32_t count = 0;  ///< of rows

    [[nodiscard]] std::uint64_t bytes() const { return rows.size() * sizeof(float); }
};

/// llama.cpp's encoder of pictures (mtmd). Not thread-safe; different ones are independent.
class MediaEncoder {
  public:
    /// `text_model` outlives it; its weights are not needed. Errors: kNotFound; kInvalidArgument
    /// (no encoder, or of another text model's width); kUnsupported (no vision; a model that gives
    /// rows of a picture positions in two dimensions or lets them see each other backwards: its
    /// prompt could not be cut into steps).
    [[nodiscard]] static Result<std::unique_ptr<MediaEncoder>> load(const std::string& path,
                                                                    const llama_model* text_model,
                                                                    int threads);
    ~MediaEncoder();
    MediaEncoder(const MediaEncoder&) = delete;
    MediaEncoder& operator=(const MediaEncoder&) = delete;

    /// Asked before each frame: whether to go on.
    using GoOn = std::function<bool(std::uint32_t frames_done)>;
    /// A video's frames are encoded like pictures in a row. kInvalidArgument, param "media": the
    /// content is not what it says, or becomes too much; kCancelled; kInternal.
    [[nodiscard]] Result<Encoded> encode(const protocol::MediaContent& content,
                                         const protocol::Digest& digest, const GoOn& go_on);
    [[nodiscard]] std::uint32_t width() const { return width_; }
    /// Of embeddings: "f32:<width>:<digest of the encoder's file>".
    [[nodiscard]] const std::string& layout() const { return layout_; }

  private:
    MediaEncoder() = default;
    [[nodiscard]] Result<void> encode_frame(const unsigned char* pixels, std::uint32_t width,
                                            std::uint32_t height, const char* name, Encoded& out);

    mtmd_context* context_ = nullptr;
    std::uint32_t width_ = 0;
    std::string layout_;
};

/// A text model without its weights, for an encoder beside no model: vocabulary and figures.
class WeightlessModel {
  public:
    /// kNotFound, kInvalidArgument.
    [[nodiscard]] static Result<std::unique_ptr<WeightlessModel>> load(const std::string& path);
    ~WeightlessModel();
    WeightlessModel(const WeightlessModel&) = delete;
    WeightlessModel& operator=(const WeightlessModel&) = delete;

    [[nodiscard]] const llama_model* model() const { return model_; }
    /// Longest sequence that the model was trained for.
    [[nodiscard]] std::uint32_t trained_tokens() const;

  private:
    WeightlessModel() = default;
    llama_model* model_ = nullptr;
};

}  // namespace stator::engine::llama
