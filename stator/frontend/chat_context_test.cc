#include "stator/frontend/chat_context.h"

#include <gtest/gtest.h>

#include "stator/codec/json.h"
#include "stator/text/chat_template.h"

namespace stator::frontend {
namespace {

const std::vector<std::string> kSpecial = {"<|im_end|>", "<think>"};

std::string context(const ChatRequest& request, const text::TemplateTraits& traits = {},
                    const text::OutputFormat& format = {}) {
    const auto json = chat_context(request, text::SpecialGuard(kSpecial), traits, format);
    EXPECT_TRUE(json) << json.error().message;
    if (!json) return {};
    EXPECT_TRUE(json->texts.empty()) << "these are short";
    return json->json;
}
/// The messages alone.
std::string messages(const ChatRequest& request, const text::TemplateTraits& traits = {},
                     const text::OutputFormat& format = {}) {
    const std::string all = context(request, traits, format);
    const std::string head = R"({"messages":[)";
    const std::size_t end = all.rfind(R"(],"add_generation_prompt")");
    EXPECT_TRUE(all.starts_with(head) && end != std::string::npos) << all;
    return all.substr(head.size(), end - head.size());
}

ChatMessage message(std::string role, std::string content) {
    ChatMessage m;
    m.role = std::move(role);
    m.content = std::move(content);
    return m;
}

ChatRequest chat(std::vector<ChatMessage> list) {
    ChatRequest request;
    request.messages = std::move(list);
    return request;
}

TEST(ChatContext, Plain) {
    EXPECT_EQ(context(chat({message("user", "Hi")})),
              R"({"messages":[{"role":"user","content":"Hi"}],"add_generation_prompt":true,)"
              R"("tools":null,"documents":null})");
}

TEST(ChatContext, EverythingOfTheClientIsGuarded) {
    const std::string bad = "<|im_end|>";
    ChatMessage m = message("assistant", bad);
    m.parts = {{bad}, {bad}};
    m.name = m.tool_call_id = m.reasoning = bad;
    m.tool_calls = {{bad, bad, R"({"<|im_end|>":["<|im_end|>",1,null,true,{"a":-1.5}]})"}};
    ChatRequest request = chat({m});
    request.template_kwargs_json = R"({"<|im_end|>":"<|im_end|>","n":2})";
    request.documents_json = R"([{"<|im_end|>":"<|im_end|>"}])";
    ToolSpec tool;
    tool.json = R"({"type":"function","function":{"name":"f","<|im_end|>":["<|im_end|>"]}})";
    request.tool_use.tools.push_back(tool);
    request.tool_use.choice = ToolUse::Choice::kAuto;
    text::TemplateTraits traits;
    for (const bool parts : {false, true}) {
        for (const bool strings : {false, true}) {
            traits.part_content = parts;
            traits.string_arguments = strings;
            const std::string json = context(request, traits, {"", "gpt_oss"});
            EXPECT_EQ(json.find(bad), std::string::npos) << json;
            codec::JsonDocument document;
            EXPECT_TRUE(document.parse(json)) << json;
            EXPECT_NE(json.find(R"("n":2)"), std::string::npos);
        }
    }
}

TEST(ChatContext, PartsWhereTheTemplateReadsThem) {
    ChatMessage m = message("user", "a\nb");
    m.parts = {{"a"}, {"b"}};
    const ChatRequest request = chat({message("system", "s"), m});
    const std::string joined =
        R"({"role":"system","content":"s"},{"role":"user","content":"a\nb"})";
    EXPECT_EQ(messages(request), joined);
    text::TemplateTraits both;
    both.part_content = true;
    EXPECT_EQ(messages(request, both),
              R"({"role":"system","content":"s"},{"role":"user","content":)"
              R"([{"type":"text","text":"a"},{"type":"text","text":"b"}]})");
    text::TemplateTraits parts_alone = both;
    parts_alone.text_content = false;
    EXPECT_EQ(messages(request, parts_alone),
              R"({"role":"system","content":[{"type":"text","text":"s"}]},{"role":"user",)"
              R"("content":[{"type":"text","text":"a"},{"type":"text","text":"b"}]})");
}

TEST(ChatContext, DeveloperIsTheSystemWhereUnknown) {
    const ChatRequest request = chat({message("developer", "d")});
    EXPECT_EQ(messages(request), R"({"role":"system","content":"d"})");
    text::TemplateTraits traits;
    traits.developer_role = true;
    EXPECT_EQ(messages(request, traits), R"({"role":"developer","content":"d"})");
}

TEST(ChatContext, Calls) {
    ChatMessage m;
    m.role = "assistant";
    m.tool_calls = {{"call_12345678", "f", R"({"a": [1, "x"]})"}};
    ChatMessage result = message("tool", "42");
    result.tool_call_id = "call_12345678";
    const ChatRequest request = chat({m, result});
    EXPECT_EQ(messages(request),
              R"({"role":"assistant","content":null,"tool_calls":[{"id":"call_12345678",)"
              R"("type":"function","function":{"name":"f","arguments":{"a":[1,"x"]}}}]},)"
              R"({"role":"tool","content":"42","tool_call_id":"call_12345678"})");
    // Clients send an empty text for no text.
    ChatRequest empty = request;
    empty.messages[0].content = "";
    EXPECT_EQ(messages(empty), messages(request));
    text::TemplateTraits traits;
    traits.string_arguments = true;
    traits.null_content = false;
    EXPECT_EQ(messages(request, traits),
              R"({"role":"assistant","content":"","tool_calls":[{"id":"call_12345678",)"
              R"("type":"function","function":{"name":"f","arguments":"{\"a\": [1, \"x\"]}"}}]},)"
              R"({"role":"tool","content":"42","tool_call_id":"call_12345678"})");
}

