#include "stator/cli/worker_door.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>

#include "stator/net/http_client.h"

namespace stator::cli {
namespace {

using testing::HasSubstr;

class WorkerDoorTest : public testing::Test {
  protected:
    WorkerDoorTest() {
        loops_.start();
        registry_.counter("stator_test_total", "For the test.").add(3);
        auto door = WorkerDoor::open(
            "127.0.0.1:0", false,
            [this] {
                protocol::WorkerInfo info;
                info.name = "w";
                info.card.name = "tiny";
                info.loading = loading_;
                info.draining = draining_;
                return info;
            },
            registry_, loops_);
        EXPECT_TRUE(door) << door.error().message;
        door_ = std::move(*door);
    }
    ~WorkerDoorTest() override {
        door_.reset();
        loops_.stop();
    }
    net::HttpClientResponse get(const std::string& path, const std::string& method = "GET") {
        net::HttpClientRequest request;
        request.method = method;
        request.url = fmt::format("http://127.0.0.1:{}{}", door_->port(), path);
        auto response = net::http_request(request);
        EXPECT_TRUE(response) << response.error().message;
        return std::move(*response);
    }

    std::atomic<bool> loading_{false};
    std::atomic<bool> draining_{false};
    metrics::Registry registry_;
    runtime::LoopPool loops_{1, "door"};
    std::unique_ptr<WorkerDoor> door_;
};

TEST_F(WorkerDoorTest, HealthFollowsTheWorker) {
    EXPECT_EQ(get("/health").status, 200);
    EXPECT_THAT(get("/health").body, HasSubstr("\"model\":\"tiny\""));
    loading_ = true;
    EXPECT_EQ(get("/health").status, 503);
    EXPECT_THAT(get("/health").body, HasSubstr("\"loading\""));
    draining_ = true;
    EXPECT_THAT(get("/health").body, HasSubstr("\"draining\""));
    EXPECT_EQ(get("/live").status, 200);
}

TEST_F(WorkerDoorTest, ShowsMetricsAndNothingElse) {
    EXPECT_THAT(get("/metrics").body, HasSubstr("stator_test_total 3"));
    EXPECT_EQ(get("/v1/models").status, 404);
    EXPECT_EQ(get("/health", "POST").status, 405);
}

TEST_F(WorkerDoorTest, WrongAddressesAreRefused) {
    const auto open = [&](const std::string& address) {
        const auto door = WorkerDoor::open(
            address, false, [] { return protocol::WorkerInfo{}; }, registry_, loops_);
        return door ? std::string("opened") : door.error().message;
    };
    EXPECT_THAT(open("0.0.0.0:0"), HasSubstr("--allow-unauthenticated"));
    EXPECT_THAT(open("unix:/tmp/x"), HasSubstr("HOST:PORT"));
    EXPECT_NE(open("nothing"), "opened");
}

}  // namespace
}  // namespace stator::cli
