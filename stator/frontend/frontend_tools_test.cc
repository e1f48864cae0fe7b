// Tools and thinking over loopback HTTP: a scripted engine writes what a model would.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <regex>

#include "stator/frontend/loopback_door.h"
#include "stator/frontend/scripted_engine.h"

namespace stator::frontend {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

constexpr const char* kTools =
    R"("tools":[{"type":"function","function":{"name":"look","parameters":{"type":"object",)"
    R"("properties":{"at":{"type":"string"}}}}},{"type":"function","function":{"name":"wait"}}])";
constexpr const char* kTwoCalls =
    "<tool_call>\n{\"name\": \"look\", \"arguments\": {\"at\": \"sky\"}}\n</tool_call>\n"
    "<tool_call>\n{\"name\": \"wait\", \"arguments\": {}}\n</tool_call>";

/// A door in front of a model that writes `text`.
class Scripted {
  public:
    explicit Scripted(const std::string& text, text::OutputFormat format = {"hermes", ""},
                      std::uint32_t tokens_per_step = 1000)
        : engine_(std::make_shared<ScriptedEngine>(*byte_tokenizer(), text, tokens_per_step)),
          door_(DoorModel{.engine = engine_, .format = std::move(format)}) {}
    explicit Scripted(DoorModel model, std::shared_ptr<ScriptedEngine> engine)
        : engine_(std::move(engine)), door_(std::move(model)) {}

    net::HttpClientResponse ask(const std::string& extra) {
        return door_.chat("Hi", R"("max_tokens":4000,)" + extra);
    }
    Json whole(const std::string& extra) {
        const auto response = ask(extra);
        EXPECT_EQ(response.status, 200) << response.body;
        return Json(response.body);
    }
    /// The deltas of a stream and, as "finish_reason", its end.
    std::vector<std::string> deltas(const std::string& extra) {
        const auto events = events_of(ask(extra + R"(,"stream":true)"));
        EXPECT_EQ(events.back(), "[DONE]");
        std::vector<std::string> out;
        for (std::size_t i = 0; i + 1 < events.size(); ++i) {
            const Json json(events[i]);
            std::string delta;
            json.at("choices", 0, "delta").write_to(delta);
            // Ids are random.
            delta = std::regex_replace(delta, std::regex(R"(call_[0-9A-Za-z]{24}")"), "ID\"");
            const auto finish = json.at("choices", 0, "finish_reason").as_string();
            out.push_back(finish ? delta + " " + std::string(*finish) : delta);
        }
        return out;
    }
    /// Of the model's counter of this name.
    std::string counter(const std::string& name) {
        const std::string text = door_.metrics();
        const std::string line = "\n" + name + "{model=\"org/echo\"} ";
        const std::size_t at = text.find(line);
        if (at == std::string::npos) return "not there";
        return text.substr(at + line.size(), text.find('\n', at + 1) - at - line.size());
    }
    ScriptedEngine& engine() { return *engine_; }
    Door& door() { return door_; }