TEST(ChatContext, ShortIdsAgree) {
    ChatMessage m;
    m.role = "assistant";
    m.tool_calls = {{"call_12345678", "f", "{}"}, {"abcDEF123", "f", "{}"}};
    ChatMessage result = message("tool", "42");
    result.tool_call_id = "call_12345678";
    text::TemplateTraits traits;
    traits.short_call_ids = true;
    const std::string json = "[" + messages(chat({m, result}), traits) + "]";
    codec::JsonDocument document;
    const auto root = document.parse(json);
    ASSERT_TRUE(root) << json;
    std::vector<std::string> ids;
    root->each_element([&](std::size_t, codec::JsonView v) {
        v.find("tool_calls").each_element([&](std::size_t, codec::JsonView c) {
            ids.emplace_back(c.find("id").as_string().value_or(""));
            return true;
        });
        if (const auto id = v.find("tool_call_id").as_string()) ids.emplace_back(*id);
        return true;
    });
    ASSERT_EQ(ids.size(), 3U);
    EXPECT_EQ(ids[0].size(), 9U);
    EXPECT_EQ(ids[1], "abcDEF123");
    EXPECT_EQ(ids[2], ids[0]);
}

TEST(ChatContext, Thinking) {
    ChatMessage m = message("assistant", "x");
    m.reasoning = "hm";
    EXPECT_EQ(messages(chat({m})),
              R"({"role":"assistant","content":"x","reasoning_content":"hm"})");
    EXPECT_EQ(messages(chat({m}), {}, {"", "gpt_oss"}),
              R"({"role":"assistant","content":"x","reasoning_content":"hm","thinking":"hm"})");
    ChatRequest request = chat({message("user", "x")});
    request.reasoning_effort = "high";
    EXPECT_TRUE(context(request).ends_with(R"("documents":null,"reasoning_effort":"high"})"));
    request.reasoning_effort = "none";
    EXPECT_TRUE(context(request).ends_with(
        R"("reasoning_effort":"none","enable_thinking":false,"thinking":false})"));
    request.template_kwargs_json = R"({"enable_thinking":true})";
    EXPECT_TRUE(context(request).ends_with(R"("enable_thinking":true,"reasoning_effort":"none"})"));
}

TEST(ChatContext, ToolsThatMayNotBeCalledAreLeftOut) {
    ChatRequest request = chat({message("user", "x")});
    ToolSpec tool;
    tool.json = R"({"type":"function","function":{"name":"f","strict":true}})";
    request.tool_use.tools.push_back(tool);
    request.tool_use.choice = ToolUse::Choice::kAuto;
    EXPECT_NE(context(request).find(R"("tools":[)" + tool.json + "]"), std::string::npos);
    request.tool_use.choice = ToolUse::Choice::kNone;
    EXPECT_NE(context(request).find(R"("tools":null)"), std::string::npos);
}

TEST(ChatContext, TheEndOfTheLastMessageIsMarked) {
    ChatMessage last = message("assistant", "b");
    ChatRequest request = chat({message("user", "a"), last});
    request.continue_final_message = true;
    request.add_generation_prompt = false;
    EXPECT_EQ(messages(request),
              R"({"role":"user","content":"a"},{"role":"assistant","content":"b)" +
                  std::string(kContinueMark) + " \"}");
    request.messages.back().parts = {{"b"}, {"c"}};
    text::TemplateTraits traits;
    traits.part_content = true;
    EXPECT_TRUE(messages(request, traits)
                    .ends_with(R"({"type":"text","text":"b"},{"type":"text","text":"c)" +
                               std::string(kContinueMark) + " \"}]}"));
}

TEST(ChatContext, KwargsMustNotReplaceWhatTheServerSets) {
    for (const char* kwargs : {R"({"messages":[]})", R"({"tools":[]})", R"({"bos_token":"x"})"}) {
        ChatRequest request = chat({message("user", "x")});
        request.template_kwargs_json = kwargs;
        const auto json = chat_context(request, text::SpecialGuard(kSpecial), {}, {});
        ASSERT_FALSE(json) << kwargs;
        EXPECT_EQ(json.error().param, "chat_template_kwargs");
    }
}

TEST(ChatContext, LongContentsStandBesideTheJson) {
    const std::string text(1000, 'x');
    const auto made = chat_context(chat({message("user", text + "<think>"), message("user", "s")}),
                                   text::SpecialGuard(kSpecial), {}, {});
    ASSERT_TRUE(made) << made.error().message;
    ASSERT_EQ(made->texts.size(), 1U);
    EXPECT_EQ(made->texts[0], text + "<\xEF\xB7\x90think>");
    EXPECT_NE(made->json.find(text::ChatTemplate::text_mark(0)), std::string::npos);
    const auto shown =
        text::ChatTemplate::compile("{% for m in messages %}{{ m.content }}|{% endfor %}", "", "");
    ASSERT_TRUE(shown);
    EXPECT_EQ(shown->render(made->json, {}, made->texts), made->texts[0] + "|s|");
}

TEST(ChatContext, NobodyCanNameATextThatIsNotTheirs) {
    const auto made = chat_context(chat({message("user",
                                                 "\xEF\xB7\x90"
                                                 "0"),
                                         message("user", std::string(300, 'y'))}),
                                   text::SpecialGuard(kSpecial), {}, {});
    ASSERT_TRUE(made);
    const auto shown = text::ChatTemplate::compile("{{ messages[0].content }}", "", "");
    EXPECT_EQ(shown->render(made->json, {}, made->texts), "0");
}

}  // namespace
}  // namespace stator::frontend