#include "stator/model/hf_tokenizer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <string>
#include <thread>
#include <vector>

#include "stator/base/clock.h"
#include "stator/model/byte_names.h"
#include "stator/text/detokenizer.h"

namespace stator::model {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using text::SpecialTokens;
using text::TokenId;

/// The parts of a tokenizer.json that the tests vary.
struct Json {
    std::string added = "[]";
    std::string normalizer = "null";
    std::string pre_tokenizer = "null";
    std::string post_processor = "null";
    std::string decoder = "null";
    std::string model;

    [[nodiscard]] std::string str() const {
        return R"({"version":"1.0","truncation":{"direction":"Right","max_length":2,"strategy":)"
               R"("LongestFirst","stride":0},"padding":null,"added_tokens":)" +
               added + R"(,"normalizer":)" + normalizer + R"(,"pre_tokenizer":)" + pre_tokenizer +
               R"(,"post_processor":)" + post_processor + R"(,"decoder":)" + decoder +
               R"(,"model":)" + model + "}";
    }
};

std::string added_token(TokenId id, std::string_view text, bool special) {
    return fmt::format(
        R"({{"id":{},"content":"{}","single_word":false,"lstrip":false,"rstrip":false,"normalized":false,"special":{}}})",
        id, text, special);
}

/// byte_name() as it stands in JSON.
std::string byte_character(unsigned byte) {
    return (byte == '"' || byte == '\\' ? "\\" : "") + byte_name(byte);
}

/// Ids 0 to 255 are the bytes; then "he", "ll", "hell", "hello", "Ġhello".
Json byte_level() {
    Json j;
    std::string vocab;
    for (unsigned b = 0; b < 256; ++b) vocab += fmt::format(R"("{}":{},)", byte_character(b), b);
    j.model = R"({"type":"BPE","dropout":null,"unk_token":null,"continuing_subword_prefix":null,)"
              R"("end_of_word_suffix":null,"fuse_unk":false,"byte_fallback":false,"vocab":{)" +
              vocab + R"("he":256,"ll":257,"hell":258,"hello":259,"Ġhello":260},)" +
              R"("merges":["h e","l l","he ll","hell o","Ġ hello"]})";
    j.added = "[" + added_token(261, "<|bos|>", true) + "," + added_token(262, "<|end|>", true) +
              "," + added_token(263, "<tool_call>", false) + "," +
              added_token(264, "<|role|>", false) + "]";
    j.pre_tokenizer = R"({"type":"Sequence","pretokenizers":[{"type":"Split","pattern":{"Regex":)"
                      R"(" ?\\p{L}+|[^\\p{L}]"},"behavior":"Isolated","invert":false},)"
                      R"({"type":"ByteLevel","add_prefix_space":false,"trim_offsets":true,)"
                      R"("use_regex":false}]})";
    j.post_processor =
        R"({"type":"TemplateProcessing","single":[{"SpecialToken":{"id":"<|bos|>","type_id":0}},)"
        R"({"Sequence":{"id":"A","type_id":0}}],"pair":[],"special_tokens":{"<|bos|>":)"
        R"({"id":"<|bos|>","ids":[261],"tokens":["<|bos|>"]}}})";
    j.decoder = R"({"type":"ByteLevel","add_prefix_space":true,"trim_offsets":true})";
    return j;
}

/// SentencePiece's way: "▁" for spaces, one in front of a text, bytes for what is not there.
Json sentence_piece() {
    Json j;
    std::string vocab = R"(["<unk>",0.0],["<s>",0.0],["</s>",0.0])";
    for (unsigned b = 0; b < 256; ++b) vocab += fmt::format(R"(,["<0x{:02X}>",-20.0])", b);
    vocab += R"(,["▁",-3.0],["▁hello",-1.0],["hello",-2.0],["a",-4.0],["b",-4.0],["▁a",-3.5])";
    j.model = R"({"type":"Unigram","unk_id":0,"byte_fallback":true,"vocab":[)" + vocab + "]}";
    j.added = "[" + added_token(0, "<unk>", true) + "," + added_token(1, "<s>", true) + "," +
              added_token(2, "</s>", true) + "]";
    j.pre_tokenizer =
        R"({"type":"Metaspace","replacement":"▁","prepend_scheme":"first","split":true})";
    j.decoder = R"({"type":"Sequence","decoders":[{"type":"Replace","pattern":{"String":"▁"},)"
                R"("content":" "},{"type":"ByteFallback"},{"type":"Fuse"},{"type":"Strip",)"
                R"("content":" ","start":1,"stop":0}]})";
    return j;
}

/// Llama 2's way: the same by normalizers and merges.
Json prepending() {
    Json j = sentence_piece();
    std::string vocab = R"("<unk>":0,"<s>":1,"</s>":2)";
    for (unsigned b = 0; b < 256; ++b) vocab += fmt::format(R"(,"<0x{:02X}>":{})", b, b + 3);
    vocab += R"(,"▁":259,"a":260,"b":261,"▁a":262,"ab":263)";
    j.model =
        R"({"type":"BPE","dropout":null,"unk_token":"<unk>","continuing_subword_prefix":null,)"
        R"("end_of_word_suffix":null,"fuse_unk":true,"byte_fallback":true,"vocab":{)" +
        vocab + R"(},"merges":["▁ a","a b"]})";
    j.normalizer = R"({"type":"Sequence","normalizers":[{"type":"Prepend","prepend":"▁"},)"
                   R"({"type":"Replace","pattern":{"String":" "},"content":"▁"}]})";
    j.pre_tokenizer = "null";
    return j;
}

Json word_piece() {
    Json j;
    j.model = R"({"type":"WordPiece","unk_token":"[UNK]","continuing_subword_prefix":"##",)"
              R"("max_input_chars_per_word":100,"vocab":{"[UNK]":0,"[CLS]":1,"[SEP]":2,"play":3,)"
              R"("##ing":4,"the":5,".":6}})";
    j.added = "[" + added_token(0, "[UNK]", true) + "," + added_token(1, "[CLS]", true) + "," +
              added_token(2, "[SEP]", true) + "]";
    j.normalizer = R"({"type":"BertNormalizer","clean_text":true,"handle_chinese_chars":true,)"
                   R"("strip_accents":null,"lowercase":true})";
    j.pre_tokenizer = R"({"type":"BertPreTokenizer"})";
    j.post_processor = R"({"type":"BertProcessing","sep":["[SEP]",2],"cls":["[CLS]",1]})";
    j.decoder = R"({"type":"WordPiece","prefix":"##","cleanup":true})";
    return j;
}

std::shared_ptr<const HfTokenizer> load(const Json& json, HfTokenizerOptions options = {}) {
    auto loaded = HfTokenizer::load(json.str(), std::move(options));
    if (!loaded) {
        ADD_FAILURE() << loaded.error().message;
        return nullptr;
    }
    return *loaded;
}

/// Loaded once for all tests.
std::shared_ptr<const HfTokenizer> byte_level_tokenizer() {
    static const auto loaded = load(byte_level());
    return loaded;
}

std::string refusal(const std::string& json) {
    const auto loaded = HfTokenizer::load(json, {});
    return loaded ? "loaded" : loaded.error().message;
}

std::vector<TokenId> encode(const HfTokenizer& t, std::string_view text,
                            SpecialTokens special = SpecialTokens::kParse, bool bos = false) {
    std::vector<TokenId> ids;
    const auto done = t.encode(text, special, bos, ids);
    EXPECT_TRUE(done) << done.error().message;
    return ids;
}

std::vector<TokenId> encode_more(const HfTokenizer& t, std::string_view text) {
    std::vector<TokenId> ids;
    EXPECT_TRUE(t.encode_more(text, SpecialTokens::kParse, ids));
    return ids;
}

std::string decode(const HfTokenizer& t, const std::vector<TokenId>& ids, bool begins = true) {
    text::Detokenizer detokenizer(t, {}, text::ControlTokens::kHidden, begins);
    std::string out;
    for (const TokenId id : ids) detokenizer.push(id, out);
    detokenizer.finish(out);
    return out;
}

TEST(HfTokenizer, ByteLevelMergesAndSpells) {
    const auto t = byte_level_tokenizer();
    ASSERT_TRUE(t);
    EXPECT_EQ(t->vocab_size(), 265U);
    EXPECT_THAT(encode(*t, "hello hello"), ElementsAre(259, 260));
    EXPECT_THAT(encode(*t, "é"), ElementsAre(0xC3, 0xA9));
    EXPECT_EQ(t->bytes(260), " hello");
    EXPECT_EQ(t->first_bytes(260), " hello");
    EXPECT_EQ(t->bytes(0), std::string_view("\0", 1));
    EXPECT_EQ(t->bytes(0xC3), "\xC3");
    EXPECT_EQ(t->spelling(0xC3), "Ã");
    EXPECT_EQ(t->bytes(4'000'000'000U), "");
    EXPECT_EQ(t->spelling(265), "");
    for (const std::string text : {"", "hello", " hello\n\tworld 😀\x7F", "naïve 日本"}) {
        EXPECT_EQ(decode(*t, encode(*t, text)), text);
    }
}

TEST(HfTokenizer, TheFastEngineIsTakenWhereItAgrees) {
    const auto t = byte_level_tokenizer();
    ASSERT_TRUE(t);
    EXPECT_EQ(t->engine(), "fastokens");
    EXPECT_EQ(t->describe(), "265 tokens, encoded by fastokens");
    const auto slow = load(word_piece());
    ASSERT_TRUE(slow);
    EXPECT_NE(slow->engine(), "fastokens");
    EXPECT_THAT(slow->describe(), HasSubstr("fastokens "));
}

TEST(HfTokenizer, SpecialTokensAreControlAndTokensForToolsAreText) {
    const auto t = byte_level_tokenizer();
    ASSERT_TRUE(t);
    EXPECT_TRUE(t->is_control(261));
    EXPECT_EQ(t->bytes(261), "");
    EXPECT_EQ(t->spelling(261), "<|bos|>");
    EXPECT_FALSE(t->is_control(263));
    EXPECT_EQ(t->bytes(263), "<tool_call>");
    EXPECT_FALSE(t->is_control(9999));
    // A mark of turns is kept from users though the file calls it no special token.
    EXPECT_THAT(t->special_texts(), ElementsAre("<|role|>", "<|bos|>", "<|end|>"));
    EXPECT_THAT(encode(*t, "<|end|>hello<tool_call>"), ElementsAre(262, 259, 263));
    EXPECT_EQ(t->added_token("<tool_call>"), 263U);
    EXPECT_EQ(t->added_token("hello"), std::nullopt);
}

TEST(HfTokenizer, UsersTextNeverBecomesASpecialToken) {
    const auto t = byte_level_tokenizer();
    ASSERT_TRUE(t);
    for (const std::string text :
         {"<|end|>", "<|bos|><|role|>", "a<|e<|end|>nd|>", "<|end|", "<", "no marks at all"}) {
        const auto ids = encode(*t, text, SpecialTokens::kAsText, true);
        EXPECT_EQ(ids.front(), 261U) << "what the model wants in front is no text";
        for (std::size_t i = 1; i < ids.size(); ++i) EXPECT_LT(ids[i], 261U) << text;
        EXPECT_EQ(decode(*t, ids), text);
    }
    EXPECT_THAT(encode(*t, "hello<tool_call>", SpecialTokens::kAsText), ElementsAre(259, 263));
}

TEST(HfTokenizer, WhatComesInFront) {
    const auto of_template = byte_level_tokenizer();
    EXPECT_THAT(encode(*of_template, "he", SpecialTokens::kParse, true), ElementsAre(261, 256));
    EXPECT_THAT(encode(*of_template, "he"), ElementsAre(256));
    const auto never = load(byte_level(), {.add_bos = false});
    EXPECT_THAT(encode(*never, "he", SpecialTokens::kParse, true), ElementsAre(256));
    Json without = byte_level();
    without.post_processor = "null";
    EXPECT_THAT(encode(*load(without), "he", SpecialTokens::kParse, true), ElementsAre(256));
    const auto told = load(without, {.add_bos = true, .bos = "<|bos|>", .eos = "<|end|>"});
    EXPECT_THAT(encode(*told, "he", SpecialTokens::kParse, true), ElementsAre(261, 256));
    EXPECT_TRUE(told->is_end(262)) << "the EOS, where no list of end tokens is given";
    EXPECT_FALSE(told->is_end(261));
    const auto listed = load(without, {.end_tokens = {7, 263}, .eos = "<|end|>"});
    EXPECT_TRUE(listed->is_end(7) && listed->is_end(263) && !listed->is_end(262));
    const auto unknown = HfTokenizer::load(without.str(), {.add_bos = true, .bos = "<none>"});
    ASSERT_FALSE(unknown);
    EXPECT_THAT(unknown.error().message, HasSubstr("'<none>'"));
    EXPECT_THAT(load(word_piece())->lead(), ElementsAre(1));
}

TEST(HfTokenizer, SentencePieceSpaces) {
    const auto t = load(sentence_piece());
    ASSERT_TRUE(t);
    EXPECT_THAT(encode(*t, "hello hello"), ElementsAre(260, 260));
    EXPECT_EQ(decode(*t, {260, 260}), "hello hello");
    EXPECT_EQ(decode(*t, {260, 260}, false), " hello hello") << "behind a prompt";
    EXPECT_EQ(decode(*t, {1, 260}), "hello") << "a control token is not what the text begins with";
    EXPECT_THAT(encode(*t, "é"), ElementsAre(259, 3 + 0xC3, 3 + 0xA9));
    EXPECT_EQ(decode(*t, encode(*t, "é 日本a")), "é 日本a");
    EXPECT_EQ(t->bytes(3 + 0xC3), "\xC3");
    EXPECT_EQ(t->spelling(3 + 0xC3), "<0xC3>");
    EXPECT_EQ(t->spelling(3 + 'A'), "A");
    EXPECT_THAT(encode_more(*t, "hello hello"), ElementsAre(261, 260));
    EXPECT_THAT(encode_more(*t, "</s>hello"), ElementsAre(2, 261));
}

TEST(HfTokenizer, PrependedSpacesComeBackBehindSpecialTokens) {
    const auto t = load(prepending());
    ASSERT_TRUE(t);
    EXPECT_THAT(encode(*t, "a"), ElementsAre(262));
    EXPECT_THAT(encode(*t, "<s>a"), ElementsAre(1, 262)) << "as Hugging Face does";
    EXPECT_THAT(encode_more(*t, "ab a"), ElementsAre(263, 262));
    EXPECT_THAT(encode_more(*t, "ab</s>a"), ElementsAre(263, 2, 262));
    EXPECT_EQ(decode(*t, encode(*t, "ab a")), "ab a");
    const auto ids = encode(*t, "a<s>a", SpecialTokens::kAsText);
    for (const TokenId id : ids) EXPECT_FALSE(t->is_control(id));
    EXPECT_EQ(decode(*t, ids), "a<s>a");
}

TEST(HfTokenizer, WordPieces) {
    const auto t = load(word_piece());
    ASSERT_TRUE(t);
    EXPECT_THAT(encode(*t, "Playing the."), ElementsAre(3, 4, 5, 6));
    EXPECT_EQ(decode(*t, {3, 4, 5, 6}), "playing the.");
    EXPECT_EQ(decode(*t, {3, 4, 5}, false), " playing the");
    EXPECT_THAT(encode(*t, "zebra"), ElementsAre(0));
}

TEST(HfTokenizer, MarksAreNotFoundInFoldedText) {
    Json j = word_piece();
    std::string normalized = added_token(2, "[SEP]", true);
    normalized.replace(normalized.find(R"("normalized":false)"), 18, R"("normalized":true)");
    j.added = "[" + added_token(0, "[UNK]", true) + "," + normalized + "]";
    const auto t = load(j);
    ASSERT_TRUE(t);
    EXPECT_THAT(encode(*t, "[SEP]"), ElementsAre(2));
    EXPECT_THAT(encode(*t, "[sep]"), testing::Not(testing::Contains(2)));
}

TEST(HfTokenizer, OtherDecoders) {
    Json j = byte_level();
    j.decoder = "null";
    EXPECT_EQ(decode(*load(j), {259, 256}), "hello he");
    j.decoder = R"({"type":"BPEDecoder","suffix":"lo"})";
    EXPECT_EQ(load(j)->bytes(259), "hel ");
    j.decoder = R"({"type":"Metaspace","replacement":"l","prepend_scheme":"always"})";
    EXPECT_EQ(decode(*load(j), {258, 258}), "hehe  ");
    j.decoder = R"({"type":"Strip","content":"h","start":1,"stop":0})";
    EXPECT_EQ(decode(*load(j), {259, 256}), "elloe");
    j.decoder = R"({"type":"CTC","pad_token":"<pad>","word_delimiter_token":"|","cleanup":true})";
    EXPECT_THAT(refusal(j.str()), HasSubstr("\"CTC\""));
}

TEST(HfTokenizer, ManyThreadsEncodeAtOnce) {
    const auto t = byte_level_tokenizer();
    ASSERT_TRUE(t);
    std::string text;
    for (int i = 0; i < 2000; ++i) text += "hello he <|end|> " + std::to_string(i * 7919) + "\n";
    const auto expected = encode(*t, text);
    std::array<int, 4> same{};
    std::vector<std::jthread> threads;
    for (int& s : same) {
        threads.emplace_back([&] {
            for (int i = 0; i < 5; ++i) {
                std::vector<TokenId> ids;
                if (t->encode(text, SpecialTokens::kParse, false, ids) && ids == expected) ++s;
            }
        });
    }
    threads.clear();
    EXPECT_THAT(same, ElementsAre(5, 5, 5, 5));
}

TEST(HfTokenizer, TextsThatAreNotUtf8AreRefused) {
    const auto t = byte_level_tokenizer();
    std::vector<TokenId> ids = {5};
    const auto done = t->encode("ab\xFF", SpecialTokens::kParse, false, ids);
    ASSERT_FALSE(done);
    EXPECT_THAT(done.error().message, HasSubstr("byte 2"));
    EXPECT_THAT(ids, ElementsAre(5));
}

TEST(HfTokenizer, LongRunsTakeLinearTime) {
    for (const auto& t : {byte_level_tokenizer(), load(sentence_piece()), load(prepending())}) {
        ASSERT_TRUE(t);
        for (const std::string_view unit : {"a", " ", "é", "hello", "a "}) {
            std::string text;
            while (text.size() < 200'000) text += unit;
            const TimePoint begin = Clock::real().now();
            const auto ids = encode(*t, text);
            EXPECT_LT(to_seconds(Clock::real().now() - begin), 5.0) << unit;
            // The library itself takes one space from the beginning of such texts.
            if (unit != " ") EXPECT_TRUE(decode(*t, ids) == text) << unit;
        }
    }
}

TEST(HfTokenizer, FilesThatLieAreRefused) {
    EXPECT_THAT(refusal(""), HasSubstr("not valid JSON"));
    EXPECT_THAT(refusal("[]"), HasSubstr("not a JSON object"));
    EXPECT_THAT(refusal("{}"), HasSubstr("'model'"));
    EXPECT_THAT(refusal(std::string(100'000, '[')), HasSubstr("recursion"));
    EXPECT_THAT(refusal(byte_level().str().substr(0, 2000)), HasSubstr("not valid JSON"));

    const auto with_model = [](std::string model) {
        Json j;
        j.model = std::move(model);
        return refusal(j.str());
    };
    EXPECT_THAT(with_model("{}"), HasSubstr("'vocab'"));
    EXPECT_THAT(with_model(R"({"type":"BPE","vocab":{},"merges":[]})"), HasSubstr("empty"));
    EXPECT_THAT(with_model(R"({"type":"BPE","vocab":{"a":4294967295},"merges":[]})"),
                HasSubstr("4294967295"));
    EXPECT_THAT(with_model(R"({"type":"BPE","vocab":{"a":-1},"merges":[]})"),
                HasSubstr("whole number"));
    EXPECT_THAT(with_model(R"({"type":"BPE","vocab":{"a":0,"b":0},"merges":[]})"),
                HasSubstr("two tokens"));
    EXPECT_THAT(with_model(R"({"type":"BPE","vocab":{"a":0,"b":1900000},"merges":[]})"),
                HasSubstr("holes"));
    EXPECT_THAT(with_model(R"({"type":"BPE","vocab":{"a":0,"b":1},"merges":["a c"]})"),
                HasSubstr("can't be used"));
    EXPECT_THAT(with_model(R"({"type":"Markov","vocab":{"a":0}})"), HasSubstr("can't be used"));
    EXPECT_THAT(with_model(R"({"type":"Unigram","unk_id":7,"vocab":[["a",0.0]]})"),
                HasSubstr("can't be used"));
    EXPECT_THAT(with_model(R"({"type":"WordPiece","unk_token":"a","continuing_subword_prefix":"",)"
                           R"("max_input_chars_per_word":4000000000,"vocab":{"a":0}})"),
                HasSubstr("max_input_chars_per_word"));

    Json j = byte_level();
    j.added = "[" + added_token(3'000'000'000U, "<x>", true) + "]";
    EXPECT_THAT(refusal(j.str()), HasSubstr("3000000000"));
    j.added = R"([{"content":"<x>"}])";
    EXPECT_THAT(refusal(j.str()), HasSubstr("'id'"));
    j = byte_level();
    j.post_processor = R"({"type":"BertProcessing","sep":["a",1],"cls":["b",70000]})";
    EXPECT_THAT(refusal(j.str()), HasSubstr("70000"));
    j = byte_level();
    j.pre_tokenizer = R"({"type":"Split","pattern":{"Regex":"(a"},"behavior":"Isolated"})";
    EXPECT_THAT(refusal(j.str()), HasSubstr("can't be used"));
    j.pre_tokenizer = R"({"type":"Split","pattern":{"Regex":")" + std::string(20'000, 'a') +
                      R"("},"behavior":"Isolated","invert":false})";
    EXPECT_THAT(refusal(j.str()), HasSubstr("pattern"));
}

TEST(HfTokenizer, AddedTokensWithHolesKeepTheirIds) {
    Json j = byte_level();
    j.added = "[" + added_token(261, "<|bos|>", true) + "]";
    const auto t = load(j);
    ASSERT_TRUE(t);
    EXPECT_EQ(t->vocab_size(), 262U);
    // The library gives added tokens the next free ids, whatever the file says.
    j.added = "[" + added_token(261, "<|bos|>", true) + "," + added_token(300, "<x>", true) + "]";
    const auto holes = load(j);
    ASSERT_TRUE(holes);
    EXPECT_THAT(encode(*holes, "<x>"), ElementsAre(262));
    EXPECT_EQ(holes->bytes(280), "");
    EXPECT_EQ(holes->spelling(280), "");
}

}  // namespace
}  // namespace stator::model
