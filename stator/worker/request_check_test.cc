#include "stator/worker/request_check.h"

#include <gtest/gtest.h>

#include <functional>
#include <limits>

namespace stator::worker {
namespace {

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

std::string refused(const std::function<void(protocol::GenerateRequest&)>& change) {
    protocol::GenerateRequest request;
    request.prompt = {1};
    change(request);
    engine::EngineInfo engine;
    engine.max_top_logprobs = 20;
    const auto checked = check_request(request, engine);
    return checked ? "" : checked.error().param;
}

TEST(RequestCheck, TakesTheDefaultsAndTheEdges) {
    EXPECT_EQ(refused([](auto&) {}), "");
    EXPECT_EQ(refused([](auto& r) {
                  r.sampling = {.temperature = 2.0F,
                                .top_p = 1.0F,
                                .top_k = 1,
                                .min_p = 0.99F,
                                .frequency_penalty = -2.0F,
                                .presence_penalty = 2.0F,
                                .repetition_penalty = 2.0F,
                                .seed = 0,
                                .logit_bias = {{4'000'000, 100.0F}}};
                  r.top_logprobs = 20;
              }),
              "");
}

TEST(RequestCheck, NamesTheFieldThatIsOutOfRange) {
    EXPECT_EQ(refused([](auto& r) { r.sampling.temperature = kNan; }), "temperature");
    EXPECT_EQ(refused([](auto& r) { r.sampling.temperature = 2.1F; }), "temperature");
    EXPECT_EQ(refused([](auto& r) { r.sampling.top_p = 0.0F; }), "top_p");
    EXPECT_EQ(refused([](auto& r) { r.sampling.top_k = -1; }), "top_k");
    EXPECT_EQ(refused([](auto& r) { r.sampling.min_p = 1.0F; }), "min_p");
    EXPECT_EQ(refused([](auto& r) { r.sampling.min_p = kNan; }), "min_p");
    EXPECT_EQ(refused([](auto& r) { r.sampling.frequency_penalty = -3.0F; }), "frequency_penalty");
    EXPECT_EQ(refused([](auto& r) { r.sampling.presence_penalty = kNan; }), "presence_penalty");
    EXPECT_EQ(refused([](auto& r) { r.sampling.repetition_penalty = 0.0F; }), "repetition_penalty");
    EXPECT_EQ(refused([](auto& r) { r.sampling.logit_bias = {{1, kNan}}; }), "logit_bias");
    EXPECT_EQ(refused([](auto& r) { r.top_logprobs = 21; }), "top_logprobs");
    EXPECT_EQ(refused([](auto& r) { r.top_logprobs = -2; }), "top_logprobs");
}

TEST(RequestCheck, AnAdapterThatIsNotHereMayBeElsewhere) {
    protocol::GenerateRequest request;
    request.prompt = {1};
    request.adapter = "fr";
    engine::EngineInfo engine;
    EXPECT_EQ(check_request(request, engine).error().code, ErrorCode::kUnavailable);
    EXPECT_TRUE(check_request(request, engine).error().retryable);
    engine.adapters = {"de", "fr"};
    EXPECT_TRUE(check_request(request, engine));
}

TEST(RequestCheck, AConstraintNeedsAnEngineThatCanAndHasABound) {
    protocol::GenerateRequest request;
    request.prompt = {1};
    auto constraint = std::make_shared<protocol::OutputConstraint>();
    request.constraint = constraint;
    engine::EngineInfo engine;
    EXPECT_EQ(check_request(request, engine).error().code, ErrorCode::kUnsupported);
    EXPECT_EQ(check_request(request, engine).error().param, "constraint");
    engine.structured_output = true;
    EXPECT_TRUE(check_request(request, engine));
    constraint->text.assign(protocol::kMaxConstraintBytes, 'a');
    EXPECT_TRUE(check_request(request, engine));
    constraint->text += 'a';
    EXPECT_EQ(check_request(request, engine).error().code, ErrorCode::kInvalidArgument);
}

}  // namespace
}  // namespace stator::worker
