#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <string>

#include "stator/control/planner/lease.h"
#include "stator/control/planner/supervisor_actuator.h"
#include "stator/control/planner/webhook_actuator.h"

namespace stator::control {
namespace {

using planner::Action;
using planner::Role;
using planner::WorkerState;
using testing::HasSubstr;

/// Remembers its children; starts none.
class PaperSupervisor final : public Supervisor {
  public:
    [[nodiscard]] std::vector<ChildStatus> status() const override { return children; }
    [[nodiscard]] Result<void> add(ChildSpec child) override {
        if (full) return error(ErrorCode::kCancelled, "no more");
        ChildStatus& s = children.emplace_back();
        s.name = std::move(child.name);
        return {};
    }
    [[nodiscard]] Result<void> remove(std::string_view name) override {
        const auto at = std::ranges::find(children, name, &ChildStatus::name);
        if (at == children.end()) return error(ErrorCode::kNotFound, "no child {}", name);
        at->state = ChildState::kStopping;
        return {};
    }
    [[nodiscard]] Result<void> restart_all() override { return {}; }
    void stop_restart() override {}
    void stop() override {}

    std::vector<ChildStatus> children;
    bool full = false;
};

WorkerGroup group(Role role, const std::string& name) {
    return {.role = role, .name = name, .child = [name](std::uint32_t i) {
                return ChildSpec{
                    .name = name + "-" + std::to_string(i), .command = {"x"}, .environment = {}};
            }};
}

Action start(Role role, std::uint32_t count) {
    Action a;
    a.kind = Action::Kind::kStart;
    a.role = role;
    a.count = count;
    return a;
}

std::vector<std::string> names(const PaperSupervisor& supervisor) {
    std::vector<std::string> out;
    for (const ChildStatus& s : supervisor.children) out.push_back(s.name);
    return out;
}

TEST(SupervisorActuator, StartsUnderFreeNamesAndEndsTheVictim) {
    PaperSupervisor supervisor;
    SupervisorActuator actuator(supervisor,
                                {group(Role::kPrefill, "p"), group(Role::kDecode, "d-big")});
    ASSERT_TRUE(actuator.carry_out(start(Role::kPrefill, 2)));
    ASSERT_TRUE(actuator.carry_out(start(Role::kDecode, 1)));
    EXPECT_EQ(names(supervisor), (std::vector<std::string>{"p-0", "p-1", "d-big-0"}));
    Action drain;
    drain.kind = Action::Kind::kDrain;
    drain.worker = "p-0";
    ASSERT_TRUE(actuator.carry_out(drain));
    supervisor.children[1].state = ChildState::kReady;
    auto known = actuator.known();
    ASSERT_EQ(known.size(), 3U);
    EXPECT_EQ(known[0].state, WorkerState::kDraining);
    EXPECT_EQ(known[1].state, WorkerState::kStarting);  // the fleet says who is ready
    EXPECT_EQ(known[2].role, Role::kDecode);
    EXPECT_EQ(known[2].name, "d-big-0");
    // Gone, its name is free.
    supervisor.children.erase(supervisor.children.begin());
    ASSERT_TRUE(actuator.carry_out(start(Role::kPrefill, 2)));
    EXPECT_EQ(names(supervisor), (std::vector<std::string>{"p-1", "d-big-0", "p-0", "p-2"}));
}

TEST(SupervisorActuator, MovesByEndingAndStarting) {
    PaperSupervisor supervisor;
    SupervisorActuator actuator(supervisor,
                                {group(Role::kPrefill, "p"), group(Role::kDecode, "d")});
    ASSERT_TRUE(actuator.carry_out(start(Role::kPrefill, 1)));
    Action move;
    move.kind = Action::Kind::kMove;
    move.worker = "p-0";
    move.role = Role::kPrefill;
    move.to = Role::kDecode;
    ASSERT_TRUE(actuator.carry_out(move));
    EXPECT_EQ(names(supervisor), (std::vector<std::string>{"p-0", "d-0"}));
    EXPECT_EQ(supervisor.children[0].state, ChildState::kStopping);
}

TEST(SupervisorActuator, WhatCantBeDoneIsSaid) {
    PaperSupervisor supervisor;
    SupervisorActuator actuator(supervisor, {group(Role::kPrefill, "p")});
    EXPECT_THAT(actuator.carry_out(start(Role::kEncode, 1)).error().message, HasSubstr("encode"));
    Action drain;
    drain.kind = Action::Kind::kDrain;
    drain.worker = "q-0";
    EXPECT_EQ(actuator.carry_out(drain).error().code, ErrorCode::kNotFound);
    supervisor.full = true;
    EXPECT_EQ(actuator.carry_out(start(Role::kPrefill, 1)).error().code, ErrorCode::kCancelled);
    supervisor.children.emplace_back().name = "frontend";
    EXPECT_TRUE(actuator.known().empty());  // none of its groups
}

TEST(Webhook, SaysWhatIsWanted) {
    Action a = start(Role::kDecode, 2);
    a.id = 7;
    a.expects = "two \"more\"";
    a.because = "b";
    a.deadline = TimePoint{} + std::chrono::seconds(90);
    EXPECT_EQ(webhook_body(a, TimePoint{} + std::chrono::seconds(30)),
              R"({"id":7,"kind":"start","role":"decode","count":2,"expects":"two \"more\"",)"
              R"("because":"b","deadline_s":60.0})");
    a.kind = Action::Kind::kMove;
    a.worker = "w-1";
    a.to = Role::kPrefill;
    EXPECT_THAT(webhook_body(a, TimePoint{} + std::chrono::seconds(300)),
                HasSubstr(R"("kind":"move","role":"decode","worker":"w-1","to":"prefill")"));
    EXPECT_THAT(webhook_body(a, TimePoint{} + std::chrono::seconds(300)),
                HasSubstr(R"("deadline_s":0.0)"));
}

TEST(Webhook, AnswersAcknowledgeOrRefuse) {
    for (const char* body : {"", "done", "{}", "[]", R"({"accepted":true})", R"({"accepted":1})"}) {
        EXPECT_TRUE(read_webhook_answer(200, body)) << body;
        EXPECT_TRUE(read_webhook_answer(202, body)) << body;
        EXPECT_THAT(read_webhook_answer(500, body).error().message, HasSubstr("status 500"));
    }
    EXPECT_THAT(
        read_webhook_answer(200, R"({"accepted":false,"reason":"no quota"})").error().message,
        HasSubstr("refused: no quota"));
    EXPECT_THAT(read_webhook_answer(200, R"({"accepted":false})").error().message,
                HasSubstr("gave no reason"));
}

TEST(Webhook, NobodyThereIsARefusal) {
    // Port 1 of this machine: nobody listens there.
    WebhookActuator webhook(
        {.url = "http://127.0.0.1:1/scale", .key = "k", .timeout = std::chrono::seconds(2)},
        Clock::real());
    EXPECT_FALSE(webhook.carry_out(start(Role::kDecode, 1)));
}

TEST(FileLease, OneAtATimeAndGivenBack) {
    const std::string path =
        testing::TempDir() + "/planner-" + std::to_string(::getpid()) + ".lease";
    FileLease always("");
    EXPECT_TRUE(always.held());
    FileLease second(path);
    {
        FileLease first(path);
        EXPECT_TRUE(first.held());
        EXPECT_TRUE(first.held());
        EXPECT_FALSE(second.held());
        EXPECT_THAT(second.reason(), HasSubstr("another planner is active"));
    }
    EXPECT_TRUE(second.held());
    EXPECT_TRUE(second.reason().empty());
    FileLease nowhere("/nowhere/at/all");
    EXPECT_FALSE(nowhere.held());
    EXPECT_THAT(nowhere.reason(), HasSubstr("can't be opened"));
    std::remove(path.c_str());
}

}  // namespace
}  // namespace stator::control
