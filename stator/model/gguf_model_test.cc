#include "stator/model/gguf_model.h"

#include <gguf.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <rapidcheck.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <string>
#include <thread>
#include <vector>

#include "stator/model/tiny_gguf.h"
#include "stator/text/special_guard.h"

namespace stator::model {
namespace {

using testing::HasSubstr;
using text::SpecialTokens;
using text::TokenId;

Error error_of(const std::string& path) {
    auto opened = GgufModel::open(path);
    if (opened) {
        ADD_FAILURE() << path << " was opened";
        return {};
    }
    EXPECT_THAT(opened.error().message, HasSubstr(path));
    EXPECT_EQ(opened.error().message.find('\n'), std::string::npos) << opened.error().message;
    return opened.error();
}

std::shared_ptr<const GgufModel> open_or_fail(const std::string& path) {
    auto opened = GgufModel::open(path);
    if (!opened) throw std::runtime_error(opened.error().message);
    return *opened;
}

std::vector<TokenId> encode(const text::Tokenizer& t, std::string_view text,
                            SpecialTokens special = SpecialTokens::kAsText, bool bos = false) {
    std::vector<TokenId> ids;
    const auto done = t.encode(text, special, bos, ids);
    EXPECT_TRUE(done.has_value()) << done.error().message;
    return ids;
}

std::string decode(const text::Tokenizer& t, const std::vector<TokenId>& ids) {
    std::string text;
    for (const TokenId id : ids) text += t.bytes(id);
    return text;
}

class GgufFiles : public testing::Test {
  protected:
    GgufFiles() { write_bpe_gguf(path_); }

    void overwrite(std::size_t at, std::string_view bytes) {
        std::string file = read_file(path_);
        file.replace(at, bytes.size(), bytes);
        write_file(path_, file);
    }

