#include "stator/frontend/route_hints.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "stator/codec/json.h"
#include "stator/frontend/sampling_fields.h"

namespace stator::frontend {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

net::HttpRequest with(std::vector<net::HttpHeader> headers) {
    net::HttpRequest r;
    r.headers = std::move(headers);
    return r;
}

Result<BodyHints> body(const std::string& text) {
    codec::JsonDocument document;
    const auto root = document.parse(text);
    if (!root) return tl::unexpected(root.error());
    FieldReader fields(*root);
    RequestRules rules;
    rules.vocab_size = 1000;
    BodyHints out;
    read_body_hints(fields, rules, out);
    if (!fields.ok()) return tl::unexpected(fields.error());
    return out;
}

TEST(RouteHints, NothingSaidNothingMade) {
    const auto h = read_route_hints(with({{"accept", "*/*"}}), {}, true);
    ASSERT_TRUE(h);
    EXPECT_EQ(h->hints, nullptr);
    EXPECT_EQ(h->priority, 0);
    EXPECT_EQ(h->cache_salt, 0U);
}

TEST(RouteHints, ReadsOurHeaders) {
    const auto h = read_route_hints(with({{"x-stator-session", "s"},
                                          {"x-stator-session-hard", "1"},
                                          {"x-stator-worker", "gpu-1"},
                                          {"x-stator-rank", "3"},
                                          {"x-stator-priority", "-2"},
                                          {"x-stator-require", "zone=a, rack=7"},
                                          {"x-stator-prefer", "gpu=h100"},
                                          {"x-stator-tolerate", "old"},
                                          {"x-stator-expected-output", "77"},
                                          {"x-stator-explain", "true"}}),
                                    {}, true);
    ASSERT_TRUE(h);
    const protocol::RouteHints& r = *h->hints;
    EXPECT_EQ(r.session, "s");
    EXPECT_TRUE(r.session_hard);
    EXPECT_EQ(r.worker, "gpu-1");
    EXPECT_EQ(r.rank, 3U);
    EXPECT_EQ(h->priority, -2);
    EXPECT_THAT(r.required_labels, ElementsAre("zone=a", "rack=7"));
    EXPECT_THAT(r.preferred_labels, ElementsAre("gpu=h100"));
    EXPECT_THAT(r.tolerated_taints, ElementsAre("old"));
    EXPECT_EQ(r.expected_output_tokens, 77U);
    EXPECT_TRUE(r.explain);
}

TEST(RouteHints, TrustedOnesNameTheirTenant) {
    const auto tenant = [](std::vector<net::HttpHeader> headers, bool trusted) {
        const auto h = read_route_hints(with(std::move(headers)), {}, trusted);
        return h ? h->tenant : "refused";
    };
    EXPECT_EQ(tenant({{"x-stator-tenant", "acme"}, {"x-tenant-id", "smith"}}, true), "acme");
    EXPECT_EQ(tenant({{"x-tenant-id", "smith"}}, true), "smith");
    EXPECT_EQ(tenant({{"x-stator-tenant", "acme"}, {"x-tenant-id", "smith"}}, false), "");
    EXPECT_EQ(tenant({{"x-stator-tenant", std::string(257, 'a')}}, true), "refused");
}

TEST(RouteHints, ReadsTheReferencesHeaders) {
    const auto h = read_route_hints(with({{"X-Dynamo-Session-ID", "s"},
                                          {"x-dynamo-worker-instance-id", "12345"},
                                          {"x-dynamo-dp-rank", "1"},
                                          {"x-dynamo-request-priority", "5"}}),
                                    {}, true);
    ASSERT_TRUE(h);
    EXPECT_EQ(h->hints->session, "s");
    EXPECT_EQ(h->hints->worker, "12345");
    EXPECT_EQ(h->hints->rank, 1U);
    EXPECT_EQ(h->priority, 5);
    const auto strict = read_route_hints(
        with({{"x-dynamo-request-priority", "-5"}, {"x-dynamo-request-strict-priority", "2"}}), {},
        true);
    EXPECT_EQ(strict->priority, 2);
}

TEST(RouteHints, StrangersMayNameASessionAndASaltAlone) {
    const auto b = body(R"({"cache_salt":"x","nvext":{"backend_instance_id":7,"dp_rank":2,
        "agent_hints":{"priority":9,"osl":12},"session_control":{"session_id":"from-body"}}})");
    ASSERT_TRUE(b);
    const auto h = read_route_hints(
        with({{"x-stator-worker", "w"}, {"x-stator-priority", "9"}, {"x-stator-explain", "1"}}), *b,
        false);
    ASSERT_TRUE(h);
    EXPECT_EQ(h->hints->session, "from-body");
    EXPECT_EQ(h->hints->worker, "");
    EXPECT_FALSE(h->hints->rank);
    EXPECT_FALSE(h->hints->explain);
    EXPECT_EQ(h->hints->expected_output_tokens, 0U);
    EXPECT_EQ(h->priority, 0);
    EXPECT_NE(h->cache_salt, 0U);
    // Rubbish in a header that does not count is no reason to refuse.
    EXPECT_TRUE(read_route_hints(with({{"x-stator-rank", "many"}}), {}, false));
}

