#include "stator/cli/model_location.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

namespace stator::cli {
namespace {

using ::testing::HasSubstr;

TEST(ServedName, IsWhatPeopleType) {
    EXPECT_EQ(served_name("SmolLM2 135M Instruct"), "smollm2-135m-instruct");
    EXPECT_EQ(served_name("Qwen2.5-0.5B"), "qwen2.5-0.5b");
    EXPECT_EQ(served_name("  a // b_c  "), "a-b_c");
    EXPECT_EQ(served_name("模型"), "model");
    EXPECT_EQ(served_name(""), "model");
}

class DefaultModel : public ::testing::Test {
  protected:
    void SetUp() override {
        std::string pattern = ::testing::TempDir() + "stator-models-XXXXXX";
        ASSERT_NE(mkdtemp(pattern.data()), nullptr);
        folder_ = pattern;
    }
    void TearDown() override { std::filesystem::remove_all(folder_); }
    void touch(const std::string& name) { std::ofstream(folder_ + "/" + name) << "x"; }
    std::string folder_;
};

TEST_F(DefaultModel, NoneSaysHowToGetOne) {
    for (const std::string& folder : {folder_, folder_ + "/missing", std::string()}) {
        const auto found = find_default_model(folder);
        ASSERT_FALSE(found.has_value());
        EXPECT_EQ(found.error().code, ErrorCode::kNotFound);
        EXPECT_THAT(found.error().message, HasSubstr("--model FILE.gguf"));
    }
}

TEST_F(DefaultModel, TheOnlyOneIsTaken) {
    touch("a.gguf");
    touch("a.txt");
    EXPECT_EQ(*find_default_model(folder_), folder_ + "/a.gguf");
}

TEST_F(DefaultModel, MayLieOneFolderDeeper) {
    std::filesystem::create_directories(folder_ + "/0a1b/deeper");
    touch("0a1b/a.gguf");
    touch("0a1b/deeper/b.gguf");
    EXPECT_EQ(*find_default_model(folder_), folder_ + "/0a1b/a.gguf");
    touch("c.gguf");
    EXPECT_FALSE(find_default_model(folder_).has_value());
}

TEST_F(DefaultModel, SeveralNeedAChoiceUnlessOneIsTheDefault) {
    touch("b.gguf");
    touch("a.gguf");
    const auto found = find_default_model(folder_);
    ASSERT_FALSE(found.has_value());
    EXPECT_THAT(found.error().message, HasSubstr("a.gguf, "));
    EXPECT_THAT(found.error().message, HasSubstr("b.gguf."));
    touch("default.gguf");
    EXPECT_EQ(*find_default_model(folder_), folder_ + "/default.gguf");
}

TEST(ModelFolder, FollowsTheEnvironment) {
    // Set for this process alone; the test binary has one thread.
    ::setenv("HOME", "/h", 1);
    ::unsetenv("XDG_CACHE_HOME");
    ::unsetenv("STATOR_CACHE");
    EXPECT_EQ(model_folder(), "/h/.cache/stator/models");
    ::setenv("XDG_CACHE_HOME", "/x", 1);
    EXPECT_EQ(model_folder(), "/x/stator/models");
    ::setenv("STATOR_CACHE", "/s", 1);
    EXPECT_EQ(model_folder(), "/s/models");
    ::unsetenv("XDG_CACHE_HOME");
    ::unsetenv("STATOR_CACHE");
}

}  // namespace
}  // namespace stator::cli