  private:
    std::shared_ptr<ScriptedEngine> engine_;
    Door door_;
};

constexpr const char* kRole = R"({"role":"assistant","content":null,"refusal":null})";

TEST(FrontendTools, CallsWhole) {
    Scripted model(std::string("One moment.\n") + kTwoCalls);
    const Json json = model.whole(kTools);
    EXPECT_EQ(json.str("choices", 0, "finish_reason"), "tool_calls");
    EXPECT_THAT(json.str("choices", 0, "message", "content"), HasSubstr("One moment."));
    EXPECT_TRUE(json.at("choices", 0, "message", "refusal").is_null());
    const auto call = [&](int i, const char* key) {
        return json.str("choices", 0, "message", "tool_calls", i, "function", key);
    };
    ASSERT_EQ(json.at("choices", 0, "message", "tool_calls").size(), 2U);
    EXPECT_EQ(json.str("choices", 0, "message", "tool_calls", 0, "type"), "function");
    EXPECT_THAT(json.str("choices", 0, "message", "tool_calls", 0, "id"),
                testing::MatchesRegex("call_[0-9A-Za-z]{24}"));
    EXPECT_NE(json.str("choices", 0, "message", "tool_calls", 0, "id"),
              json.str("choices", 0, "message", "tool_calls", 1, "id"));
    EXPECT_EQ(call(0, "name"), "look");
    EXPECT_EQ(call(0, "arguments"), R"({"at": "sky"})");
    EXPECT_EQ(call(1, "name"), "wait");
    EXPECT_EQ(call(1, "arguments"), "{}");
    EXPECT_EQ(model.counter("stator_tool_calls_total"), "2");
    EXPECT_EQ(model.counter("stator_tool_call_faults_total"), "0");
}

TEST(FrontendTools, ContentIsNullWhereThereAreOnlyCalls) {
    const Json json = Scripted(kTwoCalls).whole(kTools);
    EXPECT_TRUE(json.at("choices", 0, "message", "content").present());
    EXPECT_TRUE(json.at("choices", 0, "message", "content").is_null());
}

TEST(FrontendTools, CallsStreamed) {
    // One step: one chunk for each thing in it.
    EXPECT_THAT(
        Scripted(kTwoCalls).deltas(kTools),
        ElementsAre(
            kRole,
            R"({"tool_calls":[{"index":0,"id":"ID","type":"function","function":{"name":"look","arguments":""}}]})",
            R"({"tool_calls":[{"index":0,"function":{"arguments":"{\"at\": \"sky\"}"}}]})",
            R"({"tool_calls":[{"index":1,"id":"ID","type":"function","function":{"name":"wait","arguments":""}}]})",
            R"({"tool_calls":[{"index":1,"function":{"arguments":"{}"}}]})", "{} tool_calls"));
}

TEST(FrontendTools, StreamsOfAnyStepSayTheSame) {
    for (const std::uint32_t step : {1U, 2U, 7U, 1000U}) {
        std::string content;
        std::vector<std::string> names;
        std::vector<std::string> arguments;
        Scripted model(std::string("Well, ") + kTwoCalls, {"hermes", ""}, step);
        const auto deltas = model.deltas(kTools);
        for (const std::string& delta : deltas) {
            const Json json(delta.substr(0, delta.rfind('}') + 1));
            if (const auto s = json.at("content").as_string()) content += *s;
            const auto call = json.at("tool_calls", 0);
            if (!call.present()) continue;
            EXPECT_EQ(json.at("tool_calls").size(), 1U);
            const auto index = static_cast<std::size_t>(*call.find("index").as_int());
            if (call.find("id").present()) {
                EXPECT_EQ(index, names.size());
                names.emplace_back(*call.find("function").find("name").as_string());
                arguments.emplace_back();
            }
            ASSERT_LT(index, arguments.size());
            arguments[index] += *call.find("function").find("arguments").as_string();
        }
        EXPECT_EQ(content, "Well, ");
        EXPECT_THAT(names, ElementsAre("look", "wait"));
        EXPECT_THAT(arguments, ElementsAre(R"({"at": "sky"})", "{}"));
        EXPECT_EQ(deltas.back(), "{} tool_calls");
    }
}

TEST(FrontendTools, WithoutToolsCallsAreText) {
    Scripted model(kTwoCalls);
    for (const char* extra : {R"("n":1)", R"("tool_choice":"none")"}) {
        const Json json = model.whole(extra);
        EXPECT_EQ(json.str("choices", 0, "message", "content"), kTwoCalls);
        EXPECT_FALSE(json.at("choices", 0, "message", "tool_calls").present());
        EXPECT_EQ(json.str("choices", 0, "finish_reason"), "stop");
    }
    const Json none = model.whole(std::string(kTools) + R"(,"tool_choice":"none")");
    EXPECT_EQ(none.str("choices", 0, "message", "content"), kTwoCalls);
}

TEST(FrontendTools, AnAnswerWithoutCallsIsAnAnswer) {
    Scripted model("It is <b>blue</b>.");
    const Json json = model.whole(kTools);
    EXPECT_EQ(json.str("choices", 0, "message", "content"), "It is <b>blue</b>.");
    EXPECT_FALSE(json.at("choices", 0, "message", "tool_calls").present());
    EXPECT_EQ(json.str("choices", 0, "finish_reason"), "stop");
    EXPECT_THAT(model.deltas(kTools),
                ElementsAre(kRole, R"({"content":"It is <b>blue</b>."})", "{} stop"));
}

