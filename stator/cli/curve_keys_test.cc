#include "stator/cli/curve_keys.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "stator/cli/scratch_folder.h"

namespace stator::cli {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

class CurveKeysTest : public testing::Test {
  protected:
    std::string file(const std::string& text) { return folder_.write("keys", text); }
    ScratchFolder folder_;
};

TEST_F(CurveKeysTest, WhatKeygenPrintsIsRead) {
    const events::CurveKeys keys = events::make_curve_keys();
    const auto read = read_curve_keys(file("# of the first worker\n" + format_curve_keys(keys)));
    ASSERT_TRUE(read) << read.error().message;
    EXPECT_EQ(read->public_key, keys.public_key);
    EXPECT_EQ(read->secret_key, keys.secret_key);
}

TEST_F(CurveKeysTest, WrongFilesAreToldByTheirLine) {
    const events::CurveKeys keys = events::make_curve_keys();
    EXPECT_THAT(read_curve_keys(file("public short\n")).error().message, HasSubstr("Line 1"));
    EXPECT_THAT(read_curve_keys(file("\nprivate " + keys.secret_key)).error().message,
                HasSubstr("Line 2"));
    EXPECT_THAT(read_curve_keys(file("public " + keys.public_key + "\n")).error().message,
                HasSubstr("a public and a secret key"));
    EXPECT_FALSE(read_curve_keys(folder_.file("absent")));
}

TEST_F(CurveKeysTest, AListOfKeysMayBeginWithTheWordPublic) {
    const std::string a = events::make_curve_keys().public_key;
    const std::string b = events::make_curve_keys().public_key;
    const auto read = read_allowed_curve_keys(file("# ours\n" + a + "\n\npublic " + b + "\n"));
    ASSERT_TRUE(read) << read.error().message;
    EXPECT_THAT(*read, ElementsAre(a, b));
    EXPECT_FALSE(read_allowed_curve_keys(file("# nobody\n")));
    EXPECT_THAT(read_allowed_curve_keys(file("what\n")).error().message, HasSubstr("Line 1"));
}

}  // namespace
}  // namespace stator::cli
