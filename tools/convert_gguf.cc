// convert_gguf IN.gguf OUT.gguf TYPE [KEY=VALUE]...
//
// Writes IN's model with its weights in another quantisation (TYPE `copy` leaves them as they are),
// and with extra metadata (general.name=My-Model general.sampling.temp=0.2; a VALUE that reads as a
// number is stored as a float, any other as text). OUT appears whole or not at all: it is written
// under another name and renamed.
#include <fmt/format.h>
#include <llama.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cstdio>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <vector>

namespace {

struct Type {
    std::string_view name;
    llama_ftype ftype;
};
constexpr std::array kTypes = {
    Type{"q4_0", LLAMA_FTYPE_MOSTLY_Q4_0}, Type{"q4_1", LLAMA_FTYPE_MOSTLY_Q4_1},
    Type{"q4_k_m", LLAMA_FTYPE_MOSTLY_Q4_K_M}, Type{"q8_0", LLAMA_FTYPE_MOSTLY_Q8_0},
    Type{"f16", LLAMA_FTYPE_MOSTLY_F16}};

std::optional<llama_ftype> find_type(std::string_view name) {
    const auto* it = std::ranges::find(kTypes, name, &Type::name);
    if (it == kTypes.end()) return std::nullopt;
    return it->ftype;
}

/// "key=value" as an override of type float or text. Empty if it is not of that form or too long.
std::optional<llama_model_kv_override> parse_override(std::string_view text) {
    const auto equals = text.find('=');
    if (equals == std::string_view::npos || equals == 0) return std::nullopt;
    const std::string_view key = text.substr(0, equals);
    const std::string_view value = text.substr(equals + 1);
    llama_model_kv_override out{};
    if (key.size() >= sizeof out.key || value.size() >= sizeof out.val_str) return std::nullopt;
    std::ranges::copy(key, out.key);
    double number = 0;
    const auto [end, ec] = std::from_chars(value.data(), value.data() + value.size(), number);
    if (ec == std::errc{} && end == value.data() + value.size()) {
        out.tag = LLAMA_KV_OVERRIDE_TYPE_FLOAT;
        out.val_f64 = number;
    } else {
        out.tag = LLAMA_KV_OVERRIDE_TYPE_STR;
        std::ranges::copy(value, out.val_str);
    }
    return out;
}

int fail(std::string_view message) {
    fmt::print(stderr, "convert_gguf: {}\n", message);
    return 2;
}

void log_errors(ggml_log_level level, const char* text, void*) {
    if (level == GGML_LOG_LEVEL_ERROR) fmt::print(stderr, "{}", text);
}

}  // namespace

int main(int argc, char** argv) {
    if (argc < 4) return fail("usage: convert_gguf IN.gguf OUT.gguf TYPE [KEY=VALUE]...");
    const std::string in = argv[1];
    const std::string out = argv[2];
    const bool copy = argv[3] == std::string_view("copy");
    const auto type = find_type(argv[3]);
    if (!copy && !type)
        return fail(
            fmt::format("unknown type '{}', use copy, q4_0, q4_1, q4_k_m, q8_0 or f16", argv[3]));
    std::vector<llama_model_kv_override> overrides;
    for (int i = 4; i < argc; ++i) {
        const auto parsed = parse_override(argv[i]);
        if (!parsed)
            return fail(fmt::format(
                "'{}' is not of the form KEY=VALUE, or longer than 127 bytes on a side", argv[i]));
        overrides.push_back(*parsed);
    }
    overrides.push_back({});  // an empty key ends the list

    std::error_code ec;
    if (!std::filesystem::is_regular_file(in, ec)) return fail(fmt::format("{} is not a file", in));
    llama_log_set(log_errors, nullptr);
    llama_backend_init();
    auto params = llama_model_quantize_default_params();
    params.only_copy = copy;
    params.allow_requantize = true;
    if (type) params.ftype = *type;
    params.kv_overrides = overrides.data();
    const std::string partial = out + ".partial";
    if (llama_model_quantize(in.c_str(), partial.c_str(), &params) != 0) {
        std::filesystem::remove(partial, ec);
        return fail(fmt::format("llama.cpp could not convert {} (see above)", in));
    }
    std::filesystem::rename(partial, out, ec);
    if (ec) return fail(fmt::format("could not rename {} to {}: {}", partial, out, ec.message()));
    llama_backend_free();
    return 0;
}
