#include "stator/model/artifacts.h"

#include <gguf.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <rapidcheck.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <random>
#include <thread>

#include "stator/model/sha256.h"
#include "stator/model/tiny_gguf.h"
#include "stator/text/byte_tokenizer.h"

namespace stator::model {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;
using text::SpecialTokens;
using text::TokenId;

protocol::Artifact artifact_of(std::string kind, std::string_view bytes) {
    return {std::move(kind), sha256_hex(bytes), bytes.size()};
}

protocol::ModelCard card_of(std::string kind, std::string_view bytes, std::uint32_t vocab_size) {
    protocol::ModelCard card;
    card.name = "tiny";
    card.tokenizer = artifact_of(std::move(kind), bytes);
    card.vocab_size = vocab_size;
    return card;
}

std::vector<TokenId> encode(const text::Tokenizer& t, std::string_view text,
                            SpecialTokens special) {
    std::vector<TokenId> ids;
    EXPECT_TRUE(t.encode(text, special, true, ids));
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
    ASSERT_TRUE(std::ranges::equal(a.special_texts(), b.special_texts()));
    for (const std::string& text : texts) {
        for (const auto special : {SpecialTokens::kAsText, SpecialTokens::kParse}) {
            ASSERT_EQ(encode(a, text, special), encode(b, text, special)) << text;
        }
    }
}

/// The tokenizer of a file against the one made of its artifact.
void expect_round_trip(const std::string& path, const std::vector<std::string>& texts) {
    const auto model = GgufModel::open(path);
    ASSERT_TRUE(model) << model.error().message;
    const auto bytes = vocabulary_artifact(path);
    ASSERT_TRUE(bytes) << bytes.error().message;
    EXPECT_EQ(*bytes, vocabulary_artifact(path).value());
    const TemporaryFolder scratch;
    const auto& facts = (*model)->facts();
    const auto loaded = load_text_model(card_of("gguf-vocabulary", *bytes, facts.vocab_size),
                                        *bytes, {}, scratch.file("in"));
    ASSERT_TRUE(loaded) << loaded.error().message;
    EXPECT_EQ(loaded->chat_template, nullptr);
    EXPECT_TRUE(fs::is_empty(scratch.file("in")));
    expect_same((*model)->tokenizer(), *loaded->tokenizer, texts);
}

TEST(Artifacts, Sha256IsTheStandards) {
    EXPECT_EQ(sha256_hex("abc"),
              "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}

TEST(Artifacts, VocabulariesOfTinyFiles) {
    const TemporaryFolder folder;
    write_bpe_gguf(folder.file("bpe.gguf"));
    write_spm_gguf(folder.file("spm.gguf"));
    const std::vector<std::string> texts = {"hello world", "<|im_start|>hello<|im_end|>", " a\n\tb",
                                            "\xc3\xa9 \xe2\x82\xac", ""};
    expect_round_trip(folder.file("bpe.gguf"), texts);
    expect_round_trip(folder.file("spm.gguf"), texts);
}

TEST(Artifacts, AVocabularyHoldsNoWeights) {
    const TemporaryFolder folder;
    const std::string path = folder.file("m.gguf");
    write_bpe_gguf(path);
    const auto bytes = vocabulary_artifact(path);
    ASSERT_TRUE(bytes);
    write_file(folder.file("v.gguf"), *bytes);
    gguf_context* gguf =
        gguf_init_from_file(folder.file("v.gguf").c_str(), {.no_alloc = true, .ctx = nullptr});
    ASSERT_NE(gguf, nullptr);
    EXPECT_EQ(gguf_get_n_tensors(gguf), 0);
    gguf_free(gguf);
    // A model handed out in place of a vocabulary is refused.
    const std::string whole = read_file(path);
    const auto refused =
        load_text_model(card_of("gguf-vocabulary", whole, 265), whole, {}, folder.file("scratch"));
    ASSERT_FALSE(refused);
    EXPECT_THAT(refused.error().message, HasSubstr("not a vocabulary"));
}

TEST(Artifacts, DamagedVocabulariesAreErrors) {
    const TemporaryFolder folder;
    write_bpe_gguf(folder.file("m.gguf"));
    const std::string good = vocabulary_artifact(folder.file("m.gguf")).value();
    const std::string scratch = folder.file("scratch");
    const auto load = [&](const std::string& bytes) {
        return load_text_model(card_of("gguf-vocabulary", bytes, 265), bytes, {}, scratch);
    };
    ASSERT_TRUE(load(good)) << load(good).error().message;
    for (const std::string& bad : {std::string(), std::string("garbage"), std::string(100, '\0'),
                                   good.substr(0, 20), good.substr(0, good.size() / 2)}) {
        EXPECT_FALSE(load(bad)) << bad.size();
    }
    EXPECT_TRUE(rc::check("any damage is an error or a tokenizer, never a crash", [&] {
        std::string bytes = good;
        const auto flips = *rc::gen::inRange(1, 4);
        for (int i = 0; i < flips; ++i) {
            bytes[*rc::gen::inRange<std::size_t>(0, bytes.size())] ^=
                static_cast<char>(*rc::gen::inRange(1, 256));
        }
        bytes.resize(*rc::gen::inRange<std::size_t>(bytes.size() / 2, bytes.size() + 1));
        (void)load(bytes);
    }));
    EXPECT_TRUE(fs::is_empty(scratch));
}

TEST(Artifacts, CardsMustTellTheVocabularysSize) {
    const TemporaryFolder folder;
    write_bpe_gguf(folder.file("m.gguf"));
    const std::string bytes = vocabulary_artifact(folder.file("m.gguf")).value();
    const auto loaded =
        load_text_model(card_of("gguf-vocabulary", bytes, 1000), bytes, {}, folder.file("scratch"));
    ASSERT_FALSE(loaded);
    EXPECT_EQ(loaded.error().code, ErrorCode::kDataLoss);
}

TEST(Artifacts, ByteTokenizersAndTemplates) {
    const std::vector<std::string> specials = {"<|im_end|>", "<|im_start|>", "\"quoted\"\n"};
    const text::ByteTokenizer original(specials);
    const std::string bytes = byte_tokenizer_artifact(specials);
    protocol::ModelCard card = card_of("byte-tokenizer", bytes, original.vocab_size());
    const std::string source =
        "{% for m in messages %}{{ bos_token }}{{ m.content }}\n{% endfor %}";
    const std::string chat = chat_template_artifact(source, "<s>", "</s>");
    card.chat_template = artifact_of("chat-template", chat);
    const auto loaded = load_text_model(card, bytes, chat, "/nonexistent");
    ASSERT_TRUE(loaded) << loaded.error().message;
    expect_same(original, *loaded->tokenizer, {"a<|im_start|>b<|im_end|><|end|>", "\"quoted\"\n"});
    ASSERT_NE(loaded->chat_template, nullptr);
    EXPECT_EQ(loaded->chat_template->render(R"({"messages":[{"content":"x"}]})").value(), "<s>x\n");
    // What a tokenizer lists of itself can be handed out as it is.
    const auto listed = original.special_texts();
    const std::string again = byte_tokenizer_artifact({listed.begin(), listed.end()});
    EXPECT_TRUE(load_text_model(card_of("byte-tokenizer", again, original.vocab_size()), again, {},
                                "/nonexistent"));
}

TEST(Artifacts, WrongDocumentsAreErrors) {
    for (const char* bad : {"", "{", "[]", R"({"special_texts":{}})", R"({"special_texts":[1]})",
                            R"({"special_texts":[""]})", R"({"special_texts":["a","a"]})",
                            R"({"special_texts":["<|end|>"]})"}) {
        EXPECT_FALSE(load_text_model(card_of("byte-tokenizer", bad, 257), bad, {}, "/nonexistent"))
            << bad;
    }
    const std::string tokenizer = byte_tokenizer_artifact({});
    const auto card = card_of("byte-tokenizer", tokenizer, 257);
    for (const char* bad : {"{", "[]", R"({"template":"x"})", R"({"template":1,"bos":"","eos":""})",
                            R"({"template":"{% for","bos":"","eos":""})"}) {
        const auto loaded = load_text_model(card, tokenizer, bad, "/nonexistent");
        ASSERT_FALSE(loaded) << bad;
        EXPECT_THAT(loaded.error().message, HasSubstr("chat template of the model 'tiny'"));
    }
    const auto unknown = load_text_model(card_of("tiktoken", "x", 257), "x", {}, "/nonexistent");
    ASSERT_FALSE(unknown);
    EXPECT_EQ(unknown.error().code, ErrorCode::kUnsupported);
    EXPECT_THAT(unknown.error().message, HasSubstr("tiktoken"));
    std::string long_text = R"({"special_texts":[)";
    long_text.append(5ULL * 1024 * 1024, ' ');
    EXPECT_EQ(load_text_model(card, long_text, {}, "/nonexistent").error().code,
              ErrorCode::kTooLarge);
}

TEST(WeightsDigest, EqualFilesAndOnlyThose) {
    const TemporaryFolder folder;
    write_bpe_gguf(folder.file("a.gguf"));
    write_bpe_gguf(folder.file("b.gguf"));
    const auto a = weights_digest(folder.file("a.gguf"));
    ASSERT_TRUE(a) << a.error().message;
    EXPECT_THAT(*a, testing::MatchesRegex("sha256-sample:[0-9a-f]+"));
    EXPECT_EQ(a->size(), 14U + 64U);
    EXPECT_EQ(*a, weights_digest(folder.file("b.gguf")).value());
    const std::string bytes = read_file(folder.file("a.gguf"));
    EXPECT_TRUE(rc::check("a changed weight changes the digest", [&] {
        std::string changed = bytes;
        changed[changed.size() - 1 - *rc::gen::inRange<std::size_t>(0, 128)] ^= 1;
        write_file(folder.file("c.gguf"), changed);
        RC_ASSERT(weights_digest(folder.file("c.gguf")).value() != *a);
    }));
    write_file(folder.file("longer.gguf"), bytes + "x");
    EXPECT_NE(weights_digest(folder.file("longer.gguf")).value(), *a);
    EXPECT_EQ(weights_digest(folder.file("none.gguf")).error().code, ErrorCode::kNotFound);
}

TEST(WeightsDigest, LongFilesAreSampledFromEndToEnd) {
    const TemporaryFolder folder;
    const std::string path = folder.file("a.gguf");
    write_bpe_gguf(path);
    const std::string begin = read_file(path);
    constexpr std::size_t kLong = 40ULL * 1024 * 1024;
    std::string bytes = begin + std::string(kLong, 'w');
    const auto digest = [&] {
        write_file(path, bytes);
        return weights_digest(path).value();
    };
    const std::string before = digest();
    bytes.back() = 'x';
    EXPECT_NE(digest(), before);
    bytes.back() = 'w';
    EXPECT_EQ(digest(), before);
    // Every run of a fortieth of the file meets a sample.
    for (std::size_t at = begin.size(); at + (1U << 20U) <= bytes.size(); at += 3U << 20U) {
        std::string changed(1U << 20U, 'x');
        bytes.replace(at, changed.size(), changed);
        EXPECT_NE(digest(), before) << at;
        bytes.replace(at, changed.size(), std::string(changed.size(), 'w'));
    }
}

TEST(ArtifactCache, KeepsAndChecks) {
    const TemporaryFolder folder;
    ArtifactCache cache(folder.file("cache"), 1000);
    const auto a = artifact_of("chat-template", "hello");
    EXPECT_FALSE(cache.find(a));
    ASSERT_TRUE(cache.put(a, "hello"));
    EXPECT_EQ(cache.find(a), "hello");
    struct stat info{};
    ASSERT_EQ(::stat(folder.file("cache").c_str(), &info), 0);
    EXPECT_EQ(info.st_mode & 0777U, 0700U);
    EXPECT_EQ(ArtifactCache(folder.file("cache"), 1000).find(a), "hello");

    EXPECT_EQ(cache.put(a, "hellO").error().code, ErrorCode::kDataLoss);
    EXPECT_EQ(cache.put(a, "hell").error().code, ErrorCode::kDataLoss);
    const std::string path = folder.file("cache") + "/" + a.sha256;
    for (const char* damaged : {"hellO", "hell", ""}) {
        write_file(path, damaged);
        EXPECT_FALSE(cache.find(a)) << damaged;
        EXPECT_FALSE(fs::exists(path));
        ASSERT_TRUE(cache.put(a, "hello"));
    }
}

TEST(ArtifactCache, DigestsAreNoPaths) {
    const TemporaryFolder folder;
    write_file(folder.file("secret"), "x");
    fs::create_directories(folder.file("cache"));
    ArtifactCache cache(folder.file("cache"), 1000);
    for (const std::string& name :
         {std::string("../secret"), std::string(64, '/'), std::string(64, 'A'), std::string()}) {
        const protocol::Artifact artifact{"chat-template", name, 1};
        EXPECT_FALSE(cache.find(artifact));
        EXPECT_FALSE(cache.put(artifact, "x"));
    }
    EXPECT_EQ(read_file(folder.file("secret")), "x");
}

TEST(ArtifactCache, TheLongestUnusedGoes) {
    const TemporaryFolder folder;
    const std::string path = folder.file("cache");
    ArtifactCache cache(path, 300);
    std::vector<protocol::Artifact> artifacts;
    const auto content = [](int i) { return std::string(100, static_cast<char>('a' + i)); };
    const auto age = [&](int i, std::chrono::hours hours) {
        const fs::path file = path + "/" + artifacts[static_cast<std::size_t>(i)].sha256;
        fs::last_write_time(file, fs::last_write_time(file) - hours);
    };
    for (int i = 0; i < 4; ++i) artifacts.push_back(artifact_of("x", content(i)));
    for (int i = 0; i < 3; ++i) {
        ASSERT_TRUE(cache.put(artifacts[static_cast<std::size_t>(i)], content(i)));
        age(i, std::chrono::hours(10 - i));
    }
    write_file(path + "/someone-elses", std::string(1000, 'x'));
    write_file(path + "/.artifact-left", "x");
    fs::last_write_time(path + "/.artifact-left",
                        fs::last_write_time(path + "/.artifact-left") - std::chrono::hours(2));
    EXPECT_TRUE(cache.find(artifacts[0]));  // used now
    ASSERT_TRUE(cache.put(artifacts[3], content(3)));
    EXPECT_TRUE(cache.find(artifacts[0]));
    EXPECT_FALSE(cache.find(artifacts[1]));
    EXPECT_TRUE(cache.find(artifacts[2]));
    EXPECT_TRUE(cache.find(artifacts[3]));
    EXPECT_TRUE(fs::exists(path + "/someone-elses"));
    EXPECT_FALSE(fs::exists(path + "/.artifact-left"));

    const std::string large(301, 'z');
    ASSERT_TRUE(cache.put(artifact_of("x", large), large));
    EXPECT_FALSE(cache.find(artifact_of("x", large)));
    EXPECT_TRUE(cache.find(artifacts[3]));
}

TEST(ArtifactCache, AFolderThatCantBeMadeIsNoError) {
    const TemporaryFolder folder;
    write_file(folder.file("file"), "x");
    ArtifactCache cache(folder.file("file") + "/cache", 1000);
    EXPECT_TRUE(cache.put(artifact_of("x", "hello"), "hello"));
    EXPECT_FALSE(cache.find(artifact_of("x", "hello")));
}

/// Readers see a whole artifact or none, whatever other threads and processes write.
TEST(ArtifactCache, ManyAtOnce) {
    const TemporaryFolder folder;
    const std::string path = folder.file("cache");
    const auto work = [&](unsigned seed) {
        ArtifactCache cache(path, 250'000);
        std::minstd_rand random(seed);
        bool good = true;
        for (int i = 0; i < 200; ++i) {
            const std::string bytes(50'000 + random() % 8, static_cast<char>('a' + random() % 8));
            const auto artifact = artifact_of("x", bytes);
            good = good && cache.put(artifact, bytes).has_value();
            const auto found = cache.find(artifact);
            good = good && (!found || *found == bytes);
        }
        return good;
    };
    const pid_t child = ::fork();
    if (child == 0) ::_exit(work(99) ? 0 : 1);
    std::vector<std::thread> threads;
    std::vector<int> good(3, 0);
    for (unsigned i = 0; i < 3; ++i) {
        threads.emplace_back([&, i] { good[i] = work(i + 1) ? 1 : 0; });
    }
    for (std::thread& t : threads) t.join();
    int status = -1;
    ASSERT_EQ(::waitpid(child, &status, 0), child);
    EXPECT_EQ(status, 0);
    EXPECT_THAT(good, testing::Each(1));
    std::uint64_t total = 0;
    for (const auto& entry : fs::directory_iterator(path)) total += entry.file_size();
    EXPECT_LE(total, 250'000U + 4 * 50'008U);
}

TEST(RealArtifacts, TheVocabularyIsTheModels) {
    const char* path = std::getenv("STATOR_MODEL");
    if (path == nullptr || *path == '\0') GTEST_SKIP() << "STATOR_MODEL names no model file";
    std::vector<std::string> texts;
    for (const char* name : {"english.txt", "prompts.txt"}) {
        const fs::path file = fs::path(__FILE__).parent_path() / "../../test/data" / name;
        ASSERT_TRUE(fs::exists(file)) << file;
        texts.push_back(read_file(file));
    }
    texts.emplace_back("<|im_start|>user\nHi<|im_end|>\n");
    expect_round_trip(path, texts);
    EXPECT_TRUE(weights_digest(path));
}

}  // namespace
}  // namespace stator::model