TEST(RouteHints, TheBodySaysWhatHeadersLeaveOut) {
    const auto b = body(R"({"nvext":{"backend_instance_id":7,"dp_rank":2,"greed_sampling":true,
        "agent_hints":{"priority":-1,"osl":12,"speculative_prefill":true},
        "annotations":["worker_id"],"extra_fields":["timing"],"token_data":[1,2,3]}})");
    ASSERT_TRUE(b);
    EXPECT_TRUE(b->greedy);
    EXPECT_THAT(b->prompt_tokens, ElementsAre(1, 2, 3));
    const auto alone = read_route_hints(with({}), *b, true);
    EXPECT_EQ(alone->hints->worker, "7");
    EXPECT_EQ(alone->hints->rank, 2U);
    EXPECT_EQ(alone->hints->expected_output_tokens, 12U);
    EXPECT_EQ(alone->priority, -1);
    const auto both = read_route_hints(
        with({{"x-stator-worker", "w"}, {"x-stator-rank", "0"}, {"x-stator-priority", "3"}}), *b,
        true);
    EXPECT_EQ(both->hints->worker, "w");
    EXPECT_EQ(both->hints->rank, 0U);
    EXPECT_EQ(both->priority, 3);
}

TEST(RouteHints, SaltsKeepTenantsApart) {
    const auto salt = [](const char* tenant, const char* text) {
        BodyHints b;
        b.cache_salt = text;
        return read_route_hints(with({{"x-tenant-id", tenant}}), b, false)->cache_salt;
    };
    EXPECT_EQ(salt("", ""), 0U);
    EXPECT_EQ(salt("a", "x"), salt("a", "x"));
    EXPECT_NE(salt("a", "x"), salt("b", "x"));
    EXPECT_NE(salt("a", "x"), salt("a", "y"));
    EXPECT_NE(salt("a", ""), salt("", "a"));
}

TEST(RouteHints, BadHeadersAreNamed) {
    const auto param = [](const char* name, const char* value) {
        const auto h = read_route_hints(with({{name, value}}), {}, true);
        return h ? std::string("none") : h.error().param;
    };
    EXPECT_EQ(param("x-stator-rank", "-1"), "x-stator-rank");
    EXPECT_EQ(param("x-stator-rank", "1"), "x-stator-rank");  // of which worker?
    EXPECT_EQ(param("x-stator-priority", "high"), "x-stator-priority");
    EXPECT_EQ(param("x-stator-priority", "99999999999"), "x-stator-priority");
    EXPECT_EQ(param("x-stator-explain", "maybe"), "x-stator-explain");
    EXPECT_EQ(param("x-stator-session-hard", "2"), "x-stator-session-hard");
    EXPECT_EQ(param("x-stator-expected-output", "0"), "x-stator-expected-output");
    EXPECT_EQ(param("x-stator-session", std::string(300, 's').c_str()), "x-stator-session");
    std::string many;
    for (int i = 0; i < 40; ++i) many += "a,";
    EXPECT_EQ(param("x-stator-require", many.c_str()), "x-stator-require");
}

TEST(BodyHints, BadOnesAreNamedByTheirPath) {
    const auto refused = [](const std::string& nvext) {
        const auto b = body(R"({"nvext":)" + nvext + "}");
        return b ? std::string("none") : b.error().param;
    };
    EXPECT_EQ(refused("3"), "nvext");
    EXPECT_EQ(refused(R"({"dp_rank":-1})"), "nvext.dp_rank");
    EXPECT_EQ(refused(R"({"backend_instance_id":[]})"), "nvext.backend_instance_id");
    EXPECT_EQ(refused(R"({"cache_salt":1})"), "nvext.cache_salt");
    EXPECT_EQ(refused(R"({"agent_hints":[]})"), "nvext.agent_hints");
    EXPECT_EQ(refused(R"({"agent_hints":{"osl":0}})"), "nvext.agent_hints.osl");
    EXPECT_EQ(refused(R"({"agent_hints":{"priority":1e99}})"), "nvext.agent_hints.priority");
    EXPECT_EQ(refused(R"({"token_data":[]})"), "nvext.token_data");
    EXPECT_EQ(refused(R"({"token_data":[1,1000]})"), "nvext.token_data");
    EXPECT_EQ(refused(R"({"use_raw_prompt":true})"), "nvext.use_raw_prompt");
    EXPECT_EQ(refused(R"({"use_raw_prompt":false,"nobody_knows":{}})"), "none");
    EXPECT_THAT(body(R"({"nvext":{"token_data":[5,-1]}})").error().message,
                HasSubstr("nvext.token_data[1]"));
    EXPECT_EQ(body(R"({"cache_salt":")" + std::string(5000, 'x') + R"("})").error().param,
              "cache_salt");
}

TEST(RouteHints, KnowsLocalPeers) {
    EXPECT_TRUE(is_local_peer("127.0.0.1:50312"));
    EXPECT_TRUE(is_local_peer("[::1]:50312"));
    EXPECT_TRUE(is_local_peer("unix"));
    EXPECT_FALSE(is_local_peer("10.0.0.1:50312"));
    EXPECT_FALSE(is_local_peer("128.127.0.1:9"));
}

}  // namespace
}  // namespace stator::frontend
