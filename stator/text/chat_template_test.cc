#include "stator/text/chat_template.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <rapidcheck.h>

#include <filesystem>
#include <fstream>
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

}  // namespace
}  // namespace stator::text
