#include <fmt/format.h>

#include <array>

#include "stator/engine/mock/step_time.h"

namespace stator::engine::mock {
namespace {

constexpr std::string_view kNimPerformance =
    "NVIDIA NIM for LLMs, benchmarking guide 1.0.0, page Performance, version 1.8.0 "
    "(https://docs.nvidia.com/nim/benchmarking/llm/1.0.0/performance)";

// How the factors came about: the time of a KV token read in decode is its bytes over 0.8 of the
// memory's bandwidth (3.35 TB/s per H100 SXM); base, prompt token and sequence were fitted to the
// published tables, which presets_test.cc holds them to.
std::array<Preset, 3> make_presets() {
    const EncoderTime encoder{8.0, 15.0};
    return {{
        {"constant-10ms", "every step takes 10 ms, whatever it computes", "no model",
         StepTime(ConstantTime{10.0}), 131'072, 16'384},
        {"llama-3.1-8b-fp8-h100", "Llama 3.1 8B, FP8, one H100 SXM 80 GB", kNimPerformance,
         StepTime(LinearTime{4.3, 16.0, 0.2, 17.0, 24.0}, encoder), 65'536, 57'000},
        {"llama-3.3-70b-fp8-2xh100", "Llama 3.3 70B, FP8, two H100 SXM 80 GB (TP 2)",
         kNimPerformance, StepTime(LinearTime{17.5, 72.0, 1.6, 30.0, 30.0}, encoder), 163'840,
         27'000},
    }};
}

const std::array<Preset, 3>& all() {
    static const std::array<Preset, 3> presets = make_presets();
    return presets;
}

}  // namespace

std::span<const Preset> presets() { return all(); }

Result<const Preset*> find_preset(std::string_view name) {
    std::string names;
    for (const Preset& preset : all()) {
        if (preset.name == name) return &preset;
        names += (names.empty() ? "" : ", ") + std::string(preset.name);
    }
    return error(ErrorCode::kNotFound, "there is no preset \"{}\"; there are {}", name, names);
}

}  // namespace stator::engine::mock
