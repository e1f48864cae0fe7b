#include "stator/loadgen/load_run.h"

#include <gmock/gmock.h>

#include <atomic>
#include <chrono>
#include <future>
#include <map>
#include <string>
#include <vector>

#include "stator/loadgen/scripted_model.h"

namespace stator::loadgen {
namespace {

using report::Outcome;
using std::chrono::milliseconds;
using testing::HasSubstr;
using workload::RequestSpec;

constexpr milliseconds kPatience{20'000};  // then a test fails instead of hanging

class Listed final : public workload::Workload {
  public:
    explicit Listed(std::vector<RequestSpec> specs) : specs_(std::move(specs)) {}
    std::optional<RequestSpec> next() override {
        if (at_ == specs_.size()) return std::nullopt;
        return specs_[at_++];
    }

  private:
    std::vector<RequestSpec> specs_;
    std::size_t at_ = 0;
};

RequestSpec request(std::uint64_t index, milliseconds start, std::uint32_t output_tokens = 5) {
    RequestSpec r;
    r.index = r.session = index;
    r.start = start;
    r.prompt = {{index + 1, 27, std::nullopt}};
    r.output_tokens = output_tokens;
    return r;
}

std::vector<RequestSpec> requests(std::uint64_t count, milliseconds apart) {
    std::vector<RequestSpec> out;
    for (std::uint64_t i = 0; i < count; ++i) out.push_back(request(i, apart * i));
    return out;
}

class LoadRunTest : public testing::Test {
  protected:
    LoadRunTest() { loop_.start(); }
    ~LoadRunTest() override {
        run_.reset();
        loop_.stop();
    }

    Result<Server> find(const std::string& url, ServerOptions options = {}) {
        options.url = url;
        return find_server(std::move(options), loop_, Clock::real(), {});
    }
    Server found(const std::string& url, ServerOptions options = {}) {
        auto server = find(url, std::move(options));
        EXPECT_TRUE(server.has_value()) << server.error().message;
        return std::move(*server);
    }
    LoadRun& begin(const Server& server, std::vector<RequestSpec> specs, RunOptions options = {}) {
        run_ = std::make_unique<LoadRun>(loop_, server, std::make_unique<Listed>(std::move(specs)),
                                         std::move(options), Clock::real());
        run_->start();
        return *run_;
    }
    report::Report finish() {
        EXPECT_TRUE(run_->wait(kPatience));
        return run_->report();
    }

    runtime::Loop loop_{"load"};
    std::unique_ptr<LoadRun> run_;
};

TEST_F(LoadRunTest, FindsModelAndHowWordsCount) {
    ScriptedModel model;
    const Server server = found(model.url() + "/v1/");
    EXPECT_EQ(server.dialect.model, "scripted");
    EXPECT_DOUBLE_EQ(server.dialect.tokens_per_word, 2.0);
    EXPECT_DOUBLE_EQ(server.dialect.frame_tokens, 7.0);
    EXPECT_EQ(server.warning, "");
    EXPECT_EQ(model.asked(), 2u);
}

TEST_F(LoadRunTest, SaysWhyAServerCantBeUsed) {
    const net::RefusingPort port;
    const auto nobody = find(port.url());
    ASSERT_FALSE(nobody.has_value());
    EXPECT_EQ(nobody.error().code, ErrorCode::kUnavailable);
    EXPECT_THAT(nobody.error().message, HasSubstr("No server answers at http://127.0.0.1"));
    EXPECT_THAT(nobody.error().message, HasSubstr("refused"));

    net::ScriptedServer locked([](net::ScriptedConnection& c) {
        while (!c.read_request().empty()) c.answer(R"({"error":{"message":"no key"}})", "401 No");
    });
    const auto denied = find(locked.url());
    ASSERT_FALSE(denied.has_value());
    EXPECT_EQ(denied.error().code, ErrorCode::kUnauthenticated);
    EXPECT_THAT(denied.error().message, HasSubstr("no key"));

    net::ScriptedServer empty([](net::ScriptedConnection& c) {
        while (!c.read_request().empty()) c.answer(R"({"data":[]})");
    });
    EXPECT_EQ(find(empty.url()).error().code, ErrorCode::kNotFound);
    EXPECT_EQ(find("ftp://x").error().code, ErrorCode::kInvalidArgument);
}

TEST_F(LoadRunTest, MeasuresWhatTheServerSays) {
    ScriptedModel model;
    begin(found(model.url()), requests(20, milliseconds(2)));
    const report::Report r = finish();
    EXPECT_EQ(run_->end(), RunEnd::kDone);
    EXPECT_FALSE(r.partial);
    EXPECT_EQ(r.requests, 20u);
    EXPECT_EQ(r.count(Outcome::kOk), 20u);
    EXPECT_EQ(r.input_tokens, 20u * 27) << "a prompt has the tokens that were asked";
    EXPECT_EQ(r.cached_tokens, 20u * 3);
    EXPECT_EQ(r.output_tokens, 20u * 5);
    EXPECT_EQ(r.itl.count, 20u * 4);
    EXPECT_EQ(r.lateness.count, 20u);
    EXPECT_GE(r.seconds, 0.038);
    EXPECT_EQ(run_->pieces(), 100u);
    EXPECT_TRUE(r.warnings.empty()) << r.warnings[0];
}

TEST_F(LoadRunTest, EveryWayToFailHasItsName) {
    std::promise<void> over;
    const auto when_over = over.get_future().share();
    ScriptedModel model([when_over](net::ScriptedConnection& c, std::size_t n) {
        switch (n) {
            case 2:  // 0 and 1 are the calibration
                return c.answer(R"({"error":{"message":"busy"}})", "429 Busy");
            case 3:
                return c.answer("broken", "500 Oh");
            case 4:
                c.reset();
                return true;
            case 5:
                c.send("SSH-2.0-x\r\n");
                return true;
            case 6:
                c.send(std::string(ScriptedModel::kStreamHead) + ScriptedModel::piece("a"));
                c.close();
                return true;
            case 7:
                c.send(std::string(ScriptedModel::kStreamHead) + ScriptedModel::piece("a"));
                when_over.wait();
                c.close();
                return true;
            case 8:
                c.send(std::string(ScriptedModel::kStreamHead) + ScriptedModel::piece("a") +
                       ScriptedModel::chunk(R"({"error":{"message":"no memory"}})") + "0\r\n\r\n");
                return true;
            default:
                return false;
        }
    });
    // One at a time, so that each meets its own fate.
    begin(found(model.url(), {.silence_timeout = milliseconds(100)}), requests(10, milliseconds(0)),
          {.concurrency = 1});
    const report::Report r = finish();
    over.set_value();
    EXPECT_EQ(run_->end(), RunEnd::kDone);
    EXPECT_EQ(r.requests, 10u);
    EXPECT_EQ(r.count(Outcome::kOk), 3u);
    EXPECT_EQ(r.count(Outcome::kRefused), 1u);
    EXPECT_EQ(r.count(Outcome::kHttpError), 1u);
    EXPECT_EQ(r.count(Outcome::kReset), 2u);
    EXPECT_EQ(r.count(Outcome::kTimeout), 1u);
    EXPECT_EQ(r.count(Outcome::kBadAnswer), 1u);
    EXPECT_EQ(r.count(Outcome::kServerError), 1u);
    EXPECT_EQ(r.lost_output_tokens, 3u);
    EXPECT_THAT(r.warnings, testing::Contains(HasSubstr("http 429 (1 times): busy")));
    EXPECT_THAT(r.warnings, testing::Contains(HasSubstr("no memory")));
}

TEST_F(LoadRunTest, ClosedLoopKeepsItsNumber) {
    // After two of calibration: the first three are answered once all of them are there.
    std::promise<void> go;
    const auto gone = go.get_future().share();
    std::atomic<int> there{0};
    ScriptedModel model([&](net::ScriptedConnection&, std::size_t n) {
        if (n < 2 || n >= 5) return false;
        if (++there == 3) go.set_value();
        gone.wait_for(std::chrono::seconds(10));
        return false;
    });
    const Server server = found(model.url());
    begin(server, requests(40, milliseconds(0)), {.concurrency = 3});
    EXPECT_EQ(finish().count(Outcome::kOk), 40u);
    EXPECT_EQ(model.most_at_once(), 3u);
}

TEST_F(LoadRunTest, OpenLoopDoesNotWaitForAnswersAndItsBoundShowsAsLateness) {
    std::promise<void> go;
    const auto gone = go.get_future().share();
    ScriptedModel model([gone](net::ScriptedConnection&, std::size_t n) {
        if (n >= 2) gone.wait();
        return false;
    });
    const Server server = found(model.url());
    LoadRun& run = begin(server, requests(8, milliseconds(1)), {.max_in_flight = 6});
    while (model.asked() < 8) {
        ASSERT_FALSE(run.wait(milliseconds(1)));
    }
    ASSERT_FALSE(run.wait(milliseconds(50)));
    EXPECT_EQ(model.asked(), 8u) << "two of calibration and the six that may run";
    go.set_value();
    const report::Report r = finish();
    EXPECT_EQ(r.count(Outcome::kOk), 8u);
    EXPECT_GE(r.lateness.max, 40.0);
    EXPECT_GE(r.ttft.min, 40.0) << "latencies count from the fixed starts";
}

TEST_F(LoadRunTest, ATurnHasWhatWasReallySaid) {
    ScriptedModel model;
    RequestSpec second = request(1, milliseconds(20));
    second.session = 0;
    second.after = 0;
    second.prompt = {{1, 27, std::nullopt}, {9, 5, 0}, {2, 10, std::nullopt}};
    const Server server = found(model.url());
    begin(server, {request(0, milliseconds(0)), second});
    const report::Report r = finish();
    EXPECT_EQ(r.count(Outcome::kOk), 2u);
    EXPECT_GE(r.seconds, 0.02);
    const auto bodies = model.bodies();
    ASSERT_EQ(bodies.size(), 4u);
    EXPECT_THAT(bodies[3], HasSubstr(R"("role":"assistant","content":"w0 w1 w2 w3 w4 \n")"));
    // The second prompt begins with all of the first.
    const auto begin = bodies[2].find("\"messages\":");
    const auto end = bodies[2].find("\"}]", begin);
    EXPECT_THAT(bodies[3], HasSubstr(bodies[2].substr(begin, end - begin)));
}

TEST_F(LoadRunTest, AServerThatDiesEndsTheRunWithWhatWasMeasured) {
    std::promise<void> dead;
    const auto is_dead = dead.get_future().share();
    ScriptedModel* server = nullptr;
    ScriptedModel model([&](net::ScriptedConnection& c, std::size_t n) {
        if (n < 6) return false;
        if (n == 6) {
            server->stop_listening();
            dead.set_value();
        }
        is_dead.wait();
        c.reset();
        return true;
    });
    server = &model;
    begin(found(model.url()), requests(100, milliseconds(1)),
          {.concurrency = 1, .max_connect_failures = 5});
    const report::Report r = finish();
    EXPECT_EQ(run_->end(), RunEnd::kServerGone);
    EXPECT_THAT(run_->why(), HasSubstr("5 connections in a row failed"));
    EXPECT_TRUE(r.partial);
    EXPECT_EQ(r.count(Outcome::kOk), 4u);
    EXPECT_EQ(r.count(Outcome::kReset), 1u);
    EXPECT_EQ(r.count(Outcome::kConnect), 5u);
    EXPECT_EQ(r.requests, 10u);
}

TEST_F(LoadRunTest, StoppingCancelsAndKeepsWhatWasMeasured) {
    std::promise<void> over;
    const auto when_over = over.get_future().share();
    ScriptedModel model([when_over](net::ScriptedConnection&, std::size_t n) {
        if (n >= 4) when_over.wait();
        return false;
    });
    LoadRun& run = begin(found(model.url()), requests(1'000, milliseconds(2)));
    while (model.asked() < 10) {
        ASSERT_FALSE(run.wait(milliseconds(1)));
    }
    run.stop();
    const report::Report r = finish();
    over.set_value();
    EXPECT_EQ(run.end(), RunEnd::kStopped);
    EXPECT_TRUE(r.partial);
    EXPECT_EQ(r.count(Outcome::kOk), 2u);
    EXPECT_GE(r.count(Outcome::kUnfinished), 6u);
    EXPECT_LT(r.requests, 1'000u);
}

TEST_F(LoadRunTest, TheDrainCutsOff) {
    std::promise<void> over;
    const auto when_over = over.get_future().share();
    ScriptedModel model([when_over](net::ScriptedConnection&, std::size_t n) {
        if (n >= 4) when_over.wait();
        return false;
    });
    begin(found(model.url()), requests(5, milliseconds(1)), {.drain = milliseconds(50)});
    const report::Report r = finish();
    over.set_value();
    EXPECT_EQ(run_->end(), RunEnd::kDone);
    EXPECT_EQ(r.count(Outcome::kOk), 2u);
    EXPECT_EQ(r.count(Outcome::kUnfinished), 3u);
    EXPECT_THAT(r.warnings, testing::Contains(HasSubstr("cut off")));
}

TEST_F(LoadRunTest, ARequestThatCantBeWrittenEndsTheRun) {
    ScriptedModel model;
    RequestSpec picture = request(0, milliseconds(0));
    picture.images = {{1, 8, 8}};
    begin(found(model.url(), {.api = Api::kTokens}), {picture});
    const report::Report r = finish();
    EXPECT_EQ(run_->end(), RunEnd::kBadRequest);
    EXPECT_THAT(run_->why(), HasSubstr("images"));
    EXPECT_EQ(r.requests, 0u);
}

TEST_F(LoadRunTest, AnEmptyWorkloadIsDoneAtOnce) {
    ScriptedModel model;
    begin(found(model.url()), {});
    EXPECT_EQ(finish().requests, 0u);
    EXPECT_EQ(run_->end(), RunEnd::kDone);
}

}  // namespace
}  // namespace stator::loadgen
