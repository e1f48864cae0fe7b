#include "stator/cli/text_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

namespace stator::cli {
namespace {

using ::testing::HasSubstr;

class TextFile : public ::testing::Test {
  protected:
    void SetUp() override {
        std::string pattern = ::testing::TempDir() + "stator-text-XXXXXX";
        ASSERT_NE(mkdtemp(pattern.data()), nullptr);
        folder_ = pattern;
    }
    void TearDown() override { std::filesystem::remove_all(folder_); }
    std::string folder_;
};

TEST_F(TextFile, WhatIsWrittenIsRead) {
    const std::string path = folder_ + "/port";
    ASSERT_TRUE(write_file_at_once("The port file", path, "8000\n").has_value());
    EXPECT_EQ(*read_text_file("The port file", path, 100), "8000\n");
    ASSERT_TRUE(write_file_at_once("The port file", path, "9\n").has_value());
    EXPECT_EQ(*read_text_file("The port file", path, 100), "9\n");
    // Nothing else is left beside it.
    EXPECT_EQ(std::distance(std::filesystem::directory_iterator(folder_), {}), 1);
}

TEST_F(TextFile, BoundsAreExact) {
    const std::string path = folder_ + "/text";
    std::ofstream(path) << std::string(20'000, 'x');
    EXPECT_TRUE(read_text_file("The file", path, 20'000).has_value());
    const auto over = read_text_file("The file", path, 19'999);
    ASSERT_FALSE(over.has_value());
    EXPECT_EQ(over.error().code, ErrorCode::kTooLarge);
}

TEST_F(TextFile, ErrorsNameTheFileAndTheReason) {
    const auto missing = read_text_file("The file", folder_ + "/none", 10);
    ASSERT_FALSE(missing.has_value());
    EXPECT_EQ(missing.error().code, ErrorCode::kNotFound);
    EXPECT_THAT(missing.error().message, HasSubstr("The file \""));
    EXPECT_THAT(missing.error().message, HasSubstr("No such file or directory."));
    EXPECT_THAT(read_text_file("The file", folder_, 10).error().message,
                HasSubstr("Is a directory."));
    const auto nowhere = write_file_at_once("The file", folder_ + "/no/such", "x");
    ASSERT_FALSE(nowhere.has_value());
    EXPECT_THAT(nowhere.error().message, HasSubstr("can't be written"));
    // A folder in the way: the temporary file must not stay behind.
    std::filesystem::create_directories(folder_ + "/taken/full");
    EXPECT_FALSE(write_file_at_once("The file", folder_ + "/taken", "x").has_value());
    EXPECT_EQ(std::distance(std::filesystem::directory_iterator(folder_), {}), 1);
}

}  // namespace
}  // namespace stator::cli
