// What a chat says of messages, tools and the template: every field, good and bad.
#include "stator/frontend/chat_request.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "stator/codec/json.h"

namespace stator::frontend {
namespace {

using Choice = ToolUse::Choice;
using Type = text::ToolShape::Type;

constexpr auto kUnserved = ErrorCode::kUnsupported;

Result<ChatRequest> read(const std::string& body) {
    codec::JsonDocument document;
    auto root = document.parse(body);
    if (!root) return tl::unexpected<Error>(root.error());
    RequestRules rules;
    rules.vocab_size = 1000;
    return read_chat_request(*root, rules);
}
/// A chat with further members.
Result<ChatRequest> with(const std::string& extra) {
    return read(R"({"model":"m","messages":[{"role":"user","content":"Hi"}],)" + extra + "}");
}
Result<ChatRequest> messages(const std::string& json) {
    return read(R"({"model":"m","messages":)" + json + "}");
}

struct BadCase {
    std::string json;
    std::string param;
    ErrorCode code = ErrorCode::kInvalidArgument;
};

void expect_bad(const Result<ChatRequest>& result, const BadCase& c) {
    ASSERT_FALSE(result.has_value()) << c.json;
    EXPECT_EQ(result.error().param, c.param) << c.json << ": " << result.error().message;
    EXPECT_EQ(result.error().code, c.code) << c.json;
    EXPECT_NE(result.error().message.find(c.param), std::string::npos)
        << c.json << ": " << result.error().message;
}

/// A tool with `extra` members in its function.
std::string tool(const std::string& name, const std::string& extra = {}) {
    return R"({"type":"function","function":{"name":")" + name + "\"" +
           (extra.empty() ? "" : "," + extra) + "}}";
}
std::string tools(const std::string& list) { return R"("tools":[)" + list + "]"; }

TEST(ChatRequest, BadFieldsAreNamedByTheirPath) {
    const std::string f = tools(tool("f")) + ",";
    const BadCase cases[] = {
        {R"("tools":{})", "tools"},
        {R"("tools":"f")", "tools"},
        {tools("5"), "tools[0]"},
        {tools("null"), "tools[0]"},
        {tools("{}"), "tools[0].type"},
        {tools(R"({"type":5})"), "tools[0].type"},
        {tools(R"({"type":"custom","custom":{"name":"f"}})"), "tools[0].type", kUnserved},
        {tools(R"({"type":"function"})"), "tools[0].function"},
        {tools(R"({"type":"function","function":"f"})"), "tools[0].function"},
        {tools(R"({"type":"function","name":"f"})"), "tools[0].function"},
        {tools(R"({"type":"function","function":{}})"), "tools[0].function.name"},
        {tools(tool("")), "tools[0].function.name"},
        {tools(tool("two words")), "tools[0].function.name"},
        {tools(tool("slash/ed")), "tools[0].function.name"},
        {tools(tool("Grüße")), "tools[0].function.name"},
        {tools(tool(std::string(65, 'x'))), "tools[0].function.name"},
        {tools(tool("f") + "," + tool("f")), "tools[1].function.name"},
        {tools(tool("f", R"("description":5)")), "tools[0].function.description"},
        {tools(tool("f", R"("strict":"yes")")), "tools[0].function.strict"},
        {tools(tool("f", R"("parameters":[])")), "tools[0].function.parameters"},
        {tools(tool("f", R"("parameters":{"type":"string"})")), "tools[0].function.parameters"},
        {tools(tool("f", R"("parameters":{"type":["object"]})")), "tools[0].function.parameters"},
        {tools(tool("f", R"("parameters":{"properties":[]})")),
         "tools[0].function.parameters.properties"},
        {R"("functions":[{"name":"f"}])", "functions", kUnserved},
        {R"("function_call":{"name":"f"})", "function_call", kUnserved},
        {R"("tool_choice":"required")", "tool_choice"},
        {R"("tool_choice":{"type":"function","function":{"name":"f"}})", "tool_choice"},
        {f + R"("tool_choice":"any")", "tool_choice"},
        {f + R"("tool_choice":5)", "tool_choice"},
        {f + R"("tool_choice":["auto"])", "tool_choice"},
        {f + R"("tool_choice":{})", "tool_choice.type"},
        {f + R"("tool_choice":{"type":5})", "tool_choice.type"},
        {f + R"("tool_choice":{"type":"custom"})", "tool_choice.type", kUnserved},
        {f + R"("tool_choice":{"type":"function"})", "tool_choice.function.name"},
        {f + R"("tool_choice":{"type":"function","function":{"name":"g"}})",
         "tool_choice.function.name"},
        {f + R"("tool_choice":{"type":"allowed_tools"})", "tool_choice.allowed_tools"},
        {f + R"("tool_choice":{"type":"allowed_tools","allowed_tools":{"tools":[]}})",
         "tool_choice.allowed_tools.mode"},
        {f + R"("tool_choice":{"type":"allowed_tools","allowed_tools":{"mode":"auto","tools":[]}})",
         "tool_choice.allowed_tools.tools"},
        {f + R"("tool_choice":{"type":"allowed_tools","allowed_tools":)"
             R"({"mode":"auto","tools":[{"type":"function","function":{"name":"g"}}]}})",
         "tool_choice.allowed_tools.tools[0].function.name"},
        {f + R"("parallel_tool_calls":"no")", "parallel_tool_calls"},
        {R"("audio":{"voice":"x"})", "audio", kUnserved},
        {R"("modalities":"text")", "modalities"},
        {R"("modalities":["text","audio"])", "modalities[1]", kUnserved},
        {R"("modalities":[5])", "modalities[0]"},
        {R"("web_search_options":{"a":1})", "web_search_options", kUnserved},
        {R"("chat_template":"x")", "chat_template", kUnserved},
        {R"("chat_template_kwargs":[])", "chat_template_kwargs"},
        {R"("documents":{})", "documents"},
        {R"("documents":[{"text":"x"},"y"])", "documents[1]"},
        {R"("reasoning_effort":"huge")", "reasoning_effort"},
        {R"("reasoning_effort":3)", "reasoning_effort"},
        {R"("add_generation_prompt":1)", "add_generation_prompt"},
        {R"("continue_final_message":"yes")", "continue_final_message"},
        {R"("continue_final_message":true,"add_generation_prompt":true)", "continue_final_message"},
        {R"("include_reasoning":0)", "include_reasoning"},
        {R"("echo":1)", "echo"},
        {R"("service_tier":"gold")", "service_tier"},
        {R"("verbosity":"chatty")", "verbosity"},
        {R"("store":"no")", "store"},
        {R"("user":5)", "user"},
        {R"("safety_identifier":[])", "safety_identifier"},
        {R"("prompt_cache_key":5)", "prompt_cache_key"},
        {R"("prompt_cache_retention":5)", "prompt_cache_retention"},
        {R"("metadata":[])", "metadata"},
        {R"("metadata":{"a":5})", "metadata.a"},
        {R"("metadata":{"a":")" + std::string(513, 'x') + "\"}", "metadata.a"},
        {R"("metadata":{")" + std::string(65, 'k') + R"(":"x"})",
         "metadata." + std::string(64, 'k')},
        {R"("metadata":{"1":"","2":"","3":"","4":"","5":"","6":"","7":"","8":"","9":"","10":"",)"
         R"("11":"","12":"","13":"","14":"","15":"","16":"","17":""})",
         "metadata"},
        {R"("prediction":"x")", "prediction"},
        {R"("prediction":{"type":"x"})", "prediction.type"},
        {R"("prediction":{"type":"content","content":5})", "prediction.content"},
        {R"("max_completion_tokens":0)", "max_completion_tokens"},
        {R"("max_completion_tokens":-1)", "max_completion_tokens"},
        {R"("logprobs":1)", "logprobs"},
        {R"("logprobs":true,"top_logprobs":21)", "top_logprobs"},
        {R"("logprobs":true,"top_logprobs":-1)", "top_logprobs"},
        {R"("top_logprobs":2)", "top_logprobs"},
    };
    for (const BadCase& c : cases) expect_bad(with(c.json), c);
}

