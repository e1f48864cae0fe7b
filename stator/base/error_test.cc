#include "stator/base/error.h"

#include <gtest/gtest.h>

#include <set>
#include <string>
#include <string_view>

namespace stator {
namespace {

TEST(Error, CarriesCodeMessageAndPlace) {
    const unsigned line = __LINE__;
    const Result<int> r =
        error(ErrorCode::kNotFound, "model {} is not served here, {} are", "x", 2);
    ASSERT_FALSE(r);
    EXPECT_EQ(r.error().code, ErrorCode::kNotFound);
    EXPECT_EQ(r.error().message, "model x is not served here, 2 are");
    EXPECT_EQ(r.error().param, "");
    EXPECT_FALSE(r.error().retryable);
    EXPECT_GT(r.error().where.line(), line);
    EXPECT_LE(r.error().where.line(), line + 2);
    EXPECT_TRUE(std::string_view(r.error().where.file_name()).ends_with("error_test.cc"));
}

TEST(Error, ParamErrorsNameTheField) {
    const unsigned line = __LINE__;
    const Result<void> r = param_error("max_tokens", "max_tokens is {}; it must be at least 1", -3);
    ASSERT_FALSE(r);
    EXPECT_EQ(r.error().code, ErrorCode::kInvalidArgument);
    EXPECT_EQ(r.error().param, "max_tokens");
    EXPECT_EQ(r.error().message, "max_tokens is -3; it must be at least 1");
    EXPECT_GT(r.error().where.line(), line);
    EXPECT_LE(r.error().where.line(), line + 2);
}

TEST(Error, ValuesFromOutsideAreNotFormats) {
    const Result<void> r = error(ErrorCode::kUnknown, "no route {}", "/{}{0}");
    EXPECT_EQ(r.error().message, "no route /{}{0}");
}

TEST(Error, ResultsChain) {
    const auto half = [](int n) -> Result<int> {
        if (n % 2 != 0) return error(ErrorCode::kInvalidArgument, "{} is odd", n);
        return n / 2;
    };
    EXPECT_EQ(half(8).and_then(half).value(), 2);
    EXPECT_EQ(half(6).and_then(half).error().message, "3 is odd");
}

TEST(Error, EveryCodeHasItsOwnNameAndNumber) {
    std::set<std::string_view> names;
    for (int n = 1; n <= static_cast<int>(ErrorCode::kUnknown); ++n) {
        names.insert(to_string(static_cast<ErrorCode>(n)));
    }
    EXPECT_EQ(names.size(), static_cast<std::size_t>(ErrorCode::kUnknown));
    // The numbers travel between processes.
    EXPECT_EQ(static_cast<int>(ErrorCode::kInvalidArgument), 1);
    EXPECT_EQ(static_cast<int>(ErrorCode::kOverloaded), 8);
    EXPECT_EQ(static_cast<int>(ErrorCode::kUnknown), 16);
    EXPECT_EQ(to_string(ErrorCode::kDeadlineExceeded), "deadline_exceeded");
}

}  // namespace
}  // namespace stator
