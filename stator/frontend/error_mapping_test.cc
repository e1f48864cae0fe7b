#include "stator/frontend/error_mapping.h"

#include <gtest/gtest.h>

#include <set>

namespace stator::frontend {
namespace {

struct Row {
    ErrorCode code;
    const char* param;
    HttpError http;
};

const Row kTable[] = {
    {ErrorCode::kInvalidArgument, "n", {400, "invalid_request_error", ""}},
    {ErrorCode::kUnauthenticated, "", {401, "invalid_request_error", "invalid_api_key"}},
    {ErrorCode::kPermissionDenied, "", {403, "permission_error", "permission_denied"}},
    {ErrorCode::kNotFound, "model", {404, "invalid_request_error", "model_not_found"}},
    {ErrorCode::kNotFound, "", {404, "invalid_request_error", "not_found"}},
    {ErrorCode::kMethodNotAllowed, "", {405, "invalid_request_error", "method_not_allowed"}},
    {ErrorCode::kTooLarge, "messages", {400, "invalid_request_error", "context_length_exceeded"}},
    {ErrorCode::kUnsupported, "", {501, "invalid_request_error", "not_implemented"}},
    {ErrorCode::kUnsupported, "tools", {400, "invalid_request_error", "unsupported_parameter"}},
    {ErrorCode::kOverloaded, "", {429, "rate_limit_error", "rate_limit_exceeded"}},
    {ErrorCode::kUnavailable, "", {503, "server_error", "service_unavailable"}},
    {ErrorCode::kDeadlineExceeded, "", {504, "timeout_error", "timeout"}},
    {ErrorCode::kCancelled, "", {499, "invalid_request_error", "cancelled"}},
    {ErrorCode::kAborted, "", {409, "server_error", "aborted"}},
    {ErrorCode::kDataLoss, "", {500, "server_error", "data_loss"}},
    {ErrorCode::kExhausted, "", {503, "server_error", "resource_exhausted"}},
    {ErrorCode::kInternal, "", {500, "server_error", "internal_error"}},
    {ErrorCode::kUnknown, "", {500, "server_error", "internal_error"}},
};

TEST(ErrorMapping, EveryCodeHasItsRow) {
    std::set<ErrorCode> seen;
    for (const Row& row : kTable) {
        Error e;
        e.code = row.code;
        e.param = row.param;
        EXPECT_EQ(map_error(e), row.http) << to_string(row.code) << " " << row.param;
        seen.insert(row.code);
    }
    EXPECT_EQ(seen.size(), static_cast<std::size_t>(ErrorCode::kUnknown));
}

TEST(ErrorMapping, RendersOpenAisShape) {
    Error e;
    e.code = ErrorCode::kInvalidArgument;
    e.message = "n must be \"1\"";
    e.param = "n";
    std::string out;
    append_error_json(out, e);
    EXPECT_EQ(
        out,
        R"({"error":{"message":"n must be \"1\"","type":"invalid_request_error","param":"n","code":null}})");
    out.clear();
    append_error_json(out, "too big", map_status(413));
    EXPECT_EQ(
        out,
        R"({"error":{"message":"too big","type":"invalid_request_error","param":null,"code":"request_too_large"}})");
}

TEST(ErrorMapping, StatusesFromBelow) {
    for (const int status : {400, 408, 413, 415, 431, 501, 503, 500, 505}) {
        EXPECT_EQ(map_status(status).status, status);
        EXPECT_FALSE(map_status(status).type.empty());
    }
    EXPECT_EQ(map_status(503).type, "server_error");
    EXPECT_EQ(map_status(400).type, "invalid_request_error");
}

TEST(ErrorMapping, RetryAfterIsAtLeastASecond) {
    Error e;
    EXPECT_EQ(retry_after_seconds(e, 429), 1U);
    EXPECT_EQ(retry_after_seconds(e, 503), 1U);
    EXPECT_EQ(retry_after_seconds(e, 400), 0U);
    e.retry_after_ms = 1001;
    EXPECT_EQ(retry_after_seconds(e, 429), 2U);
    e.retry_after_ms = 3000;
    EXPECT_EQ(retry_after_seconds(e, 503), 3U);
}

}  // namespace
}  // namespace stator::frontend
