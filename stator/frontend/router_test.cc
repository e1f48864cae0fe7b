#include "stator/frontend/router.h"

#include <gtest/gtest.h>

namespace stator::frontend {
namespace {

TEST(Router, FindsTheServedRoutes) {
    EXPECT_EQ(match_route("/v1/chat/completions").route, Route::kChatCompletions);
    EXPECT_EQ(match_route("/v1/completions").route, Route::kCompletions);
    EXPECT_EQ(match_route("/v1/models").route, Route::kModels);
    EXPECT_EQ(match_route("/health").route, Route::kHealth);
    EXPECT_EQ(match_route("/live").route, Route::kLive);
    EXPECT_EQ(match_route("/metrics").route, Route::kMetrics);
}

TEST(Router, DecodesModelIds) {
    EXPECT_EQ(match_route("/v1/models/tiny").model, "tiny");
    EXPECT_EQ(match_route("/v1/models/org/tiny").model, "org/tiny");
    EXPECT_EQ(match_route("/v1/models/org%2Ftiny%2f1").model, "org/tiny/1");
    EXPECT_EQ(match_route("/v1/models/a%").model, "a%");
    EXPECT_EQ(match_route("/v1/models/a%2").model, "a%2");
    EXPECT_EQ(match_route("/v1/models/a%zz").model, "a%zz");
    EXPECT_EQ(match_route("/v1/models/").route, Route::kUnknown);
}

TEST(Router, KnowsWhatIsNotServed) {
    for (const char* path :
         {"/v1/embeddings", "/v1/images/generations", "/v1/audio/speech", "/v1/responses",
          "/v1/responses/abc", "/v1/files", "/v1/batches", "/v1/fine_tuning/jobs",
          "/v1/moderations", "/v1/assistants", "/v1/threads/x/runs", "/v1/chat/completions/id"}) {
        EXPECT_EQ(match_route(path).route, Route::kNotServed) << path;
    }
    for (const char* path : {"/", "", "/v1", "/v1/embeddingsx", "/V1/models", "/v1/models/",
                             "//live", "/v1/completions/"}) {
        EXPECT_EQ(match_route(path).route, Route::kUnknown) << path;
    }
}

TEST(Router, KeysAreAskedForOnTheWholeApi) {
    for (const char* path : {"/v1/models", "/v1/x", "/metrics", "/v1/embeddings", "/v1"}) {
        EXPECT_TRUE(match_route(path).needs_key) << path;
    }
    for (const char* path : {"/health", "/live", "/", "/v1x"}) {
        EXPECT_FALSE(match_route(path).needs_key) << path;
    }
}

TEST(Router, Methods) {
    EXPECT_TRUE(method_allowed(Route::kChatCompletions, "POST"));
    EXPECT_FALSE(method_allowed(Route::kChatCompletions, "GET"));
    EXPECT_FALSE(method_allowed(Route::kChatCompletions, "HEAD"));
    EXPECT_TRUE(method_allowed(Route::kHealth, "GET"));
    EXPECT_TRUE(method_allowed(Route::kHealth, "HEAD"));
    EXPECT_FALSE(method_allowed(Route::kHealth, "POST"));
    EXPECT_FALSE(method_allowed(Route::kUnknown, "GET"));
    for (std::size_t i = 0; i < kRouteCount; ++i)
        EXPECT_FALSE(label(static_cast<Route>(i)).empty());
}

}  // namespace
}  // namespace stator::frontend
