#include "stator/model/artifacts.h"

#include <gguf.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <filesystem>
#include <random>

#include "stator/model/sha256.h"
#include "stator/model/tiny_gguf.h"
#include "stator/text/byte_tokenizer.h"

namespace stator::model {
namespace {

using testing::HasSubstr;
using text::SpecialTokens;
using text::TokenId;

protocol::Artifact name_of(const std::string& kind, std::string_view bytes) {
    return {.kind = kind, .sha256 = sha256_hex(bytes), .bytes = bytes.size()};
}

protocol::ModelCard card_of(const std::string& kind, std::string_view bytes) {
    protocol::ModelCard card;
    card.tokenizer = name_of(kind, bytes);
    return card;
}

std::string vocabulary_or_fail(const std::string& path) {
    auto bytes = vocabulary_artifact(path);
    if (!bytes) throw std::runtime_error(bytes.error().message);
    return *std::move(bytes);
}

std::vector<TokenId> encode(const text::Tokenizer& t, std::string_view text, SpecialTokens special,
                            bool bos) {
    std::vector<TokenId> ids;
    EXPECT_TRUE(t.encode(text, special, bos, ids).has_value());
    return ids;
}

void expect_same(const text::Tokenizer& a, const text::Tokenizer& b,
                 const std::vector<std::string>& texts) {
    ASSERT_EQ(a.vocab_size(), b.vocab_size());
    for (TokenId id = 0; id < a.vocab_size(); ++id) {
        ASSERT_EQ(a.bytes(id), b.bytes(id)) << id;
        ASSERT_EQ(a.spelling(id), b.spelling(id)) << id;
        ASSERT_EQ(a.is_control(id), b.is_control(id)) << id;
        ASSERT_EQ(a.is_end(id), b.is_end(id)) << id;
    }
    EXPECT_TRUE(std::ranges::equal(a.special_texts(), b.special_texts()));
    for (const std::string& text : texts) {
        for (const auto special : {SpecialTokens::kAsText, SpecialTokens::kParse}) {
            const auto ids = encode(a, text, special, true);
            EXPECT_FALSE(ids.empty());
            EXPECT_EQ(ids, encode(b, text, special, true)) << text;
        }
    }
}

void expect_same_from_artifact(const std::string& path, const std::vector<std::string>& texts) {
    const auto file = GgufModel::open(path);
    ASSERT_TRUE(file.has_value()) << file.error().message;
    const std::string bytes = vocabulary_or_fail(path);
    auto card = card_of("gguf-vocabulary", bytes);
    card.vocab_size = (*file)->facts().vocab_size;
    const auto loaded = load_text_model(card, bytes, "", "/nowhere");
    ASSERT_TRUE(loaded.has_value()) << loaded.error().message;
    EXPECT_EQ(loaded->chat_template, nullptr);
    expect_same((*file)->tokenizer(), *loaded->tokenizer, texts);
}

Error load_error(const protocol::ModelCard& card, std::string_view tokenizer,
                 std::string_view chat_template = "") {
    const auto loaded = load_text_model(card, tokenizer, chat_template, "/nowhere");
    if (loaded) {
        ADD_FAILURE() << "it was loaded";
        return {};
    }
    return loaded.error();
}

class Artifacts : public testing::Test {
  protected:
    Artifacts() { write_bpe_gguf(path_); }
    TemporaryFolder folder_;
    std::string path_ = folder_.file("model.gguf");
};

TEST_F(Artifacts, TheVocabularyIsTheFilesOwn) {
    expect_same_from_artifact(path_, {"hello world", "<|im_start|>user<think>", "h\xC3\xA9\n"});
    const std::string spm = folder_.file("spm.gguf");
    write_spm_gguf(spm);
    expect_same_from_artifact(spm, {"ab a b", "<s>c</s>", "\xE6\x97\xA5"});
}

TEST_F(Artifacts, EqualModelsGiveEqualVocabularies) {
    const std::string other = folder_.file("other.gguf");
    write_bpe_gguf(other);
    EXPECT_EQ(vocabulary_or_fail(path_), vocabulary_or_fail(other));
    write_bpe_gguf(other, [](gguf_context* g) { gguf_set_val_bool(g, "x", true); });
    EXPECT_NE(vocabulary_or_fail(path_), vocabulary_or_fail(other));
    write_file(other, vocabulary_or_fail(path_));
    EXPECT_EQ(vocabulary_or_fail(path_), vocabulary_or_fail(other)) << "of itself";
    EXPECT_EQ(vocabulary_artifact(folder_.file("none")).error().code, ErrorCode::kNotFound);
}

TEST_F(Artifacts, WhatIsNotTheCardsIsDataLoss) {
    const std::string bytes = vocabulary_or_fail(path_);
    auto card = card_of("gguf-vocabulary", bytes);
    std::string changed = bytes;
    changed.back() = static_cast<char>(changed.back() ^ 1);
    EXPECT_EQ(load_error(card, changed).code, ErrorCode::kDataLoss);
    EXPECT_EQ(load_error(card, bytes + "x").code, ErrorCode::kDataLoss);
    EXPECT_EQ(load_error(card, "").code, ErrorCode::kDataLoss);
    EXPECT_EQ(load_error(card, bytes, "{}").code, ErrorCode::kDataLoss) << "no template named";
    card.vocab_size = 1;
    EXPECT_THAT(load_error(card, bytes).message, HasSubstr("its card says 1"));
    card.vocab_size = 0;
    card.chat_template = name_of("chat-template", "{}");
    EXPECT_EQ(load_error(card, bytes, "").code, ErrorCode::kDataLoss) << "the template is missing";
    card.tokenizer.kind = "sentencepiece";
    const Error unknown = load_error(card, bytes);
    EXPECT_EQ(unknown.code, ErrorCode::kUnsupported);
    EXPECT_THAT(unknown.message, HasSubstr("sentencepiece"));
}

TEST_F(Artifacts, ATruncatedVocabularyIsAnError) {
    const std::string bytes = vocabulary_or_fail(path_);
    constexpr std::size_t kPadding = 32;  // up to GGUF's alignment: nothing is lost with it
    for (std::size_t size = 0; size + kPadding <= bytes.size(); size += size < 200 ? 1 : 97) {
        const std::string cut = bytes.substr(0, size);
        const Error e = load_error(card_of("gguf-vocabulary", cut), cut);
        EXPECT_EQ(e.message.find("/proc/"), std::string::npos) << e.message;
    }
}

TEST_F(Artifacts, AWholeModelIsNoVocabulary) {
    const std::string bytes = read_file(path_);
    EXPECT_THAT(load_error(card_of("gguf-vocabulary", bytes), bytes).message,
                HasSubstr("has tensors"));
}

TEST_F(Artifacts, ListsOfAnotherTypeOrLengthAreErrors) {
    const std::array<std::int32_t, 2> two{};
    const char* texts[] = {"a", "b"};
    const std::vector<ChangeGguf> changes = {
        [&](gguf_context* g) {
            gguf_set_arr_data(g, "tokenizer.ggml.scores", GGUF_TYPE_FLOAT32, two.data(), 2);
        },
        [&](gguf_context* g) {
            gguf_set_arr_data(g, "tokenizer.ggml.token_type", GGUF_TYPE_INT32, two.data(), 2);
        },
        [&](gguf_context* g) { gguf_set_arr_str(g, "tokenizer.ggml.scores", texts, 2); },
        [&](gguf_context* g) { gguf_set_arr_str(g, "tokenizer.ggml.token_type", texts, 2); },
        [&](gguf_context* g) {
            gguf_set_arr_data(g, "tokenizer.ggml.merges", GGUF_TYPE_INT32, two.data(), 2);
        },
        [&](gguf_context* g) { gguf_set_val_u32(g, "tokenizer.ggml.merges", 2); },
        [&](gguf_context* g) { gguf_set_val_u32(g, "tokenizer.ggml.token_type", 2); },
        [&](gguf_context* g) { gguf_set_arr_str(g, "tokenizer.ggml.suppress_tokens", texts, 2); },
    };
    for (std::size_t i = 0; i < changes.size(); ++i) {
        write_bpe_gguf(path_, changes[i]);
        const std::string bytes = vocabulary_or_fail(path_);
        SCOPED_TRACE(i);
        load_error(card_of("gguf-vocabulary", bytes), bytes);
    }
}

/// Nothing here may crash; what still loads must still be usable.
TEST_F(Artifacts, DamagedVocabulariesDoNotCrash) {
    const std::string bytes = vocabulary_or_fail(path_);
    std::mt19937 random(7);  // NOLINT: the same damage in every run
    int refused = 0;
    for (int i = 0; i < 300; ++i) {
        std::string damaged = bytes;
        for (int n = 0; n < 3; ++n) {
            damaged[random() % damaged.size()] = static_cast<char>(random() & 0xFFU);
        }
        const auto loaded =
            load_text_model(card_of("gguf-vocabulary", damaged), damaged, "", "/nowhere");
        refused += loaded ? 0 : 1;
        std::vector<TokenId> ids;
        if (loaded) (void)loaded->tokenizer->encode("hello <|im_end|>", {}, true, ids);
    }
    EXPECT_GT(refused, 20);
    for (const char* garbage : {"GGUF", "{}",
                                "\x7F"
                                "ELF"}) {
        load_error(card_of("gguf-vocabulary", garbage), garbage);
    }
}

TEST(ByteTokenizerArtifact, KeepsIds) {
    const std::vector<std::string> specials = {"<a>", "<|end|>", "<longer>", "\"\n"};
    const std::string bytes = byte_tokenizer_artifact(specials);
    const auto loaded = load_text_model(card_of("byte-tokenizer", bytes), bytes, "", "/nowhere");
    ASSERT_TRUE(loaded.has_value()) << loaded.error().message;
    expect_same(text::ByteTokenizer({"<a>", "<longer>", "\"\n"}), *loaded->tokenizer,
                {"x<longer><a>", "<|end|>"});
    for (const char* bad :
         {"", "[]", "{}", R"({"special":{}})", R"({"special":[""]})", R"({"special":[1]})",
          R"({"special":["a","a"]})", R"({"special":["<|end|>"]})", R"({"special":["a")"}) {
        EXPECT_EQ(load_error(card_of("byte-tokenizer", bad), bad).code, ErrorCode::kDataLoss)
            << bad;
    }
    const std::string large(2 << 20, ' ');
    EXPECT_EQ(load_error(card_of("byte-tokenizer", large), large).code, ErrorCode::kTooLarge);
}

TEST(ChatTemplateArtifact, IsReadBack) {
    const std::string tokenizer = byte_tokenizer_artifact({});
    auto card = card_of("byte-tokenizer", tokenizer);
    const std::string bytes =
        chat_template_artifact("{{ bos_token }}\"{{ messages[0] }}{{ eos_token }}", "<s>", "</s>");
    card.chat_template = name_of("chat-template", bytes);
    const auto loaded = load_text_model(card, tokenizer, bytes, "/nowhere");
    ASSERT_TRUE(loaded.has_value()) << loaded.error().message;
    EXPECT_EQ(loaded->chat_template->render(R"({"messages":["hi"]})").value(), "<s>\"hi</s>");

    for (const char* bad : {"[]", "{", R"({"template":"a","bos":1,"eos":""})"}) {
        card.chat_template = name_of("chat-template", bad);
        EXPECT_EQ(load_error(card, tokenizer, bad).code, ErrorCode::kDataLoss) << bad;
    }
    const std::string broken = chat_template_artifact("{% if %}", "", "");
    card.chat_template = name_of("chat-template", broken);
    EXPECT_EQ(load_error(card, tokenizer, broken).code, ErrorCode::kInvalidArgument);
    card.chat_template->kind = "jinja3";
    EXPECT_EQ(load_error(card, tokenizer, broken).code, ErrorCode::kUnsupported);
}

TEST(WeightsDigest, ChangesWithSizeHeadAndLastByte) {
    const TemporaryFolder folder;
    const std::string path = folder.file("w.gguf");
    std::string bytes(40U << 20U, 'w');
    const auto digest = [&] {
        write_file(path, bytes);
        return weights_digest(path).value();
    };
    const std::string first = digest();
    EXPECT_THAT(first, testing::MatchesRegex("sha256-sample:[0-9a-f]+"));
    EXPECT_EQ(first.size(), std::string("sha256-sample:").size() + 64);
    EXPECT_EQ(digest(), first);
    bytes[100] = 'x';
    EXPECT_NE(digest(), first);
    bytes[100] = 'w';
    bytes.back() = 'x';
    EXPECT_NE(digest(), first);
    bytes.back() = 'w';
    bytes += 'w';
    EXPECT_NE(digest(), first);
    EXPECT_EQ(weights_digest(folder.file("none")).error().code, ErrorCode::kNotFound);
    EXPECT_EQ(weights_digest("/dev/null").error().code, ErrorCode::kInvalidArgument);
}

TEST(WeightsDigest, CoversAllPartsOfASplitModel) {
    const TemporaryFolder folder;
    const std::string path = folder.file("m-00001-of-00002.gguf");
    write_file(path, "one");
    EXPECT_EQ(weights_digest(path).error().code, ErrorCode::kNotFound);
    write_file(folder.file("m-00002-of-00002.gguf"), "two");
    const std::string first = weights_digest(path).value();
    write_file(folder.file("m-00002-of-00002.gguf"), "2");
    EXPECT_NE(weights_digest(path).value(), first);
}

TEST(RealArtifacts, GiveTheFilesOwnTokenizer) {
    const char* path = std::getenv("STATOR_MODEL");
    if (path == nullptr || *path == '\0') GTEST_SKIP() << "STATOR_MODEL names no model file";
    const auto data = std::filesystem::path(__FILE__).parent_path() / "../../test/data";
    const auto file = GgufModel::open(path);
    ASSERT_TRUE(file.has_value());
    std::vector<std::string> texts = {read_file((data / "english.txt").string()),
                                      read_file((data / "prompts.txt").string())};
    std::string specials;
    for (const std::string& s : (*file)->tokenizer().special_texts()) specials += "a" + s + " ";
    texts.push_back(specials);
    texts.push_back((*file)->facts().chat_template + "\xE6\x97\xA5 \xF0\x9F\x98\x80");
    expect_same_from_artifact(path, texts);
    EXPECT_LT(vocabulary_or_fail(path).size(), 64U << 20U);
    EXPECT_TRUE(weights_digest(path).has_value());
}

}  // namespace
}  // namespace stator::model
