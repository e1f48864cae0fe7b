#include "stator/cli/attached_connector.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "stator/net/http_url.h"

namespace stator::cli {
namespace {

using engine::KvConnector;
using testing::HasSubstr;

config::Settings settings(const std::string& kind, std::vector<std::string> roles,
                          const std::string& connector = {}) {
    config::Settings s;
    s.engine.kind = config::EngineKind::kAttached;
    s.engine.attached = {{kind, "http://10.0.0.7:8000"}};
    s.engine.connector = connector;
    s.worker.roles = std::move(roles);
    return s;
}

TEST(AttachedConnector, IsWhatTheSettingsSay) {
    EXPECT_EQ(connector_of({}).value(), KvConnector::kNone);
    EXPECT_EQ(connector_of(settings("vllm", {})).value(), KvConnector::kNone);
    EXPECT_EQ(connector_of(settings("vllm", {"prefill"}, "nixl")).value(), KvConnector::kVllmNixl);
    EXPECT_EQ(connector_of(settings("vllm", {"aggregated"}, "nixl")).value(),
              KvConnector::kVllmNixl);
    EXPECT_EQ(connector_of(settings("sglang", {"decode"})).value(), KvConnector::kSglang);
    EXPECT_EQ(connector_of(settings("sglang", {"aggregated"}, "any")).value(), KvConnector::kNone)
        << "it was not started to meet others";
    EXPECT_EQ(connector_of(settings("trtllm", {"prefill"})).value(), KvConnector::kTrtllm);
    const auto unsaid = connector_of(settings("vllm", {"prefill"}));
    ASSERT_FALSE(unsaid);
    EXPECT_THAT(unsaid.error().message, HasSubstr("--engine-connector"));
    EXPECT_FALSE(connector_of(settings("vllm", {"decode"}, "telepathy")));
}

TEST(AttachedConnector, GoesWithTheEngineThatWasFound) {
    engine::AttachOptions options;
    options.url = net::parse_http_url("http://10.0.0.7:8000").value();
    options.canary_every = std::chrono::seconds(30);
    engine::FoundEngine found;
    found.kind = engine::EngineKind::kSglang;
    found.version = "0.5.23";
    found.role = "prefill";
    found.bootstrap_port = 9001;
    auto s = settings("sglang", {"prefill"});
    ASSERT_TRUE(set_connector(s, found, options));
    EXPECT_EQ(options.connector, KvConnector::kSglang);
    EXPECT_EQ(options.kv_layout, "sglang/bootstrap/0.5.23");
    EXPECT_EQ(options.meeting.host, "10.0.0.7");
    EXPECT_EQ(options.meeting.port, 9001);
    EXPECT_FALSE(options.decodes_only);
    EXPECT_EQ(options.canary_every.count(), 0) << "it gives no token for the asking";
    s.engine.bootstrap = "192.168.1.7:7";
    ASSERT_TRUE(set_connector(s, found, options));
    EXPECT_EQ(options.meeting.host, "192.168.1.7");
    s.engine.bootstrap = "nowhere";
    EXPECT_FALSE(set_connector(s, found, options));
    s.worker.roles = {"decode"};
    const auto other = set_connector(s, found, options);
    ASSERT_FALSE(other);
    EXPECT_THAT(other.error().message, HasSubstr("--role prefill"));
    found.role = "decode";
    ASSERT_TRUE(set_connector(s, found, options));
    EXPECT_TRUE(options.decodes_only);
    // Whole requests, beside the two.
    found.role = {};
    engine::AttachOptions whole;
    ASSERT_TRUE(set_connector(settings("sglang", {"aggregated"}, "any"), found, whole));
    EXPECT_EQ(whole.connector, KvConnector::kNone);
    EXPECT_EQ(whole.kv_layout, "sglang/bootstrap/0.5.23");
}

}  // namespace
}  // namespace stator::cli