/// An assistant's message with these calls.
std::string calls(const std::string& list) {
    return R"([{"role":"assistant","content":null,"tool_calls":)" + list + "}]";
}
/// A call whose function has these members.
std::string call(const std::string& function) {
    return calls(R"([{"id":"1","type":"function","function":{)" + function + "}}]");
}

TEST(ChatRequest, BadMessagesAreNamedByTheirPath) {
    const std::string arguments = "messages[0].tool_calls[0].function.arguments";
    const BadCase cases[] = {
        {R"(null)", "messages"},
        {R"([])", "messages"},
        {R"("Hi")", "messages"},
        {R"({})", "messages"},
        {R"([5])", "messages[0]"},
        {R"([null])", "messages[0]"},
        {R"([{"role":"user","content":"x"},"y"])", "messages[1]"},
        {R"([{"content":"x"}])", "messages[0].role"},
        {R"([{"role":"robot","content":"x"}])", "messages[0].role"},
        {R"([{"role":"function","name":"f","content":"x"}])", "messages[0].role"},
        {R"([{"role":5,"content":"x"}])", "messages[0].role"},
        {R"([{"role":"user"}])", "messages[0].content"},
        {R"([{"role":"user","content":null}])", "messages[0].content"},
        {R"([{"role":"user","content":5}])", "messages[0].content"},
        {R"([{"role":"user","content":[]}])", "messages[0].content"},
        {R"([{"role":"user","content":{"type":"text"}}])", "messages[0].content"},
        {R"([{"role":"user","content":["x"]}])", "messages[0].content[0]"},
        {R"([{"role":"user","content":[{"type":"text"}]}])", "messages[0].content[0].text"},
        {R"([{"role":"user","content":[{"type":"text","text":"a"},{"type":"text","text":5}]}])",
         "messages[0].content[1].text"},
        {R"([{"role":"user","content":[{"type":"image_url","image_url":{}}]}])",
         "messages[0].content[0]", kUnserved},
        {R"([{"role":"user","content":[{"type":"input_audio"}]}])", "messages[0].content[0]",
         kUnserved},
        {R"([{"role":"user","content":"x"},{"role":"user","content":[{"type":"video_url"}]}])",
         "messages[1].content[0]", kUnserved},
        {R"([{"role":"user","content":"x","name":5}])", "messages[0].name"},
        {R"([{"role":"user","content":"x","tool_calls":[{}]}])", "messages[0].tool_calls"},
        {R"([{"role":"assistant","content":null}])", "messages[0].content"},
        {R"([{"role":"assistant","content":null,"tool_calls":[]}])", "messages[0].content"},
        {R"([{"role":"assistant","content":"x","reasoning_content":5}])",
         "messages[0].reasoning_content"},
        {R"([{"role":"assistant","content":"x","refusal":5}])", "messages[0].refusal"},
        {R"([{"role":"assistant","content":"x","audio":{"id":"a"}}])", "messages[0].audio",
         kUnserved},
        {R"([{"role":"assistant","content":"x","function_call":{"name":"f"}}])",
         "messages[0].function_call", kUnserved},
        {R"([{"role":"tool","content":"x"}])", "messages[0].tool_call_id"},
        {R"([{"role":"tool","content":"x","tool_call_id":""}])", "messages[0].tool_call_id"},
        {R"([{"role":"tool","content":"x","tool_call_id":5}])", "messages[0].tool_call_id"},
        {R"([{"role":"tool","content":null,"tool_call_id":"1"}])", "messages[0].content"},
        {calls("{}"), "messages[0].tool_calls"},
        {calls("[5]"), "messages[0].tool_calls[0]"},
        {calls(R"([{"type":"function"}])"), "messages[0].tool_calls[0].id"},
        {calls(R"([{"id":"","type":"function"}])"), "messages[0].tool_calls[0].id"},
        {calls(R"([{"id":"1","type":"custom"}])"), "messages[0].tool_calls[0].type"},
        {calls(R"([{"id":"1","type":"function"}])"), "messages[0].tool_calls[0].function"},
        {call(R"("arguments":"{}")"), "messages[0].tool_calls[0].function.name"},
        {call(R"("name":"f")"), arguments},
        {call(R"("name":"f","arguments":{})"), arguments},
        {call(R"("name":"f","arguments":"{")"), arguments},
        {call(R"("name":"f","arguments":"[]")"), arguments},
        {call(R"("name":"f","arguments":"null")"), arguments},
        {call(R"("name":"f","arguments":"{} {}")"), arguments},
    };
    for (const BadCase& c : cases) expect_bad(messages(c.json), c);
}

TEST(ChatRequest, HalfCharactersAreNoJson) {
    for (const char* bad : {R"("\ud800")", R"("\udc00")", R"("a\ud83dz")", R"("\ud800\ud800")"}) {
        const auto r = messages(std::string(R"([{"role":"user","content":)") + bad + "}]");
        ASSERT_FALSE(r) << bad;
        EXPECT_EQ(r.error().code, ErrorCode::kInvalidArgument);
    }
    // The same inside a call's arguments, which are JSON in a string.
    const auto r = messages(call(R"("name":"f","arguments":"{\"a\":\"\\ud800\"}")"));
    ASSERT_FALSE(r);
    EXPECT_EQ(r.error().param, "messages[0].tool_calls[0].function.arguments");
    EXPECT_TRUE(messages(R"([{"role":"user","content":"\ud83d\ude00"}])"));
}

TEST(ChatRequest, Messages) {
    const auto r = messages(R"([
        {"role":"system","content":"S"},
        {"role":"developer","content":[{"type":"text","text":"a"},{"type":"text","text":"b"}]},
        {"role":"user","name":"bob","content":""},
        {"role":"assistant","content":null,"reasoning_content":"hm","tool_calls":[
            {"id":"1","type":"function","function":{"name":"f","arguments":"{\"x\":1}"}},
            {"id":"2","function":{"name":"g","arguments":""}}]},
        {"role":"tool","tool_call_id":"1","content":[{"type":"text","text":"42"}]},
        {"role":"tool","tool_call_id":"unheard of","content":""},
        {"role":"assistant","content":[{"type":"refusal","refusal":"no"}],"tool_calls":null},
        {"role":"assistant","content":null,"refusal":"never","reasoning":"hmm","audio":null}])");
    ASSERT_TRUE(r) << r.error().message;
    const auto& m = r->messages;
    ASSERT_EQ(m.size(), 8U);
    EXPECT_EQ(m[0].content, "S");
    EXPECT_TRUE(m[0].parts.empty());
    EXPECT_EQ(m[1].content, "a\nb");
    EXPECT_EQ(m[1].parts, (std::vector<ChatPart>{{"a"}, {"b"}}));
    EXPECT_EQ(m[2].name, "bob");
    EXPECT_FALSE(m[3].content);
    EXPECT_EQ(m[3].reasoning, "hm");
    EXPECT_EQ(m[3].tool_calls,
              (std::vector<ChatToolCall>{{"1", "f", R"({"x":1})"}, {"2", "g", "{}"}}));
    EXPECT_EQ(m[4].tool_call_id, "1");
    EXPECT_EQ(m[4].content, "42");
    EXPECT_EQ(m[6].content, "no");
    EXPECT_EQ(m[7].content, "never");
    EXPECT_EQ(m[7].reasoning, "hmm");
    EXPECT_EQ(r->text_bytes(), 13U);
    EXPECT_EQ(r->tool_use.choice, Choice::kNone);
    EXPECT_TRUE(r->add_generation_prompt && r->include_reasoning);
}

TEST(ChatRequest, AThoughtAloneIsAMessage) {
    EXPECT_TRUE(messages(R"([{"role":"assistant","content":null,"reasoning_content":"hm"}])"));
}

TEST(ChatRequest, Tools) {
    const std::string list = tool("get_weather", R"("description":"W.","strict":true,"parameters":{
        "type":"object","properties":{
            "city":{"type":"string"},"days":{"type":"integer"},"wind":{"type":"number"},
            "now":{"type":"boolean"},"at":{"type":"object"},"all":{"type":"array"},
            "unit":{"enum":["C","F",null]},"mode":{"const":"x"},"mixed":{"enum":["a",1]},
            "maybe":{"type":["string","null"]},"either":{"type":["string","integer"]},
            "opt":{"anyOf":[{"type":"integer"},{"type":"null"}]},
            "alt":{"oneOf":[{"type":"integer"},{"type":"string"}]},
            "ref":{"$ref":"#/$defs/x"},"odd":true},
        "required":["city"]})") +
                             "," + tool("server.other-tool_2", R"("parameters":{})") + "," +
                             tool("bare");
    const auto r = with(tools(list) + R"(,"parallel_tool_calls":false)");
    ASSERT_TRUE(r) << r.error().message;
    const ToolUse& use = r->tool_use;
    EXPECT_EQ(use.choice, Choice::kAuto);
    EXPECT_FALSE(use.parallel);
    ASSERT_EQ(use.tools.size(), 3U);
    EXPECT_EQ(use.tools[0].shape.name, "get_weather");
    EXPECT_NE(use.tools[0].json.find(R"("strict":true)"), std::string::npos);
    EXPECT_EQ(use.tools[0].shape.parameters,
              (std::map<std::string, Type, std::less<>>{{"city", Type::kString},
                                                        {"days", Type::kInteger},
                                                        {"wind", Type::kNumber},
                                                        {"now", Type::kBoolean},
                                                        {"at", Type::kObject},
                                                        {"all", Type::kArray},
                                                        {"unit", Type::kString},
                                                        {"mode", Type::kString},
                                                        {"mixed", Type::kAny},
                                                        {"maybe", Type::kString},
                                                        {"either", Type::kAny},
                                                        {"opt", Type::kInteger},
                                                        {"alt", Type::kAny},
                                                        {"ref", Type::kAny},
                                                        {"odd", Type::kAny}}));
    EXPECT_EQ(use.tools[1].shape.name, "server.other-tool_2");
    EXPECT_EQ(use.tools[1].parameters_json, "");
    EXPECT_EQ(use.tools[2].parameters_json, "");
}

TEST(ChatRequest, ToolChoice) {
    const auto use = [](const std::string& choice) {
        const auto r = with(tools(tool("f") + "," + tool("g")) +
                            (choice.empty() ? "" : R"(,"tool_choice":)" + choice));
        EXPECT_TRUE(r) << r.error().message;
        return r ? r->tool_use : ToolUse{};
    };
    EXPECT_EQ(use("").choice, Choice::kAuto);
    EXPECT_EQ(use("null").choice, Choice::kAuto);
    EXPECT_EQ(use(R"("auto")").choice, Choice::kAuto);
    EXPECT_EQ(use(R"("none")").choice, Choice::kNone);
    EXPECT_EQ(use(R"("required")").choice, Choice::kRequired);
    const ToolUse named = use(R"({"type":"function","function":{"name":"g"}})");
    EXPECT_EQ(named.choice, Choice::kNamed);
    EXPECT_EQ(named.named, "g");
    EXPECT_EQ(named.tools.size(), 2U);
    const std::string only_g = R"("tools":[{"type":"function","function":{"name":"g"}}])";
    const ToolUse some =
        use(R"({"type":"allowed_tools","allowed_tools":{"mode":"required",)" + only_g + "}}");
    EXPECT_EQ(some.choice, Choice::kRequired);
    ASSERT_EQ(some.tools.size(), 1U);
    EXPECT_EQ(some.tools[0].shape.name, "g");
    EXPECT_EQ(
        use(R"({"type":"allowed_tools","allowed_tools":{"mode":"auto",)" + only_g + "}}").choice,
        Choice::kAuto);
    // Without tools they change nothing.
    EXPECT_TRUE(with(R"("tools":[],"tool_choice":"none","function_call":"auto","functions":[])"));
    EXPECT_TRUE(with(R"("tools":null,"tool_choice":"auto","parallel_tool_calls":true)"));
}

TEST(ChatRequest, ToolsAreBounded) {
    std::string many;
    for (std::size_t i = 0; i <= kMaxTools; ++i) {
        if (i == kMaxTools) {
            EXPECT_TRUE(with(tools(many)));
        }
        many += (i == 0 ? "" : ",") + tool("f" + std::to_string(i));
    }
    expect_bad(with(tools(many)), {"129 tools", "tools"});
    const std::string big = tool("f", R"("description":")" + std::string(kMaxToolBytes, 'x') + '"');
    expect_bad(with(tools(big)), {"a big tool", "tools"});
    std::string calls_list;
    for (std::size_t i = 0; i <= kMaxToolCallsInMessage; ++i) {
        calls_list += (i == 0 ? "" : ",") +
                      std::string(R"({"id":"1","function":{"name":"f","arguments":""}})");
    }
    expect_bad(messages(calls("[" + calls_list + "]")), {"1025 calls", "messages[0].tool_calls"});
}

TEST(ChatRequest, WhatTheTemplateGets) {
    const auto r =
        with(R"("chat_template_kwargs":{"a":1},"documents":[{"title":"t","text":"x"}],)"
             R"("reasoning_effort":"low","continue_final_message":true,"include_reasoning":false,)"
             R"("echo":true)");
    ASSERT_TRUE(r) << r.error().message;
    EXPECT_EQ(r->template_kwargs_json, R"({"a":1})");
    EXPECT_EQ(r->documents_json, R"([{"title":"t","text":"x"}])");
    EXPECT_EQ(r->reasoning_effort, "low");
    EXPECT_TRUE(r->continue_final_message && r->echo);
    EXPECT_FALSE(r->add_generation_prompt);
    EXPECT_FALSE(r->include_reasoning);
    EXPECT_FALSE(with(R"("add_generation_prompt":false)")->add_generation_prompt);
}

TEST(ChatRequest, FieldsOfNoEffectPass) {
    const auto r = with(
        R"("service_tier":"flex","verbosity":"low","store":true,"user":"u","safety_identifier":"s",)"
        R"("prompt_cache_key":"k","metadata":{"a":"b"},"modalities":["text"],)"
        R"("prediction":{"type":"content","content":"x"},"stream":true,"unknown":{},)"
        R"("stream_options":{"include_usage":true,"continuous_usage_stats":true,"include_obfuscation":false})");
    ASSERT_TRUE(r) << r.error().message;
    EXPECT_TRUE(r->fields.include_usage && r->fields.continuous_usage);
}

}  // namespace
}  // namespace stator::frontend
