#include "stator/kube/endpoint_set.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <rapidcheck.h>

#include <random>

namespace stator::kube {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::UnorderedElementsAre;

std::string endpoint(const std::string& address, const std::string& uid,
                     const std::string& conditions = R"({"ready":true})") {
    return fmt::format(
        R"({{"addresses":["{}"],"conditions":{},"targetRef":)"
        R"({{"kind":"Pod","name":"pod-{}","uid":"{}"}},"nodeName":"n1","zone":"z"}})",
        address, conditions, uid, uid);
}
std::string slice(const std::vector<std::string>& endpoints, const std::string& type = "IPv4",
                  const std::string& ports = R"([{"name":"stator","port":7000}])") {
    std::string all;
    for (const auto& e : endpoints) all += (all.empty() ? "" : ",") + e;
    return fmt::format(
        R"({{"metadata":{{"name":"s"}},"addressType":"{}","ports":{},"endpoints":[{}]}})", type,
        ports, all);
}

class Endpoints : public ::testing::Test {
  protected:
    void put(const std::string& key, const std::string& json) {
        codec::JsonDocument document;
        const auto view = document.parse(json);
        ASSERT_TRUE(view) << view.error().message;
        set_.on_put(key, *view);
    }
    /// "+address" and "-address".
    std::vector<std::string> changes() {
        const auto c = set_.take_changes();
        std::vector<std::string> out;
        for (const auto& e : c.put) out.push_back("+" + net::to_string(e.address).substr(6));
        for (const auto& a : c.gone) out.push_back("-" + net::to_string(a).substr(6));
        return out;
    }
    EndpointSet set_{PortChoice{}};
};

TEST_F(Endpoints, ReadyOnesAreInAndTerminatingOnesAreOut) {
    put("n/s",
        slice({endpoint("10.0.0.1", "a"), endpoint("10.0.0.2", "b", "{}"),
               endpoint("10.0.0.3", "c", R"({"ready":null})"),
               endpoint("10.0.0.4", "d", R"({"ready":false})"),
               endpoint("10.0.0.5", "e", R"({"ready":false,"serving":true,"terminating":true})"),
               endpoint("10.0.0.6", "f", R"({"ready":true,"terminating":true})")}));
    EXPECT_THAT(changes(),
                UnorderedElementsAre("+10.0.0.1:7000", "+10.0.0.2:7000", "+10.0.0.3:7000"));
    EXPECT_THAT(changes(), IsEmpty());
    put("n/s", slice({endpoint("10.0.0.1", "a", R"({"ready":false,"terminating":true})"),
                      endpoint("10.0.0.2", "b"), endpoint("10.0.0.4", "d")}));
    EXPECT_THAT(changes(),
                UnorderedElementsAre("+10.0.0.4:7000", "-10.0.0.1:7000", "-10.0.0.3:7000"));
    set_.on_gone("n/s");
    set_.on_gone("n/s");
    EXPECT_THAT(changes(), UnorderedElementsAre("-10.0.0.2:7000", "-10.0.0.4:7000"));
    EXPECT_EQ(set_.size(), 0U);
}

TEST_F(Endpoints, AnEndpointMayMoveBetweenSlices) {
    put("n/one", slice({endpoint("10.0.0.1", "a"), endpoint("10.0.0.2", "b")}));
    EXPECT_EQ(changes().size(), 2U);
    put("n/two", slice({endpoint("10.0.0.1", "a")}));
    EXPECT_THAT(changes(), IsEmpty());
    put("n/one", slice({endpoint("10.0.0.2", "b")}));
    EXPECT_THAT(changes(), IsEmpty());
    // Terminating in one, still ready in a copy that is behind.
    put("n/one", slice({endpoint("10.0.0.1", "a", R"({"ready":true,"terminating":true})")}));
    EXPECT_THAT(changes(), UnorderedElementsAre("-10.0.0.1:7000", "-10.0.0.2:7000"));
    set_.on_gone("n/two");
    EXPECT_THAT(changes(), IsEmpty());
}

TEST_F(Endpoints, BothFamiliesAreOneEndpoint) {
    put("n/v6", slice({endpoint("fd00::1", "a"), endpoint("fd00::2", "b")}, "IPv6"));
    EXPECT_THAT(changes(), UnorderedElementsAre("+[fd00::1]:7000", "+[fd00::2]:7000"));
    put("n/v4", slice({endpoint("10.0.0.1", "a")}));
    EXPECT_THAT(changes(), UnorderedElementsAre("+10.0.0.1:7000", "-[fd00::1]:7000"));
    put("n/v4", slice({}));
    EXPECT_THAT(changes(), UnorderedElementsAre("-10.0.0.1:7000", "+[fd00::1]:7000"));
}

TEST_F(Endpoints, AnAddressThatPassesToAnotherPodStays) {
    put("n/s", slice({endpoint("10.0.0.1", "old")}));
    EXPECT_THAT(changes(), ElementsAre("+10.0.0.1:7000"));
    put("n/s", slice({endpoint("10.0.0.1", "old", R"({"terminating":true})"),
                      endpoint("10.0.0.1", "new")}));
    EXPECT_THAT(changes(), ElementsAre("+10.0.0.1:7000")) << "with another pod's name";
    put("n/s", slice({endpoint("10.0.0.1", "new")}));
    EXPECT_THAT(changes(), IsEmpty());
}

TEST_F(Endpoints, WhichPort) {
    const auto port_of = [](PortChoice choice, const std::string& ports) -> int {
        EndpointSet set(std::move(choice));
        codec::JsonDocument document;
        set.on_put("n/s",
                   document.parse(slice({endpoint("10.0.0.1", "a")}, "IPv4", ports)).value());
        const auto changes = set.take_changes();
        EXPECT_EQ(changes.put.empty(), !set.complaint().empty());
        return changes.put.empty() ? 0 : changes.put[0].address.port;
    };
    const std::string two = R"([{"name":"http","port":80},{"name":"stator","port":7}])";
    EXPECT_EQ(port_of({}, two), 7);
    EXPECT_EQ(port_of({.name = "http", .number = 0}, two), 80);
    EXPECT_EQ(port_of({.name = "grpc", .number = 0}, two), 0);
    EXPECT_EQ(port_of({.name = "", .number = 9}, two), 9);
    EXPECT_EQ(port_of({.name = "", .number = 9}, "null"), 9);
    EXPECT_EQ(port_of({}, R"([{"name":"x","port":80}])"), 80);
    EXPECT_EQ(port_of({}, R"([{"port":80}])"), 80);
    EXPECT_EQ(port_of({}, R"([{"name":"x","port":80},{"name":"y","port":81}])"), 0);
    for (const std::string none : {"null", "[]", "[{}]", R"([{"port":0}])", R"([{"port":65536}])",
                                   R"([{"port":"80"}])", "7"}) {
        EXPECT_EQ(port_of({}, none), 0) << none;
    }
}

TEST_F(Endpoints, EndpointsWithoutAUsableAddressAreSkipped) {
    put("n/s", slice({"{}", "7", "null", R"({"addresses":[]})", R"({"addresses":null})",
                      R"({"addresses":[7]})", R"({"addresses":["10.0.0"]})",
                      R"({"addresses":["fd00::1"]})", R"({"addresses":["10.0.0.1\u0000"]})",
                      R"({"addresses":["10.0.0.9"]})"}));
    EXPECT_THAT(changes(), ElementsAre("+10.0.0.9:7000"));
    EXPECT_EQ(set_.counts().bad_endpoints, 9U);
    put("n/t", slice({R"({"addresses":["a.example"]})", R"({"addresses":["a b"]})"}, "FQDN"));
    EXPECT_THAT(changes(), ElementsAre("+a.example:7000"));
    for (const std::string nothing : {"{}", "7", "null", R"({"endpoints":7})"}) put("n/s", nothing);
    EXPECT_THAT(changes(), ElementsAre("-10.0.0.9:7000"));
    EXPECT_THAT(set_.complaint(), IsEmpty());
    put("n/s", slice({endpoint("10.0.0.1", "a")}, "IPv4", "[]"));
    EXPECT_THAT(set_.complaint(), HasSubstr("?port="));
}

TEST_F(Endpoints, TheNamesOfPodNodeAndZoneComeAlong) {
    put("n/s", slice({endpoint("10.0.0.1", "a")}));
    const auto changes = set_.take_changes();
    ASSERT_EQ(changes.put.size(), 1U);
    EXPECT_EQ(changes.put[0].pod, "pod-a");
    EXPECT_EQ(changes.put[0].node, "n1");
    EXPECT_EQ(changes.put[0].zone, "z");
}

// Told piece by piece, whatever the history, it is what a new set says of the present slices.
TEST(EndpointSetProperty, ChangesAddUp) {
    EXPECT_TRUE(rc::check([](std::uint64_t seed) {
        std::mt19937_64 random(seed);
        EndpointSet set{PortChoice{}};
        std::map<std::string, std::string> slices;
        std::map<net::SocketAddress, Endpoint> told;
        codec::JsonDocument document;
        for (int step = 0; step < 60; ++step) {
            const auto number = random() % 4;
            const std::string key = "n/" + std::to_string(number);
            if (random() % 5 == 0) {
                slices.erase(key);
                set.on_gone(key);
            } else {
                std::vector<std::string> endpoints;
                for (auto n = random() % 5; n > 0; --n) {
                    endpoints.push_back(endpoint(
                        (number == 3 ? "fd00::" : "10.0.0.") + std::to_string(1 + random() % 5),
                        std::string(1, static_cast<char>('a' + random() % 5)),
                        random() % 4 == 0   ? R"({"ready":false})"
                        : random() % 4 == 0 ? R"({"ready":true,"terminating":true})"
                                            : R"({"ready":true})"));
                }
                slices[key] = slice(endpoints, number == 3 ? "IPv6" : "IPv4");
                set.on_put(key, document.parse(slices[key]).value());
            }
            if (random() % 3 == 0) continue;
            const auto changes = set.take_changes();
            for (const auto& e : changes.put) {
                RC_ASSERT(!told.contains(e.address) || !(told[e.address] == e));
                told[e.address] = e;
            }
            for (const auto& a : changes.gone) RC_ASSERT(told.erase(a) == 1);
        }
        const auto last = set.take_changes();
        for (const auto& e : last.put) told[e.address] = e;
        for (const auto& a : last.gone) told.erase(a);
        EndpointSet fresh{PortChoice{}};
        for (const auto& [key, text] : slices) fresh.on_put(key, document.parse(text).value());
        std::set<net::SocketAddress> expected;
        for (const auto& e : fresh.take_changes().put) expected.insert(e.address);
        std::set<net::SocketAddress> got;
        for (const auto& [address, e] : told) got.insert(address);
        RC_ASSERT(got == expected);
        RC_ASSERT(set.size() == expected.size());
    }));
}

}  // namespace
}  // namespace stator::kube