TEST(FrontendTools, CutOffCallsKeepWhatTheyHad) {
    Scripted model(kTwoCalls);
    const Json json(model.door().chat("Hi", std::string(R"("max_tokens":50,)") + kTools).body);
    EXPECT_EQ(json.str("choices", 0, "finish_reason"), "length");
    EXPECT_EQ(json.str("choices", 0, "message", "tool_calls", 0, "function", "name"), "look");
    EXPECT_THAT(json.str("choices", 0, "message", "tool_calls", 0, "function", "arguments"),
                testing::StartsWith("{\"at"));
    EXPECT_EQ(model.counter("stator_tool_call_faults_total"), "1");
}

TEST(FrontendTools, OneCallWhereParallelOnesAreUnwelcome) {
    Scripted model(kTwoCalls, {"hermes", ""}, 1);
    const Json json = model.whole(std::string(kTools) + R"(,"parallel_tool_calls":false)");
    EXPECT_EQ(json.at("choices", 0, "message", "tool_calls").size(), 1U);
    EXPECT_EQ(json.str("choices", 0, "finish_reason"), "tool_calls");
    // The rest is not waited for.
    EXPECT_EQ(model.engine().cancelled(), 1);
    EXPECT_LT(json.num("usage", "completion_tokens"), 80);
    EXPECT_EQ(model.deltas(std::string(kTools) + R"(,"parallel_tool_calls":false)").back(),
              "{} tool_calls");
}

TEST(FrontendTools, RequiredCallsAreForced) {
    Scripted model(R"([{"name": "wait", "parameters": {}}])", {"", ""});
    const std::string extra = std::string(kTools) + R"(,"tool_choice":"required")";
    const Json json = model.whole(extra);
    EXPECT_EQ(json.str("choices", 0, "message", "tool_calls", 0, "function", "name"), "wait");
    EXPECT_EQ(json.str("choices", 0, "finish_reason"), "tool_calls");
    const auto requests = model.engine().requests();
    ASSERT_EQ(requests.size(), 1U);
    ASSERT_NE(requests[0].constraint, nullptr);
    EXPECT_EQ(requests[0].constraint->kind, protocol::OutputConstraint::Kind::kJsonSchema);
    EXPECT_THAT(requests[0].constraint->text, HasSubstr(R"("minItems":1)"));
    EXPECT_THAT(requests[0].constraint->text, HasSubstr(R"("const":"look")"));
    EXPECT_THAT(
        model.deltas(extra),
        ElementsAre(
            kRole,
            R"({"tool_calls":[{"index":0,"id":"ID","type":"function","function":{"name":"wait","arguments":""}}]})",
            R"({"tool_calls":[{"index":0,"function":{"arguments":"{}"}}]})", "{} tool_calls"));
}

TEST(FrontendTools, ANamedCallEndsAsOpenAIs) {
    Scripted model(R"({"at": "sea"})", {"", ""});
    const Json json = model.whole(
        std::string(kTools) + R"(,"tool_choice":{"type":"function","function":{"name":"look"}})");
    EXPECT_EQ(json.str("choices", 0, "message", "tool_calls", 0, "function", "name"), "look");
    EXPECT_EQ(json.str("choices", 0, "message", "tool_calls", 0, "function", "arguments"),
              R"({"at": "sea"})");
    EXPECT_EQ(json.str("choices", 0, "finish_reason"), "stop");
    EXPECT_EQ(model.engine().requests()[0].constraint->text,
              R"({"type":"object","properties":{"at":{"type":"string"}}})");
}

TEST(FrontendTools, WhatTheModelCannotDoIsRefused) {
    Scripted model("x", {"", ""});
    expect_error(model.ask(kTools), 400, "tools", "unsupported_parameter");
    const auto engine = std::make_shared<ScriptedEngine>(*byte_tokenizer(), "x", 1, false);
    Scripted free(DoorModel{.engine = engine, .format = {"hermes", ""}}, engine);
    expect_error(free.ask(std::string(kTools) + R"(,"tool_choice":"required")"), 400, "tool_choice",
                 "unsupported_parameter");
    EXPECT_TRUE(engine->requests().empty());
}

