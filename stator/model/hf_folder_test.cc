#include "stator/model/hf_folder.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <filesystem>
#include <fstream>

namespace stator::model {
namespace {

namespace fs = std::filesystem;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

class HfFolderTest : public testing::Test {
  protected:
    HfFolderTest() {
        std::string made = (fs::temp_directory_path() / "stator-hf-XXXXXX").string();
        if (::mkdtemp(made.data()) == nullptr) throw std::runtime_error("no temporary folder");
        folder_ = made;
        write("config.json",
              R"({"model_type":"qwen3","max_position_embeddings":4096,"eos_token_id":7})");
        write("tokenizer.json", "{}");
    }
    ~HfFolderTest() override {
        std::error_code ec;
        fs::remove_all(folder_, ec);
    }

    void write(const std::string& name, std::string_view text) const {
        std::ofstream(folder_ + "/" + name) << text;
    }
    void remove(const std::string& name) const { fs::remove(folder_ + "/" + name); }

    [[nodiscard]] HfFolder read() const {
        auto folder = HfFolder::read(folder_);
        EXPECT_TRUE(folder.has_value()) << folder.error().message;
        return folder ? *std::move(folder) : HfFolder{};
    }
    [[nodiscard]] Error failure() const {
        auto folder = HfFolder::read(folder_);
        EXPECT_FALSE(folder.has_value());
        return folder ? Error{} : folder.error();
    }

    std::string folder_;
};

TEST_F(HfFolderTest, TheSmallestFolder) {
    const HfFolder f = read();
    EXPECT_EQ(f.facts.name, fs::path(folder_).filename());
    EXPECT_EQ(f.facts.architecture, "qwen3");
    EXPECT_EQ(f.facts.context_tokens, 4096U);
    EXPECT_THAT(f.facts.chat_template, IsEmpty());
    EXPECT_EQ(f.tokenizer_json, "{}");
    EXPECT_THAT(f.tokenizer.end_tokens, ElementsAre(7));
    EXPECT_EQ(f.tokenizer.add_bos, std::nullopt);
    EXPECT_THAT(f.weights_gguf, IsEmpty());
}

TEST_F(HfFolderTest, FactsOfAllFiles) {
    write("tokenizer_config.json", R"({"bos_token":{"content":"<s>","lstrip":false},
        "eos_token":"</s>","add_bos_token":true,"chat_template":"old",
        "model_max_length":1000000000000000019884624838656})");
    write("generation_config.json", R"({"eos_token_id":[2,32007,2,-1,"x"],"temperature":0.6,
        "top_p":0.95,"top_k":20,"min_p":7})");
    write("chat_template.jinja", "{{ messages }}");
    write("weights.gguf", "");
    const HfFolder f = read();
    EXPECT_EQ(f.facts.bos, "<s>");
    EXPECT_EQ(f.facts.eos, "</s>");
    EXPECT_EQ(f.facts.chat_template, "{{ messages }}");
    EXPECT_FLOAT_EQ(f.facts.temperature.value_or(0), 0.6F);
    EXPECT_FLOAT_EQ(f.facts.top_p.value_or(0), 0.95F);
    EXPECT_EQ(f.facts.top_k, 20);
    EXPECT_EQ(f.facts.min_p, std::nullopt) << "out of range: no recommendation";
    EXPECT_EQ(f.tokenizer.add_bos, true);
    EXPECT_THAT(f.tokenizer.end_tokens, ElementsAre(2, 32007));
    EXPECT_EQ(f.weights_gguf, folder_ + "/weights.gguf");
    write("second.gguf", "");
    EXPECT_THAT(read().weights_gguf, IsEmpty()) << "nobody knows which";
}

