#include "stator/frontend/model_directory.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <map>
#include <thread>

#include "stator/engine/echo/echo_engine.h"
#include "stator/text/byte_tokenizer.h"

namespace stator::frontend {
namespace {

/// An engine whose health a test decides.
class Switch final : public engine::Engine {
  public:
    [[nodiscard]] const engine::EngineInfo& info() const override { return info_; }
    [[nodiscard]] Result<void> submit(protocol::GenerateRequest,
                                      std::shared_ptr<engine::StepSink>) override {
        return error(ErrorCode::kUnavailable, "not for use");
    }
    void cancel(engine::RequestId) override {}
    [[nodiscard]] protocol::LoadReport load() const override { return {}; }
    [[nodiscard]] protocol::ForwardPassMetrics forward_pass_metrics() const override { return {}; }
    [[nodiscard]] bool healthy() const override { return healthy_now; }
    void stop(Deadline) override {}

    std::atomic<bool> healthy_now{true};

  private:
    engine::EngineInfo info_;
};

const auto kTokenizer = std::make_shared<const text::ByteTokenizer>(std::vector<std::string>{});

ServedModel model(std::string id, std::string pool, double share,
                  std::shared_ptr<engine::Engine> engine = std::make_shared<Switch>()) {
    ServedModel m;
    m.id = std::move(id);
    m.pool = std::move(pool);
    m.share = share;
    m.tokenizer = kTokenizer;
    m.engine = std::move(engine);
    return m;
}

std::shared_ptr<ModelDirectory> directory(std::vector<ServedModel> models,
                                          const ModelDirectory& before = {}) {
    return std::make_shared<ModelDirectory>(std::move(models), before,
                                            [](const ServedModel&) { return nullptr; });
}

std::map<std::string, int> chosen(const ModelDirectory& d, std::string_view name, int times) {
    std::map<std::string, int> out;
    for (int i = 0; i < times; ++i) ++out[d.find(name)->model.pool];
    return out;
}

TEST(ModelDirectory, AdaptersAreNamesOfTheirModel) {
    auto m = model("tiny", "p", 1);
    m.aliases = {"small"};
    m.adapters = {"fr", "small", "tiny"};
    const auto d = directory({m});
    const auto entry = d->find("fr");
    ASSERT_TRUE(entry);
    EXPECT_EQ(entry->model.id, "tiny");
    EXPECT_EQ(entry->adapter_of("fr"), "fr");
    EXPECT_EQ(entry->adapter_of("tiny"), "") << "its own names are its own";
    EXPECT_EQ(entry->adapter_of("small"), "");
    EXPECT_FALSE(d->find("de"));
    std::string list;
    d->append_list_json(list);
    EXPECT_THAT(list, testing::HasSubstr(R"("id":"fr")"));
    EXPECT_THAT(list, testing::HasSubstr(R"("parent":"tiny")"));
}

TEST(ModelDirectory, TrafficFollowsTheSharesWithinFewRequests) {
    const auto d = directory({model("m", "old", 90), model("m", "new", 10)});
    const auto got = chosen(*d, "m", 100);
    EXPECT_NEAR(got.at("new"), 10, 2);
    EXPECT_NEAR(got.at("old"), 90, 2);
}

TEST(ModelDirectory, ANewSetGoesOnWhereTheOldOneWas) {
    auto d = directory({model("m", "old", 1), model("m", "new", 1)});
    std::map<std::string, int> got;
    for (int i = 0; i < 200; ++i) {
        ++got[d->find("m")->model.pool];
        d = directory(d->models(), *d);
    }
    EXPECT_NEAR(got["new"], 100, 6);
}

TEST(ModelDirectory, TheSickGetNothingWhileOthersAreWell) {
    const auto sick = std::make_shared<Switch>();
    sick->healthy_now = false;
    const auto d = directory({model("m", "a", 99, sick), model("m", "b", 1)});
    EXPECT_EQ(chosen(*d, "m", 50).at("b"), 50);
    const auto all_sick = directory({model("m", "a", 1, sick), model("m", "b", 0, sick)});
    EXPECT_EQ(chosen(*all_sick, "m", 10).at("a"), 10);
}

TEST(ModelDirectory, WhatHasNotChangedIsTakenOver) {
    const auto first = directory({model("m", "a", 1)});
    auto models = first->models();
    models[0].share = 5;
    models.push_back(model("n", "", 1));
    const auto second = directory(std::move(models), *first);
    ASSERT_EQ(second->entries().size(), 2U);
    EXPECT_EQ(second->entries()[0]->guard, first->entries()[0]->guard);
    EXPECT_EQ(second->entries()[0]->model.share, 5);
    EXPECT_EQ(first->entries()[0]->model.share, 1);
}

TEST(ModelDirectory, AliasesBelongToOneModelAndMayBeRepeatedWithinIt) {
    ServedModel a = model("a", "1", 1);
    a.aliases = {"x", "a", "x"};
    ServedModel a2 = model("a", "2", 1);
    a2.aliases = {"x"};
    ServedModel b = model("b", "", 1);
    b.aliases = {"x", "a", "y"};
    const auto d = directory({a, a2, b});
    EXPECT_EQ(d->find("x")->model.id, "a");
    EXPECT_EQ(d->find("a")->model.id, "a");
    EXPECT_EQ(d->find("y")->model.id, "b");
    EXPECT_EQ(chosen(*d, "x", 100).size(), 2U);
    std::string list;
    d->append_list_json(list);
    EXPECT_THAT(list, testing::HasSubstr("\"id\":\"y\""));
}

TEST(ModelDirectory, NothingThereIsADifferentErrorFromNotThere) {
    const auto none = ModelDirectory().require("m");
    EXPECT_EQ(none.error().code, ErrorCode::kUnavailable);
    EXPECT_TRUE(none.error().retryable);
    EXPECT_GT(none.error().retry_after_ms, 0U);
    const auto d = directory({model("m", "", 1)});
    EXPECT_EQ(d->require("n").error().code, ErrorCode::kNotFound);
}

}  // namespace
}  // namespace stator::frontend
