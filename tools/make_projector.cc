// Writes a random picture encoder for a text model, for tests and measurements without a real one:
//   make_projector TEXT_MODEL.gguf OUT.gguf [LAYERS]
#include <gguf.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <string>

#include "stator/engine/llama/projector_fixture.h"

namespace {

/// Floats of a row of the model's embeddings; 0 = it is no model's file.
std::uint32_t width_of(const char* path) {
    gguf_context* file = gguf_init_from_file(path, {.no_alloc = true, .ctx = nullptr});
    if (file == nullptr) return 0;
    std::uint32_t width = 0;
    if (const auto key = gguf_find_key(file, "general.architecture"); key >= 0) {
        const std::string name = std::string(gguf_get_val_str(file, key)) + ".embedding_length";
        if (const auto n = gguf_find_key(file, name.c_str()); n >= 0) {
            width = gguf_get_val_u32(file, n);
        }
    }
    gguf_free(file);
    return width;
}

}  // namespace

int main(int argc, char** argv) {
    if (argc != 3 && argc != 4) {
        std::fprintf(stderr, "usage: make_projector TEXT_MODEL.gguf OUT.gguf [LAYERS]\n");
        return 2;
    }
    const std::uint32_t width = width_of(argv[1]);
    if (width == 0) {
        std::fprintf(stderr, "%s does not say how wide its embeddings are\n", argv[1]);
        return 1;
    }
    stator::engine::ProjectorShape shape{.text_width = width};
    // More of them: as slow as those of real models.
    if (argc == 4)
        shape.layers = static_cast<std::uint32_t>(std::clamp(std::atoi(argv[3]), 1, 999));
    const auto ok = stator::engine::write_random_projector(argv[2], shape);
    if (!ok) std::fprintf(stderr, "%s\n", ok.error().message.c_str());
    return ok ? 0 : 1;
}
