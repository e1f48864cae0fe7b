#include "stator/engine/llama/projector_fixture.h"

#include <fmt/format.h>
#include <ggml.h>
#include <gguf.h>

#include <cmath>
#include <initializer_list>
#include <memory>
#include <random>

namespace stator::engine {
namespace {

class Writer {
  public:
    explicit Writer(std::uint32_t seed, std::size_t memory)
        : random_(seed),
          tensors_(ggml_init({.mem_size = memory, .mem_buffer = nullptr, .no_alloc = false})),
          file_(gguf_init_empty()) {}
    ~Writer() {
        gguf_free(file_);
        ggml_free(tensors_);
    }
    Writer(const Writer&) = delete;
    Writer& operator=(const Writer&) = delete;

    gguf_context* file() { return file_; }

    /// Normal numbers of this deviation; `shape` with the fastest dimension first.
    void random(const std::string& name, std::initializer_list<std::int64_t> shape, float deviation,
                ggml_type type = GGML_TYPE_F16) {
        std::normal_distribution<float> normal(0.0F, deviation);
        fill(name, shape, type, [&] { return normal(random_); });
    }
    void constant(const std::string& name, std::int64_t n, float value) {
        fill(name, {n}, GGML_TYPE_F32, [value] { return value; });
    }

  private:
    template <class Value>
    void fill(const std::string& name, std::initializer_list<std::int64_t> shape, ggml_type type,
              Value value) {
        ggml_tensor* t =
            ggml_new_tensor(tensors_, type, static_cast<int>(shape.size()), shape.begin());
        ggml_set_name(t, name.c_str());
        for (std::int64_t i = 0; i < ggml_nelements(t); ++i) {
            if (type == GGML_TYPE_F16) {
                static_cast<ggml_fp16_t*>(t->data)[i] = ggml_fp32_to_fp16(value());
            } else {
                static_cast<float*>(t->data)[i] = value();
            }
        }
        gguf_add_tensor(file_, t);
    }

    std::mt19937 random_;
    ggml_context* tensors_;
    gguf_context* file_;
};

void describe(gguf_context* f, const ProjectorShape& s, std::int64_t inner) {
    gguf_set_val_str(f, "general.architecture", "clip");
    gguf_set_val_str(f, "general.name", "random pictures");
    gguf_set_val_u32(f, "general.file_type", 1);
    gguf_set_val_bool(f, "clip.has_vision_encoder", true);
    gguf_set_val_str(f, "clip.projector_type", "mlp");
    gguf_set_val_bool(f, "clip.use_gelu", true);
    gguf_set_val_u32(f, "clip.vision.embedding_length", s.width);
    gguf_set_val_u32(f, "clip.vision.feed_forward_length", static_cast<std::uint32_t>(inner));
    gguf_set_val_u32(f, "clip.vision.block_count", s.layers);
    gguf_set_val_u32(f, "clip.vision.projection_dim", s.text_width);
    gguf_set_val_u32(f, "clip.vision.image_size", s.image);
    gguf_set_val_u32(f, "clip.vision.patch_size", s.patch);
    gguf_set_val_u32(f, "clip.vision.attention.head_count", s.heads);
    gguf_set_val_f32(f, "clip.vision.attention.layer_norm_epsilon", 1e-6F);
    const float half[] = {0.5F, 0.5F, 0.5F};
    gguf_set_arr_data(f, "clip.vision.image_mean", GGUF_TYPE_FLOAT32, half, 3);
    gguf_set_arr_data(f, "clip.vision.image_std", GGUF_TYPE_FLOAT32, half, 3);
}

}  // namespace

Result<void> write_random_projector(const std::string& path, const ProjectorShape& s) {
    const std::int64_t e = s.width;
    const std::int64_t inner = 2 * e;
    const std::int64_t text = s.text_width;
    const std::int64_t patches = (s.image / s.patch) * (s.image / s.patch);
    const auto spread = [](std::int64_t inputs) {
        return 1.0F / std::sqrt(static_cast<float>(inputs));
    };
    const std::int64_t floats = 3 * e * s.patch * s.patch + (patches + 2) * e +
                                s.layers * (4 * e * e + 2 * e * inner + 12 * e + inner) +
                                text * (e + text + 2) + 8 * e;
    Writer w(s.seed, static_cast<std::size_t>(floats) * 4 + (1U << 20));
    describe(w.file(), s, inner);
    w.random("v.patch_embd.weight", {s.patch, s.patch, 3, e}, 0.05F);
    w.random("v.class_embd", {e}, 0.02F, GGML_TYPE_F32);
    w.random("v.position_embd.weight", {e, patches + 1}, 0.02F, GGML_TYPE_F32);
    for (std::uint32_t i = 0; i < s.layers; ++i) {
        const std::string block = fmt::format("v.blk.{}.", i);
        for (const char* name : {"attn_q", "attn_k", "attn_v", "attn_out"}) {
            w.random(block + name + ".weight", {e, e}, spread(e));
            w.constant(block + name + ".bias", e, 0);
        }
        w.random(block + "ffn_up.weight", {e, inner}, spread(e));
        w.constant(block + "ffn_up.bias", inner, 0);
        w.random(block + "ffn_down.weight", {inner, e}, spread(inner));
        w.constant(block + "ffn_down.bias", e, 0);
        for (const char* name : {"ln1", "ln2"}) {
            w.constant(block + name + ".weight", e, 1);
            w.constant(block + name + ".bias", e, 0);
        }
    }
    for (const char* name : {"v.pre_ln", "v.post_ln"}) {
        w.constant(std::string(name) + ".weight", e, 1);
        w.constant(std::string(name) + ".bias", e, 0);
    }
    w.random("mm.0.weight", {e, text}, spread(e));
    w.constant("mm.0.bias", text, 0);
    w.random("mm.2.weight", {text, text}, s.scale * spread(text));
    w.constant("mm.2.bias", text, 0);
    if (!gguf_write_to_file(w.file(), path.c_str(), false)) {
        return error(ErrorCode::kUnavailable, "{} can't be written.", path);
    }
    return {};
}

}  // namespace stator::engine