TEST(FrontendTools, Thinking) {
    Scripted model("<think>\nHm.\n</think>\n\nBlue.", {"", "qwen3"}, 3);
    const Json json = model.whole(R"("n":1)");
    EXPECT_THAT(json.str("choices", 0, "message", "reasoning_content"), HasSubstr("Hm."));
    EXPECT_THAT(json.str("choices", 0, "message", "content"), HasSubstr("Blue."));
    EXPECT_THAT(json.str("choices", 0, "message", "content"), testing::Not(HasSubstr("Hm.")));
    const auto thought = json.num("usage", "completion_tokens_details", "reasoning_tokens");
    EXPECT_GE(thought, 5);
    EXPECT_LT(thought, json.num("usage", "completion_tokens") - 5);
    EXPECT_EQ(model.counter("stator_reasoning_tokens_total"), std::to_string(thought));
    std::string reasoning;
    std::string content;
    for (const std::string& delta : model.deltas(R"("n":1)")) {
        const Json part(delta.substr(0, delta.rfind('}') + 1));
        if (const auto s = part.at("reasoning_content").as_string()) reasoning += *s;
        if (const auto s = part.at("content").as_string()) content += *s;
    }
    EXPECT_EQ(reasoning, json.str("choices", 0, "message", "reasoning_content"));
    EXPECT_EQ(content, json.str("choices", 0, "message", "content"));
    const Json without = model.whole(R"("include_reasoning":false)");
    EXPECT_FALSE(without.at("choices", 0, "message", "reasoning_content").present());
    EXPECT_EQ(without.num("usage", "completion_tokens_details", "reasoning_tokens"), thought);
}

TEST(FrontendTools, ThinkingThatTheTemplateBegins) {
    const auto engine = std::make_shared<ScriptedEngine>(*byte_tokenizer(), "Hm.</think>Blue.", 3);
    Scripted model(
        DoorModel{.engine = engine,
                  .chat_template = "{% for m in messages %}{{ m.content }}{% endfor %}<think>\n",
                  .format = {"", "deepseek_r1"}},
        engine);
    const Json json = model.whole(R"("n":1)");
    EXPECT_EQ(json.str("choices", 0, "message", "reasoning_content"), "Hm.");
    EXPECT_EQ(json.str("choices", 0, "message", "content"), "Blue.");
    // A forced call may think first.
    (void)model.ask(std::string(kTools) + R"(,"tool_choice":"required")");
    EXPECT_EQ(engine->requests().back().constraint->after, "</think>");
    // So may an answer with a form.
    (void)model.ask(R"("response_format":{"type":"json_object"})");
    EXPECT_EQ(engine->requests().back().constraint->kind,
              protocol::OutputConstraint::Kind::kJsonObject);
    EXPECT_EQ(engine->requests().back().constraint->after, "</think>");
    // A forced call goes before a form.
    (void)model.ask(std::string(kTools) +
                    R"(,"tool_choice":"required","response_format":{"type":"json_object"})");
    EXPECT_EQ(engine->requests().back().constraint->kind,
              protocol::OutputConstraint::Kind::kJsonSchema);
}

TEST(FrontendTools, ControlTokensAreThereForParsersAlone) {
    // "<|im_end|>" is a control token here.
    Scripted plain("a<|im_end|>b", {"hermes", ""});
    EXPECT_EQ(plain.whole(R"("n":1)").str("choices", 0, "message", "content"), "ab");
    EXPECT_EQ(plain.whole(kTools).str("choices", 0, "message", "content"), "a<|im_end|>b");
}

