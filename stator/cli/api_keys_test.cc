#include "stator/cli/api_keys.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <filesystem>
#include <fstream>

namespace stator::cli {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

constexpr const char* kKey = "sk-0123456789abcdef";

TEST(ApiKeys, OneALineWithCommentsAndBlanks) {
    const auto keys = parse_api_keys(
        "# team a\n"
        "  sk-0123456789abcdef \r\n"
        "\n"
        "   \t\n"
        "sk-fedcba9876543210");
    ASSERT_TRUE(keys.has_value());
    EXPECT_THAT(keys->keys, ElementsAre("sk-0123456789abcdef", "sk-fedcba9876543210"));
    EXPECT_THAT(keys->warnings, IsEmpty());
}

TEST(ApiKeys, NameTheirTenants) {
    const auto keys = parse_api_keys(
        "sk-0123456789abcdef tenant=acme weight=2.5\n"
        "sk-1123456789abcdef\n"
        "sk-2123456789abcdef\t tenant=acme hints=yes \r\n");
    ASSERT_TRUE(keys.has_value());
    EXPECT_THAT(keys->keys,
                ElementsAre("sk-0123456789abcdef", "sk-1123456789abcdef", "sk-2123456789abcdef"));
    EXPECT_THAT(keys->tenants, ElementsAre("acme", "key-2", "acme"));
    EXPECT_THAT(keys->trusted, ElementsAre(false, false, true));
    ASSERT_EQ(keys->weights.size(), 1U);
    EXPECT_EQ(keys->weights[0].first, "acme");
    EXPECT_EQ(keys->weights[0].second, 2.5);
    for (const char* bad : {"tenant=", "weight=", "weight=0", "weight=nan", "weight=-1", "acme",
                            "hints=", "hints=maybe"}) {
        EXPECT_FALSE(parse_api_keys(std::string(kKey) + " " + bad)) << bad;
    }
}

TEST(ApiKeys, NoKeyIsAnError) {
    for (const char* text : {"", "\n\n", "# nothing\n   # here\n"}) {
        const auto keys = parse_api_keys(text);
        ASSERT_FALSE(keys.has_value()) << text;
        EXPECT_THAT(keys.error().message, HasSubstr("no API key"));
    }
}

TEST(ApiKeys, ShortAndRepeatedKeysWarnWithoutShowingThem) {
    const auto keys = parse_api_keys("hunter2\nsk-0123456789abcdef\nsk-0123456789abcdef\n");
    ASSERT_TRUE(keys.has_value());
    EXPECT_THAT(keys->keys, ElementsAre("hunter2", "sk-0123456789abcdef"));
    ASSERT_EQ(keys->warnings.size(), 2U);
    EXPECT_THAT(keys->warnings[0], HasSubstr("line 1 has 7 characters"));
    EXPECT_THAT(keys->warnings[1], HasSubstr("line 3 is there twice"));
    for (const auto& w : keys->warnings) {
        EXPECT_THAT(w, Not(HasSubstr("hunter2")));
        EXPECT_THAT(w, Not(HasSubstr(kKey)));
    }
}

TEST(ApiKeys, KeysThatNoHeaderCanCarryAreRefusedByLine) {
    for (const std::string& bad : {std::string("two words"), std::string("sch\xc3\xb6n-0123456789"),
                                   std::string("nul\0key-0123456789", 18), std::string(513, 'k')}) {
        const auto keys = parse_api_keys("# first\n" + bad + "\n");
        ASSERT_FALSE(keys.has_value()) << bad;
        EXPECT_THAT(keys.error().message, HasSubstr("line 2"));
        EXPECT_THAT(keys.error().message, Not(HasSubstr(bad)));
    }
    EXPECT_TRUE(parse_api_keys(std::string(512, 'k')).has_value());
}

class ApiKeyFile : public ::testing::Test {
  protected:
    void SetUp() override {
        std::string pattern = ::testing::TempDir() + "stator-keys-XXXXXX";
        ASSERT_NE(mkdtemp(pattern.data()), nullptr);
        folder_ = pattern;
    }
    void TearDown() override { std::filesystem::remove_all(folder_); }
    std::string write(const std::string& text, mode_t mode) {
        const std::string path = folder_ + "/keys";
        std::ofstream(path) << text;
        chmod(path.c_str(), mode);
        return path;
    }
    std::string folder_;
};

TEST_F(ApiKeyFile, IsRead) {
    const auto keys = read_api_keys(write(std::string(kKey) + "\n", 0600));
    ASSERT_TRUE(keys.has_value());
    EXPECT_THAT(keys->keys, ElementsAre(kKey));
    EXPECT_THAT(keys->warnings, IsEmpty());
}

TEST_F(ApiKeyFile, WarnsWhereEveryoneCanReadIt) {
    const auto keys = read_api_keys(write(std::string(kKey) + "\n", 0644));
    ASSERT_TRUE(keys.has_value());
    ASSERT_EQ(keys->warnings.size(), 1U);
    EXPECT_THAT(keys->warnings[0], HasSubstr("chmod 600"));
}

TEST_F(ApiKeyFile, MissingEmptyFolderAndHuge) {
    const auto missing = read_api_keys(folder_ + "/none");
    ASSERT_FALSE(missing.has_value());
    EXPECT_EQ(missing.error().code, ErrorCode::kNotFound);
    EXPECT_THAT(missing.error().message, HasSubstr("No such file"));
    const auto empty = read_api_keys(write("", 0600));
    ASSERT_FALSE(empty.has_value());
    EXPECT_THAT(empty.error().message, HasSubstr("no API key"));
    EXPECT_FALSE(read_api_keys(folder_).has_value());
    const auto huge = read_api_keys(write(std::string(2 * 1024 * 1024, '#'), 0600));
    ASSERT_FALSE(huge.has_value());
    EXPECT_EQ(huge.error().code, ErrorCode::kTooLarge);
}

}  // namespace
}  // namespace stator::cli