    TemporaryFolder folder_;
    std::string path_ = folder_.file("model.gguf");
};

TEST_F(GgufFiles, WhatIsNoModelIsNamed) {
    EXPECT_EQ(error_of(folder_.file("none.gguf")).code, ErrorCode::kNotFound);
    const Error folder = error_of(folder_.file(""));
    EXPECT_EQ(folder.code, ErrorCode::kInvalidArgument);
    EXPECT_THAT(folder.message, HasSubstr("folder"));
    EXPECT_THAT(error_of("/dev/null").message, HasSubstr("regular"));

    write_file(path_, "");
    EXPECT_THAT(error_of(path_).message, HasSubstr("empty"));
    write_file(path_, "PK\x03\x04, a zip archive of some kind");
    const Error zip = error_of(path_);
    EXPECT_EQ(zip.code, ErrorCode::kInvalidArgument);
    EXPECT_THAT(zip.message, HasSubstr("begins with 'PK\\x03\\x04'"));
    write_file(path_, "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n");
    EXPECT_THAT(error_of(path_).message, HasSubstr("git lfs pull"));
}

TEST_F(GgufFiles, BrokenHeadersAreNamed) {
    overwrite(4, std::string_view("\x01\0\0\0", 4));
    EXPECT_THAT(error_of(path_).message, HasSubstr("version 1; versions 2 to 3"));
    overwrite(4, std::string_view("\x63\0\0\0", 4));
    EXPECT_EQ(error_of(path_).code, ErrorCode::kInvalidArgument);
    overwrite(4, std::string_view("\0\0\0\x03", 4));
    EXPECT_THAT(error_of(path_).message, HasSubstr("big-endian"));
    overwrite(4, std::string_view("\x03\0\0\0", 4));
    overwrite(8, std::string_view("\0\0\0\0\0\0\0\x10", 8));
    const Error absurd = error_of(path_);
    EXPECT_EQ(absurd.code, ErrorCode::kDataLoss);
    EXPECT_THAT(absurd.message, HasSubstr("1152921504606846976 tensors"));
}

TEST_F(GgufFiles, EveryTruncationIsAnError) {
    const std::string whole = read_file(path_);
    for (std::size_t size = whole.size() - 1; size > 0; --size) {
        std::filesystem::resize_file(path_, size);
        const Error e = error_of(path_);
        ASSERT_EQ(e.code, ErrorCode::kDataLoss) << size << ": " << e.message;
    }
    write_file(path_, whole);
    EXPECT_TRUE(GgufModel::open(path_).has_value());
}

TEST_F(GgufFiles, FlippedBytesNeverCrash) {
    const std::string whole = read_file(path_);
    EXPECT_TRUE(rc::check("open() returns whatever bytes are changed", [&] {
        std::string file = whole;
        for (int i = 0; i < *rc::gen::inRange(1, 4); ++i) {
            const auto at = *rc::gen::weightedOneOf<std::size_t>(
                {{1, rc::gen::inRange<std::size_t>(0, file.size())},
                 {1, rc::gen::inRange<std::size_t>(0, 128)}});
            file[at] = static_cast<char>(*rc::gen::arbitrary<unsigned char>());
        }
        write_file(path_, file);
        const auto opened = GgufModel::open(path_);
        if (opened) {
            std::vector<TokenId> ids;
            (void)(*opened)->tokenizer().encode("hello <|im_end|>\n", SpecialTokens::kParse, true,
                                                ids);
        } else {
            RC_ASSERT(!opened.error().message.empty());
        }
    }));
}

TEST_F(GgufFiles, WhatLlamaWouldAbortOnIsAnError) {
    write_bpe_gguf(path_, [](gguf_context* gguf) {
        const char* twice[] = {"a", "b", "a"};
        gguf_set_arr_str(gguf, "tokenizer.ggml.tokens", twice, 3);
    });
    EXPECT_THAT(error_of(path_).message, HasSubstr("token 2 ('a') is there twice"));
    write_bpe_gguf(path_,
                   [](gguf_context* gguf) { gguf_remove_key(gguf, "tokenizer.ggml.tokens"); });
    EXPECT_THAT(error_of(path_).message, HasSubstr("lists no tokens"));
    write_bpe_gguf(
        path_, [](gguf_context* gguf) { gguf_set_val_str(gguf, "tokenizer.ggml.model", "bert"); });
    EXPECT_THAT(error_of(path_).message, HasSubstr("'bert'; can be used: gpt2, llama"));
    write_bpe_gguf(path_,
                   [](gguf_context* gguf) { gguf_remove_key(gguf, "tokenizer.ggml.model"); });
    EXPECT_THAT(error_of(path_).message, HasSubstr("has no tokenizer"));
    write_bpe_gguf(path_, [](gguf_context* gguf) {
        gguf_set_val_str(gguf, "general.architecture", "nonesuch");
        gguf_set_val_u32(gguf, "nonesuch.context_length", 1);
    });
    EXPECT_THAT(error_of(path_).message, HasSubstr("unknown model architecture: 'nonesuch'"));
    write_bpe_gguf(path_,
                   [](gguf_context* gguf) { gguf_remove_key(gguf, "llama.context_length"); });
    EXPECT_THAT(error_of(path_).message, HasSubstr("llama.context_length"));
}

TEST_F(GgufFiles, SplitModelsNeedAllTheirParts) {
    write_bpe_gguf(path_, [](gguf_context* gguf) {
        gguf_set_val_u16(gguf, "split.no", 0);
        gguf_set_val_u16(gguf, "split.count", 2);
    });
    EXPECT_THAT(error_of(path_).message, HasSubstr("NAME-00001-of-00002.gguf"));

    const std::string first = folder_.file("m-00001-of-00002.gguf");
    const std::string second = folder_.file("m-00002-of-00002.gguf");
    write_file(first, read_file(path_));
    const auto missing = GgufModel::open(first);
    ASSERT_FALSE(missing.has_value());
    EXPECT_EQ(missing.error().code, ErrorCode::kNotFound);
    EXPECT_THAT(missing.error().message, HasSubstr(second));

    write_bpe_gguf(second, [](gguf_context* gguf) {
        gguf_set_val_u16(gguf, "split.no", 1);
        gguf_set_val_u16(gguf, "split.count", 2);
    });
    EXPECT_THAT(error_of(second).message, HasSubstr("part 2 of a split model"));
}

TEST_F(GgufFiles, FactsComeFromTheMetadata) {
    auto plain = open_or_fail(path_);
    EXPECT_EQ(plain->facts().name, "model");
    EXPECT_EQ(plain->facts().architecture, "llama");
    EXPECT_EQ(plain->facts().context_tokens, 512U);
    EXPECT_EQ(plain->facts().vocab_size, plain->tokenizer().vocab_size());
    EXPECT_EQ(plain->facts().file_bytes, read_file(path_).size());
    EXPECT_EQ(plain->facts().bos, "<|im_start|>");
    EXPECT_EQ(plain->facts().eos, "<|im_end|>");
    EXPECT_EQ(plain->facts().chat_template, "");
    EXPECT_EQ(plain->facts().temperature, std::nullopt);

    write_bpe_gguf(path_, [](gguf_context* gguf) {
        gguf_set_val_str(gguf, "general.name", "Tiny");
        gguf_set_val_str(gguf, "tokenizer.chat_template", "{{ messages }}");
        gguf_set_val_f32(gguf, "general.sampling.temp", 0.5F);
        gguf_set_val_f32(gguf, "general.sampling.top_p", 0.75F);
        gguf_set_val_f32(gguf, "general.sampling.min_p", 0.25F);
        gguf_set_val_i32(gguf, "general.sampling.top_k", 20);
    });
    auto full = open_or_fail(path_);
    EXPECT_EQ(full->facts().name, "Tiny");
    EXPECT_EQ(full->facts().chat_template, "{{ messages }}");
    EXPECT_EQ(full->facts().temperature, 0.5F);
    EXPECT_EQ(full->facts().top_p, 0.75F);
    EXPECT_EQ(full->facts().min_p, 0.25F);
    EXPECT_EQ(full->facts().top_k, 20);
}

TEST_F(GgufFiles, BytePairTokensKeepEveryText) {
    const auto model = open_or_fail(path_);
    const text::Tokenizer& t = model->tokenizer();
    EXPECT_EQ(encode(t, "hello"), std::vector<TokenId>{kBpeHello});
    EXPECT_EQ(t.bytes(kBpeHello), "hello");
    EXPECT_EQ(t.bytes(kBpeHello + 1), " w");
    EXPECT_EQ(t.spelling(kBpeHello + 1), " w");
    EXPECT_EQ(t.bytes(0xE2), "\xE2");
    EXPECT_EQ(t.spelling(0xE2), "\u00e2") << "the vocabulary's name of a byte that is no character";
    EXPECT_TRUE(rc::check([&](const std::vector<std::uint16_t>& characters) {
        std::string text;
        for (const unsigned c : characters) {  // any of the Basic Multilingual Plane but surrogates
            if (c < 0x80) {
                text += static_cast<char>(c);
            } else if (c < 0x800) {
                text += static_cast<char>(0xC0 | (c >> 6));
                text += static_cast<char>(0x80 | (c & 0x3F));
            } else if (c < 0xD800 || c > 0xDFFF) {
                text += static_cast<char>(0xE0 | (c >> 12));
                text += static_cast<char>(0x80 | ((c >> 6) & 0x3F));
                text += static_cast<char>(0x80 | (c & 0x3F));
            }
        }
        RC_ASSERT(decode(t, encode(t, text)) == text);
    }));
}

TEST_F(GgufFiles, SpecialTokensAreReadOnlyWhenAskedFor) {
    const auto model = open_or_fail(path_);
    const text::Tokenizer& t = model->tokenizer();
    EXPECT_EQ(encode(t, "<|im_start|>hello<|im_end|>", SpecialTokens::kParse),
              (std::vector<TokenId>{kBpeStart, kBpeHello, kBpeStart + 1}));
    EXPECT_EQ(encode(t, "<｜User｜>", SpecialTokens::kParse), std::vector<TokenId>{kBpeStart + 2});
    for (const char* mark : {"<|im_start|>", "<|im_end|>", "a<｜User｜>b<｜User｜>"}) {
        const auto ids = encode(t, mark);
        EXPECT_EQ(decode(t, ids), mark);
        for (const TokenId id : ids) EXPECT_LT(id, kBpeStart) << mark;
    }
    EXPECT_EQ(encode(t, "<think>"), std::vector<TokenId>{kBpeStart + 3})
        << "an added token that is no mark of a turn is text like any other";
    EXPECT_EQ(t.special_texts().size(), 3U);
    EXPECT_EQ(t.special_texts().back(), "<|im_end|>") << "the longest come first";
    EXPECT_TRUE(t.is_control(kBpeStart));
    EXPECT_FALSE(t.is_control(kBpeHello));
    EXPECT_EQ(t.bytes(kBpeStart), "");
    EXPECT_EQ(t.spelling(kBpeStart), "<|im_start|>");
    EXPECT_TRUE(t.is_end(kBpeStart + 1));
    EXPECT_FALSE(t.is_end(kBpeStart));
    EXPECT_EQ(t.bytes(t.vocab_size()), "");
    EXPECT_EQ(t.spelling(t.vocab_size()), "");
    EXPECT_FALSE(t.is_control(t.vocab_size()));
    EXPECT_FALSE(t.is_end(0xFFFFFFFFU));
}

TEST_F(GgufFiles, TheBeginningIsAddedWhereTheModelWantsIt) {
    EXPECT_EQ(encode(open_or_fail(path_)->tokenizer(), "hello", SpecialTokens::kAsText, true),
              std::vector<TokenId>{kBpeHello});
    write_bpe_gguf(path_, [](gguf_context* gguf) {
        gguf_set_val_bool(gguf, "tokenizer.ggml.add_bos_token", true);
    });
    const auto model = open_or_fail(path_);
    EXPECT_EQ(encode(model->tokenizer(), "hello", SpecialTokens::kAsText, true),
              (std::vector<TokenId>{kBpeStart, kBpeHello}));
    EXPECT_EQ(encode(model->tokenizer(), "", SpecialTokens::kAsText, true),
              std::vector<TokenId>{kBpeStart});
    EXPECT_EQ(encode(model->tokenizer(), "hello"), std::vector<TokenId>{kBpeHello});
}

TEST_F(GgufFiles, SentencePieceBeginsATextWithASpaceAndGoesOnWithout) {
    write_spm_gguf(path_);
    const auto model = open_or_fail(path_);
    const text::Tokenizer& t = model->tokenizer();
    EXPECT_EQ(decode(t, encode(t, "ab")), " ab");
    std::vector<TokenId> ids = encode(t, "c", SpecialTokens::kParse, true);
    ASSERT_TRUE(t.encode_more("ab a", SpecialTokens::kParse, ids).has_value());
    EXPECT_EQ(ids.front(), 1U) << "<s>";
    EXPECT_EQ(decode(t, ids), " cab a");

    std::vector<TokenId> guarded;
    const std::string rendered = "<s>" + text::guard_special("a</s>b", t.special_texts()) + "</s>";
    ASSERT_TRUE(text::encode_guarded(t, rendered, false, guarded).has_value());
    EXPECT_EQ(decode(t, guarded), " a</s>b");
    EXPECT_EQ(guarded.front(), 1U);
    EXPECT_EQ(guarded.back(), 2U);
    EXPECT_EQ(std::ranges::count(guarded, 2U), 1);
}

TEST_F(GgufFiles, ManyThreadsEncodeAtOnce) {
    const auto model = open_or_fail(path_);
    const std::string text = "hello world, hello <|im_end|> 12345 \xC3\xA9";
    const auto expected = encode(model->tokenizer(), text, SpecialTokens::kParse);
    std::vector<std::thread> threads;
    std::vector<int> equal(4, 0);
    for (std::size_t n = 0; n < equal.size(); ++n) {
        threads.emplace_back([&, n] {
            for (int i = 0; i < 200; ++i) {
                equal[n] += encode(model->tokenizer(), text, SpecialTokens::kParse) == expected;
            }
        });
    }
    for (std::thread& t : threads) t.join();
    EXPECT_THAT(equal, testing::Each(200));
}

TEST_F(GgufFiles, LongRunsDoNotOverflowTheStack) {
    for (const char* pre : {"default", "bloom", "falcon"}) {
        write_bpe_gguf(path_, [pre](gguf_context* gguf) {
            gguf_set_val_str(gguf, "tokenizer.ggml.pre", pre);
        });
        const auto model = open_or_fail(path_);
        for (const char* unit : {"a", "!"}) {
            std::string text;
            while (text.size() < 200'000) text += unit;
            EXPECT_EQ(decode(model->tokenizer(), encode(model->tokenizer(), text)), text)
                << pre << " " << unit;
        }
    }
}

TEST_F(GgufFiles, LongRunsAreNotCutInsideSpecialTexts) {
    const auto model = open_or_fail(path_);
    for (std::size_t before = 4080; before <= 4100; ++before) {
        const std::string text = std::string(before, 'x') + "<|im_start|>" + std::string(9000, 'y');
        const auto ids = encode(model->tokenizer(), text, SpecialTokens::kParse);
        ASSERT_EQ(std::ranges::count(ids, kBpeStart), 1) << before;
        ASSERT_EQ(decode(model->tokenizer(), ids).size(), before + 9000);
    }
}

}  // namespace
}  // namespace stator::model