TEST_F(HfFolderTest, TemplatesWhereverTheyAre) {
    write(
        "tokenizer_config.json",
        R"({"chat_template":[{"name":"tool_use","template":"t"},{"name":"default","template":"d"}]})");
    EXPECT_EQ(read().facts.chat_template, "d");
    write("tokenizer_config.json", R"({"chat_template":[{"name":"rag","template":"r"}]})");
    EXPECT_EQ(read().facts.chat_template, "r");
    write("chat_template.json", R"({"chat_template":"processor's"})");
    EXPECT_EQ(read().facts.chat_template, "processor's");
    write("chat_template.jinja", "\xFF");
    EXPECT_THAT(failure().message, HasSubstr("chat_template.jinja' is not UTF-8"));
}

TEST_F(HfFolderTest, SpecialTextsFromTheirOwnFile) {
    write("special_tokens_map.json", R"({"bos_token":"<b>","eos_token":{"content":"<e>"}})");
    write("tokenizer_config.json", R"({"bos_token":null})");
    EXPECT_EQ(read().facts.bos, "<b>");
    EXPECT_EQ(read().facts.eos, "<e>");
}

TEST_F(HfFolderTest, NamesAsTheHubKeepsThem) {
    const std::string deep = folder_ + "/models--Qwen--Qwen3-8B/snapshots/abc";
    fs::create_directories(deep);
    fs::create_symlink(folder_ + "/config.json", deep + "/config.json");
    fs::create_symlink(folder_ + "/tokenizer.json", deep + "/tokenizer.json");
    const auto f = HfFolder::read(deep + "/");
    ASSERT_TRUE(f.has_value()) << f.error().message;
    EXPECT_EQ(f->facts.name, "Qwen3-8B");
}

TEST_F(HfFolderTest, ErrorsNameTheFile) {
    write("config.json", "{");
    EXPECT_THAT(failure().message, HasSubstr("config.json' is no JSON"));
    write("config.json", "[]");
    EXPECT_THAT(failure().message, HasSubstr("config.json' is array instead of an object"));
    write("config.json", "{}");
    EXPECT_THAT(failure().message, HasSubstr("max_position_embeddings"));
    remove("config.json");
    EXPECT_THAT(failure().message, HasSubstr("has no config.json"));
    EXPECT_EQ(failure().code, ErrorCode::kNotFound);
    write("config.json", R"({"n_positions":8})");
    remove("tokenizer.json");
    EXPECT_THAT(failure().message, HasSubstr("has no tokenizer.json"));
    ASSERT_EQ(::mkfifo((folder_ + "/tokenizer.json").c_str(), 0600), 0);
    EXPECT_THAT(failure().message, HasSubstr("is not a regular file"));
    EXPECT_THAT(HfFolder::read(folder_ + "/config.json").error().message,
                HasSubstr("is a file; give the folder"));
    EXPECT_THAT(HfFolder::read(folder_ + "/none").error().message, HasSubstr("does not exist"));
}

TEST(ContextLength, ByAllItsNames) {
    EXPECT_EQ(context_length(R"({"n_ctx":1024})"), 1024U);
    EXPECT_EQ(context_length(R"({"text_config":{"max_position_embeddings":9}})"), 9U);
    EXPECT_EQ(context_length(R"({"thinker_config":{"text_config":{"seq_length":10}}})"), 10U);
    EXPECT_EQ(context_length(R"({"max_position_embeddings":"many"})"), 0U);
    EXPECT_EQ(context_length(R"({"max_position_embeddings":-4})"), 0U);
    EXPECT_EQ(context_length(R"({"max_position_embeddings":1e300})"), 2147483647U);
    EXPECT_EQ(context_length("nothing"), 0U);
}

TEST(ContextLength, StretchedByRopeScaling) {
    EXPECT_EQ(context_length(R"({"max_position_embeddings":40960,"rope_scaling":
        {"rope_type":"yarn","factor":4.0,"original_max_position_embeddings":32768}})"),
              131072U);
    EXPECT_EQ(context_length(R"({"max_position_embeddings":4096,"rope_scaling":
        {"type":"linear","factor":2}})"),
              8192U);
    EXPECT_EQ(context_length(R"({"max_position_embeddings":131072,"rope_scaling":
        {"rope_type":"llama3","factor":8.0,"original_max_position_embeddings":8192}})"),
              131072U);
    EXPECT_EQ(context_length(R"({"max_position_embeddings":4096,"rope_scaling":null})"), 4096U);
    EXPECT_EQ(context_length(R"({"max_position_embeddings":4096,"rope_scaling":
        {"type":"linear","factor":-2}})"),
              4096U);
}

}  // namespace
}  // namespace stator::model
