#include "stator/config/yaml_tree.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "stator/config/yaml_file.h"

namespace stator::config {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

YamlTree tree_of(std::string_view text) {
    auto tree = read_yaml_tree("t.yaml", text);
    EXPECT_TRUE(tree) << tree.error().front().text();
    return tree ? std::move(*tree) : YamlTree{};
}

std::string why_not(std::string_view text) {
    const auto tree = read_yaml_tree("t.yaml", text);
    return tree ? "" : tree.error().front().text();
}

std::vector<std::string> texts(const Problems& problems) {
    std::vector<std::string> out;
    for (const Problem& p : problems) out.push_back(p.text());
    return out;
}

TEST(YamlTree, KeepsOrderKindsAndLines) {
    const YamlTree tree = tree_of("b: 1\na:\n  - x\n  - {c: }\n");
    ASSERT_EQ(tree.kind, YamlTree::Kind::kMap);
    EXPECT_THAT(tree.names, ElementsAre("b", "a"));
    EXPECT_EQ(tree.items[0].scalar, "1");
    EXPECT_EQ(tree.items[0].line, 1);
    const YamlTree& list = tree.items[1];
    ASSERT_EQ(list.kind, YamlTree::Kind::kList);
    EXPECT_EQ(list.items[0].line, 3);
    EXPECT_EQ(list.items[1].line, 4);
    EXPECT_EQ(list.items[1].items[0].kind, YamlTree::Kind::kNull);
}

TEST(YamlTree, RefusesWhatHasNoOneMeaning) {
    EXPECT_THAT(why_not("a: [1"), HasSubstr("t.yaml:"));
    EXPECT_EQ(why_not("a: 1\na: 2\n"), "t.yaml:2: \"a\" stands here twice.");
    EXPECT_THAT(why_not("? [x, y]\n: 1\n"), HasSubstr("A name must be a word."));
}

TEST(YamlTree, IsBounded) {
    EXPECT_THAT(why_not(std::string(kMaxFileBytes + 1, ' ')), HasSubstr("at most"));
    const auto nested = [](std::size_t n) { return std::string(n, '[') + std::string(n, ']'); };
    EXPECT_EQ(why_not(nested(kMaxYamlDepth + 1)), "");
    EXPECT_THAT(why_not(nested(kMaxYamlDepth + 2)), HasSubstr("nested more than"));
    // Ten levels of ten aliases each would be ten thousand million values.
    std::string bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n";
    for (int i = 1; i <= 9; ++i) {
        bomb += fmt::format("a{}: &a{} [", i, i);
        for (int k = 0; k < 10; ++k) bomb += fmt::format("{}*a{}", k == 0 ? "" : ", ", i - 1);
        bomb += "]\n";
    }
    EXPECT_THAT(why_not(bomb), HasSubstr("more than"));
}

TEST(YamlFields, TakesWhatIsRightAndNamesWhatIsNot) {
    const YamlTree tree =
        tree_of("name: fleet\nshare: 0.5\nworkers: 7\nwait: 250ms\non: true\nrates: [1, 2.5]\n");
    Problems problems;
    YamlFields fields(tree, "t.yaml", "fleet", problems);
    std::string name;
    double share = 0;
    int workers = 0;
    double wait = 0;
    bool on = false;
    std::vector<double> rates;
    double missing = 3;
    fields.text("name", name);
    fields.number("share", share, 0, 1);
    fields.count("workers", workers, 1, 10);
    fields.seconds("wait", wait, 0, 10);
    fields.flag("on", on);
    fields.numbers("rates", rates, 0, 10);
    fields.number("missing", missing, 0, 10);
    fields.finish();
    EXPECT_THAT(texts(problems), ElementsAre());
    EXPECT_EQ(name, "fleet");
    EXPECT_EQ(share, 0.5);
    EXPECT_EQ(workers, 7);
    EXPECT_EQ(wait, 0.25);
    EXPECT_TRUE(on);
    EXPECT_THAT(rates, ElementsAre(1, 2.5));
    EXPECT_EQ(missing, 3);
}

TEST(YamlFields, EveryMistakeHasItsLine) {
    const YamlTree tree = tree_of(
        "share: 2\nworkers: 2.5\nwait: soon\non: yes\nrates: [1, x]\nname: [a]\nshaer: 1\n");
    Problems problems;
    YamlFields fields(tree, "t.yaml", "fleet", problems);
    std::string name = "before";
    double share = 0.25;
    int workers = 1;
    double wait = 1;
    bool on = false;
    std::vector<double> rates;
    fields.number("share", share, 0, 1);
    fields.count("workers", workers, 1, 10);
    fields.seconds("wait", wait, 0, 10);
    fields.flag("on", on);
    fields.numbers("rates", rates, 0, 10);
    fields.text("name", name);
    fields.finish();
    EXPECT_THAT(
        texts(problems),
        ElementsAre(
            "t.yaml:1: share in fleet is \"2\"; it must be a number from 0 to 1.",
            "t.yaml:2: workers in fleet is \"2.5\"; it must be a whole number from 1 to 10.",
            HasSubstr("t.yaml:3: wait in fleet is \"soon\""),
            "t.yaml:4: on in fleet is \"yes\"; it must be true or false.",
            HasSubstr("t.yaml:5: rates in fleet holds \"x\""),
            "t.yaml:6: name in fleet must be text.", HasSubstr("t.yaml:7: ")));
    EXPECT_THAT(problems.back().message, HasSubstr("\"shaer\""));
    EXPECT_EQ(share, 0.25);
    EXPECT_EQ(name, "before");
}

TEST(YamlFields, AMapIsWanted) {
    const YamlTree tree = tree_of("- 1\n");
    Problems problems;
    YamlFields fields(tree, "t.yaml", "fleet", problems);
    fields.finish();
    EXPECT_THAT(texts(problems), ElementsAre(HasSubstr("t.yaml:1: fleet must be names")));
}

TEST(ParseSeconds, Units) {
    EXPECT_EQ(parse_seconds("2"), 2.0);
    EXPECT_EQ(parse_seconds("2s"), 2.0);
    EXPECT_EQ(parse_seconds("1.5h"), 5400.0);
    EXPECT_EQ(parse_seconds("3m"), 180.0);
    EXPECT_DOUBLE_EQ(*parse_seconds("50ms"), 0.05);
    EXPECT_DOUBLE_EQ(*parse_seconds("50us"), 5e-5);
    for (const char* wrong : {"", "s", "ms", "1d", "1 s", "nan", "inf", "1e999"}) {
        EXPECT_FALSE(parse_seconds(wrong)) << wrong;
    }
}

}  // namespace
}  // namespace stator::config
