#include "stator/text/chat_template.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <rapidcheck.h>

#include <filesystem>
#include <fstream>
#include <limits>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "stator/codec/json.h"

namespace stator::text {
namespace {

using codec::JsonView;
using testing::HasSubstr;

/// test/data/templates: templates, and what Jinja2 makes of them (render_expected.py there).
std::string read_data(const std::string& name) {
    const auto folder =
        std::filesystem::path(__FILE__).parent_path() / "../../test/data/templates" / name;
    std::ifstream file(folder);
    EXPECT_TRUE(file.good()) << folder;
    std::ostringstream text;
    text << file.rdbuf();
    return text.str();
}

std::string json_of(JsonView value) {
    std::string text;
    value.write_to(text);
    return text;
}

Result<std::string> render(std::string_view source, std::string_view context,
                           std::optional<std::int64_t> now = std::nullopt) {
    auto compiled = ChatTemplate::compile(source, "<s>", "</s>");
    if (!compiled) return tl::unexpected(compiled.error());
    return compiled->render(context, now);
}

/// Holds a rendering to what Jinja2 did: its text, its exception's words, or that it failed at all.
void expect_as_jinja(JsonView expected, const Result<std::string>& got, const std::string& what) {
    if (const auto text = expected.find("expected").as_string()) {
        EXPECT_TRUE(got.has_value()) << what << "\n" << got.error().message;
        if (got) EXPECT_EQ(*got, *text) << what;
        return;
    }
    EXPECT_FALSE(got.has_value()) << what << "\nrendered: " << *got;
    if (got) return;
    EXPECT_EQ(got.error().code, ErrorCode::kInvalidArgument) << what;
    if (const auto words = expected.find("raises").as_string()) {
        EXPECT_THAT(got.error().message, HasSubstr(std::string(": ") + std::string(*words)))
            << what;
    }
}

TEST(ChatTemplate, RendersConversationsAsJinjaDoes) {
    codec::JsonDocument document;
    const auto root = document.parse(read_data("cases.json"));
    ASSERT_TRUE(root.has_value()) << root.error().message;
    std::size_t cases = 0;
    root->find("cases").each_element([&](std::size_t, JsonView c) {
        const std::string name(c.find("template").as_string().value());
        const auto got =
            render(read_data(name), json_of(c.find("context")), c.find("unix_seconds").as_int());
        expect_as_jinja(c, got, name + ": " + std::string(c.find("name").as_string().value()));
        ++cases;
        return true;
    });
    EXPECT_GE(cases, 80U);
}

TEST(ChatTemplate, UnderstandsJinjaAsJinjaDoes) {
    codec::JsonDocument document;
    const auto root = document.parse(read_data("snippets.json"));
    ASSERT_TRUE(root.has_value()) << root.error().message;
    const std::string context = json_of(root->find("context"));
    std::size_t snippets = 0;
    root->find("snippets").each_element([&](std::size_t, JsonView s) {
        const std::string source(s.find("source").as_string().value());
        expect_as_jinja(s, render(source, context, root->find("unix_seconds").as_int()), source);
        ++snippets;
        return true;
    });
    EXPECT_GE(snippets, 130U);
}

TEST(ChatTemplate, ErrorsNameTheLineAndTheReason) {
    const auto syntax = ChatTemplate::compile("line one\n{% if x %}\n{{ x }", "", "");
    ASSERT_FALSE(syntax.has_value());
    EXPECT_EQ(syntax.error().code, ErrorCode::kInvalidArgument);
    EXPECT_THAT(syntax.error().message, HasSubstr("chat template, line 3 does not compile"));

    const auto raised =
        render("\n\n{{ raise_exception('roles must ' ~ what) }}", R"({"what":"a"})");
    ASSERT_FALSE(raised.has_value());
    EXPECT_EQ(raised.error().code, ErrorCode::kInvalidArgument);
    EXPECT_EQ(raised.error().message, "chat template, line 3: roles must a");

    const auto inside =
        render("{% macro m() %}\n{{ raise_exception('deep') }}{% endmacro %}{{ m() }}", "{}");
    ASSERT_FALSE(inside.has_value());
    EXPECT_EQ(inside.error().message, "chat template, line 2: deep");

    const auto undefined = render("\n{{ message.content.text }}", R"({"message":{}})");
    ASSERT_FALSE(undefined.has_value());
    EXPECT_EQ(undefined.error().code, ErrorCode::kInvalidArgument);
    EXPECT_THAT(undefined.error().message,
                HasSubstr("line 2 uses something that the request does"));
    EXPECT_THAT(undefined.error().message, HasSubstr("`message.content`"));

    for (const char* context : {"", "[]", "1", "{", R"({"a":"\ud800"})", "{}x", "\xFF"}) {
        const auto bad = render("x", context);
        ASSERT_FALSE(bad.has_value()) << context;
        EXPECT_THAT(bad.error().message, HasSubstr("JSON object")) << context;
    }
}

TEST(ChatTemplate, CanReadNothingButItsContext) {
    for (const char* source : {"{% include 'x' %}", "{% import 'x' as y %}", "{% extends 'x' %}",
                               "{{ debug() }}", "{{ self }}{{ ''.__class__.__mro__ }}",
                               "{{ messages.__class__ }}x{{ messages.__class__.y }}"}) {
        EXPECT_FALSE(render(source, R"({"messages":[]})").has_value()) << source;
    }
}

TEST(ChatTemplate, WhatUsersWriteIsNotEvaluated) {
    const auto got = render("{% for m in messages %}{{ m.content }}{% endfor %}",
                            R"({"messages":[{"content":"{{ 1 + 1 }}{% raw %}"}]})");
    EXPECT_EQ(got, "{{ 1 + 1 }}{% raw %}");
}

TEST(ChatTemplate, StepsOutputAndRecursionAreBounded) {
    const std::string loop =
        "{% for a in range(100000) %}{% for b in range(100000) %}{% endfor %}{% endfor %}";
    const std::string grow =
        "{% set ns = namespace(s='x') %}{% for i in range(99999) %}"
        "{% set ns.s = ns.s ~ ns.s %}{% endfor %}";
    const std::string nest =
        "{% set ns = namespace(s=[]) %}{% for i in range(99999) %}"
        "{% set ns.s = [ns.s, ns.s] %}{% endfor %}{{ ns.s | tojson }}";
    const std::string recurse = "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}";
    const std::string replace = "{% set s = 'a' * 10000000 %}{{ s.replace('a', s) }}";
    const std::string join = "{% set s = 'a' * 10000000 %}{{ s.join(range(1000)) }}";
    const std::string format = "{{ '{:999999999999}'.format(1) }}";
    for (const auto& source : {loop, grow, recurse, replace, join}) {
        const auto got = render(source, "{}");
        ASSERT_FALSE(got.has_value()) << source;
        EXPECT_EQ(got.error().code, ErrorCode::kTooLarge) << got.error().message;
    }
    const std::string percent = "{{ '%999999999999d' | format(1) }}";
    for (const auto& source : {nest, format, percent})
        EXPECT_FALSE(render(source, "{}").has_value());

    auto small =
        ChatTemplate::compile("{{ s }}", "", "", {.max_steps = 1000, .max_output_bytes = 5});
    ASSERT_TRUE(small.has_value());
    EXPECT_EQ(small->render(R"({"s":"12345"})"), "12345");
    const auto large = small->render(R"({"s":"123456"})");
    ASSERT_FALSE(large.has_value());
    EXPECT_EQ(large.error().code, ErrorCode::kTooLarge);
    EXPECT_THAT(large.error().message, HasSubstr("over 5 bytes"));
}

TEST(ChatTemplate, DeepNestingIsAnErrorNotAStackOverflow) {
    for (const int depth : {100, 200, 100'000}) {
        const auto n = static_cast<std::size_t>(depth);
        const std::string lists = std::string(n, '[') + std::string(n, ']');
        (void)render("{{ x }}{{ x | tojson }}", "{\"x\":" + lists + "}");
        (void)render("{{ " + lists + " }}", "{}");
        (void)render("{{ " + std::string(n, '(') + "1" + std::string(n, ')') + " }}", "{}");
        (void)render("{{ " + std::string(n, '-') + "1 }}", "{}");
        std::string nots;
        std::string ifs;
        for (int i = 0; i < depth; ++i) {
            nots += "not ";
            ifs += "{% if 1 %}";
        }
        (void)render("{{ " + nots + "1 }}", "{}");
        (void)render(ifs, "{}");
    }
    const auto fine = render("{{ x | tojson }}", R"({"x":[[[[[[[[[[1]]]]]]]]]]})");
    EXPECT_EQ(fine, "[[[[[[[[[[1]]]]]]]]]]");
}

TEST(ChatTemplate, AnyTemplateAndContextReturn) {
    EXPECT_TRUE(rc::check([](const std::string& source, const std::string& context) {
        (void)render(source, context);
    }));
    EXPECT_TRUE(rc::check("pieces of Jinja in any order", [] {
        const auto pieces = *rc::gen::container<std::vector<std::string>>(
            rc::gen::elementOf(std::vector<std::string>{"{{",
                                                        "}}",
                                                        "{%",
                                                        "%}",
                                                        "{#",
                                                        "#}",
                                                        "-",
                                                        "for",
                                                        " x in ",
                                                        "m",
                                                        "if ",
                                                        " else ",
                                                        "endfor",
                                                        "endif",
                                                        "set ",
                                                        "=",
                                                        "'",
                                                        "\"",
                                                        "|",
                                                        "tojson",
                                                        "(",
                                                        ")",
                                                        "[",
                                                        "]",
                                                        ".",
                                                        ":",
                                                        "1",
                                                        "é",
                                                        "\n",
                                                        "generation",
                                                        "endgeneration",
                                                        "raw",
                                                        "endraw",
                                                        "macro ",
                                                        "split",
                                                        "loop",
                                                        ",",
                                                        "~",
                                                        "%",
                                                        "*",
                                                        "99999999999",
                                                        "-1",
                                                        "upper",
                                                        "indent",
                                                        "range",
                                                        "namespace",
                                                        "none",
                                                        " is ",
                                                        "not ",
                                                        "\\"}));
        std::string source;
        for (const std::string& p : pieces) source += p;
        (void)render(source, R"({"m":[{"x":"é","y":[1,2.5,null,true]}],"x":"abc"})", 0);
    }));
}

TEST(ChatTemplate, ManyThreadsRenderAtOnce) {
    const auto compiled = ChatTemplate::compile("{% for m in l %}{{ m }},{% endfor %}", "", "");
    ASSERT_TRUE(compiled.has_value());
    std::vector<std::thread> threads;
    std::vector<int> right(4, 0);
    for (std::size_t n = 0; n < right.size(); ++n) {
        threads.emplace_back([&, n] {
            const std::string number = std::to_string(n);
            for (int i = 0; i < 200; ++i) {
                const auto got = compiled->render("{\"l\":[" + number + "," + number + "]}");
                right[n] += got == number + "," + number + ",";
            }
        });
    }
    for (std::thread& t : threads) t.join();
    EXPECT_THAT(right, testing::Each(200));
}

TEST(ChatTemplate, TimeIsShownInUtcAtAnyPoint) {
    const std::string source = "{{ strftime_now('%Y-%m-%d %H:%M:%S %j %a') }}";
    EXPECT_EQ(render(source, "{}", 0), "1970-01-01 00:00:00 001 Thu");
    EXPECT_EQ(render(source, "{}", -1), "1969-12-31 23:59:59 365 Wed");
    EXPECT_EQ(render(source, "{}", 951'782'400), "2000-02-29 00:00:00 060 Tue");
    EXPECT_EQ(render(source, "{}", 4'107'542'399), "2100-02-28 23:59:59 059 Sun");
    EXPECT_EQ(render(source, "{}", 253'402'300'799), "9999-12-31 23:59:59 365 Fri");
    EXPECT_TRUE(render(source, "{}", std::numeric_limits<std::int64_t>::max()).has_value());
    EXPECT_TRUE(render(source, "{}", std::numeric_limits<std::int64_t>::min()).has_value());
    EXPECT_FALSE(render(source, "{}").has_value());
    EXPECT_EQ(render("{{ strftime_now is defined }}", "{}"), "False");
}

}  // namespace
}  // namespace stator::text