TEST(FrontendTools, LogprobsGoWithTheFirstChunkOfAStep) {
    Scripted model(kTwoCalls, {"hermes", ""}, 10);
    const std::string extra = std::string(kTools) + R"(,"logprobs":true)";
    const Json whole = model.whole(extra);
    const auto tokens = static_cast<std::size_t>(whole.num("usage", "completion_tokens"));
    EXPECT_EQ(whole.at("choices", 0, "logprobs", "content").size(), tokens - 1);  // but the end's
    const auto events = events_of(model.ask(extra + R"(,"stream":true)"));
    std::size_t seen = 0;
    for (std::size_t i = 0; i + 1 < events.size(); ++i) {
        seen += Json(events[i]).at("choices", 0, "logprobs", "content").size();
    }
    EXPECT_EQ(seen, tokens - 1);
}

TEST(FrontendTools, UsageInEveryEvent) {
    Scripted model("abcdef", {"", ""}, 2);
    const auto events = events_of(model.ask(
        R"("stream":true,"stream_options":{"include_usage":true,"continuous_usage_stats":true})"));
    std::int64_t last = -1;
    for (std::size_t i = 0; i + 1 < events.size(); ++i) {
        const Json json(events[i]);
        EXPECT_EQ(json.num("usage", "prompt_tokens"), 2) << events[i];
        EXPECT_GE(json.num("usage", "completion_tokens"), last);
        last = json.num("usage", "completion_tokens");
    }
    EXPECT_EQ(last, 7);
}

TEST(FrontendTools, GoingOnWithTheLastMessage) {
    const auto engine = std::make_shared<ScriptedEngine>(*byte_tokenizer(), " blue.", 3);
    Door door(DoorModel{.engine = engine,
                        .chat_template =
                            "{% for m in messages %}[{{ m.role }}]{{ m.content }}<|im_end|>"
                            "{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}"});
    const auto ask = [&](const std::string& last, const std::string& extra) {
        return door.post(kChat, R"({"model":"echo","messages":[{"role":"user","content":"?"},)" +
                                    last + "]," + extra + "}");
    };
    const std::string sky = R"({"role":"assistant","content":"The sky is "})";
    const auto prompt = [&] {
        std::string out;
        const auto tokens = engine->requests().back().prompt;
        for (const auto t : tokens) {
            out += byte_tokenizer()->spelling(t);
        }
        return out;
    };
    const Json json(ask(sky, R"("continue_final_message":true)").body);
    EXPECT_EQ(json.str("choices", 0, "message", "content"), " blue.");
    EXPECT_EQ(prompt(), "[user]?<|im_end|>[assistant]The sky is ");
    const Json echo(ask(sky, R"("continue_final_message":true,"echo":true)").body);
    EXPECT_EQ(echo.str("choices", 0, "message", "content"), "The sky is  blue.");
    const auto events =
        events_of(ask(sky, R"("continue_final_message":true,"echo":true,"stream":true)"));
    EXPECT_EQ(Json(events[1]).str("choices", 0, "delta", "content"), "The sky is ");
    (void)ask(sky, R"("add_generation_prompt":false)");
    EXPECT_EQ(prompt(), "[user]?<|im_end|>[assistant]The sky is <|im_end|>");
    expect_error(ask(R"({"role":"assistant","content":null,"reasoning_content":"x"})",
                     R"("continue_final_message":true)"),
                 400, "continue_final_message", "");
}

TEST(FrontendTools, ATemplateThatTrimsIsCutAfterTheTrimmedText) {
    const auto engine = std::make_shared<ScriptedEngine>(*byte_tokenizer(), "x", 3);
    Door door(
        DoorModel{.engine = engine,
                  .chat_template = "{% for m in messages %}{{ m.content | trim }}!{% endfor %}"});
    (void)door.post(kChat, R"({"model":"echo","continue_final_message":true,)"
                           R"("messages":[{"role":"assistant","content":"so it is "}]})");
    std::string prompt;
    const auto tokens = engine->requests().back().prompt;
    for (const auto t : tokens) prompt += byte_tokenizer()->spelling(t);
    EXPECT_EQ(prompt, "so it is");
    Door deaf(DoorModel{.engine = engine, .chat_template = "nothing"});
    expect_error(deaf.post(kChat, R"({"model":"echo","continue_final_message":true,)"
                                  R"("messages":[{"role":"assistant","content":"x"}]})"),
                 400, "continue_final_message", "");
}

}  // namespace
}  // namespace stator::frontend
