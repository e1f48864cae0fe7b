#include <ggml.h>
#include <gguf.h>
#include <gtest/gtest.h>
#include <stdlib.h>

#include <fstream>
#include <sstream>
#include <stdexcept>
#include <string_view>

#include "stator/model/byte_names.h"
#include "stator/model/tiny_gguf.h"

namespace stator::model {

namespace {

// GGUF's token types (llama.cpp: llama_token_type).
constexpr std::int32_t kNormal = 1;
constexpr std::int32_t kUnknown = 2;
constexpr std::int32_t kControl = 3;
constexpr std::int32_t kUserDefined = 4;
constexpr std::int32_t kByte = 6;

struct Tokens {
    std::vector<std::string> texts;
    std::vector<std::int32_t> types;
    std::vector<float> scores;

    void add(std::string text, std::int32_t type, float score = 0) {
        texts.push_back(std::move(text));
        types.push_back(type);
        scores.push_back(score);
    }
};

void set_strings(gguf_context* gguf, const char* key, const std::vector<std::string>& values) {
    std::vector<const char*> pointers;
    for (const std::string& v : values) pointers.push_back(v.c_str());
    gguf_set_arr_str(gguf, key, pointers.data(), pointers.size());
}

void write_gguf(const std::string& path, const std::string& tokenizer, const Tokens& tokens,
                const ChangeGguf& change) {
    gguf_context* gguf = gguf_init_empty();
    gguf_set_val_str(gguf, "general.architecture", "llama");
    gguf_set_val_u32(gguf, "llama.context_length", 512);
    gguf_set_val_str(gguf, "tokenizer.ggml.model", tokenizer.c_str());
    set_strings(gguf, "tokenizer.ggml.tokens", tokens.texts);
    gguf_set_arr_data(gguf, "tokenizer.ggml.token_type", GGUF_TYPE_INT32, tokens.types.data(),
                      tokens.types.size());
    gguf_set_arr_data(gguf, "tokenizer.ggml.scores", GGUF_TYPE_FLOAT32, tokens.scores.data(),
                      tokens.scores.size());
    if (change) change(gguf);

    ggml_context* ggml =
        ggml_init({.mem_size = 64 * 1024, .mem_buffer = nullptr, .no_alloc = false});
    ggml_tensor* tensor = ggml_new_tensor_1d(ggml, GGML_TYPE_F32, 32);
    ggml_set_name(tensor, "weights");
    ggml_set_zero(tensor);
    gguf_add_tensor(gguf, tensor);
    const bool written = gguf_write_to_file(gguf, path.c_str(), false);
    ggml_free(ggml);
    gguf_free(gguf);
    if (!written) throw std::runtime_error("can't write " + path);
}

}  // namespace

TemporaryFolder::TemporaryFolder() {
    std::string name = (std::filesystem::temp_directory_path() / "stator-model-XXXXXX").string();
    if (mkdtemp(name.data()) == nullptr) throw std::runtime_error("can't make a temporary folder");
    path_ = name;
}

TemporaryFolder::~TemporaryFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
}

std::string TemporaryFolder::file(const std::string& name) const { return (path_ / name).string(); }

void write_bpe_gguf(const std::string& path, const ChangeGguf& change) {
    Tokens tokens;
    for (unsigned b = 0; b < 256; ++b) tokens.add(byte_name(b), kNormal);
    for (const char* merged : {"he", "ll", "hell", "hello", "\u0120w"}) tokens.add(merged, kNormal);
    tokens.add("<|im_start|>", kControl);
    tokens.add("<|im_end|>", kControl);
    tokens.add("<｜User｜>", kUserDefined);
    tokens.add("<think>", kUserDefined);
    write_gguf(path, "gpt2", tokens, [&](gguf_context* gguf) {
        gguf_set_val_str(gguf, "tokenizer.ggml.pre", "gpt-2");
        set_strings(gguf, "tokenizer.ggml.merges", {"h e", "l l", "he ll", "hell o", "\u0120 w"});
        gguf_set_val_u32(gguf, "tokenizer.ggml.bos_token_id", kBpeStart);
        gguf_set_val_u32(gguf, "tokenizer.ggml.eos_token_id", kBpeStart + 1);
        if (change) change(gguf);
    });
}

void write_spm_gguf(const std::string& path) {
    Tokens tokens;
    tokens.add("<unk>", kUnknown);
    tokens.add("<s>", kControl);
    tokens.add("</s>", kControl);
    for (unsigned b = 0; b < 256; ++b) {
        constexpr std::string_view kHex = "0123456789ABCDEF";
        tokens.add(std::string("<0x") + kHex[b / 16] + kHex[b % 16] + ">", kByte);
    }
    tokens.add("▁", kNormal, -1);
    for (const char* letter : {"a", "b", "c"}) tokens.add(letter, kNormal, -2);
    tokens.add("▁a", kNormal, -0.5F);
    tokens.add("ab", kNormal, -0.6F);
    write_gguf(path, "llama", tokens, [](gguf_context* gguf) {
        gguf_set_val_bool(gguf, "tokenizer.ggml.add_bos_token", true);
    });
}

std::string read_file(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    std::ostringstream bytes;
    bytes << file.rdbuf();
    return bytes.str();
}

void write_file(const std::string& path, std::string_view bytes) {
    std::ofstream(path, std::ios::binary | std::ios::trunc) << bytes;
}

TEST(TinyGguf, WritesWhatGgmlReads) {
    const TemporaryFolder folder;
    write_bpe_gguf(folder.file("a.gguf"));
    gguf_context* gguf =
        gguf_init_from_file(folder.file("a.gguf").c_str(), {.no_alloc = true, .ctx = nullptr});
    ASSERT_NE(gguf, nullptr);
    EXPECT_EQ(gguf_get_n_tensors(gguf), 1);
    gguf_free(gguf);
    EXPECT_EQ(byte_name(' '), "\u0120");
    EXPECT_EQ(byte_name('a'), "a");
}

}  // namespace stator::model
