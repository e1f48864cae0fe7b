#include "stator/text/template_traits.h"

#include <gtest/gtest.h>

namespace stator::text {
namespace {

TemplateTraits traits(std::string_view source) {
    auto compiled = ChatTemplate::compile(source, "<s>", "</s>");
    EXPECT_TRUE(compiled) << source;
    return find_template_traits(*compiled);
}

constexpr std::string_view kPlain =
    "{% for m in messages %}[{{ m.role }}]{{ m.content }}\n{% endfor %}";

TEST(TemplateTraits, PlainText) {
    const TemplateTraits t = traits(kPlain);
    EXPECT_TRUE(t.text_content);
    EXPECT_FALSE(t.part_content);
    EXPECT_FALSE(t.developer_role);  // any role is written out: nothing says it is known
    EXPECT_FALSE(t.string_arguments);
    EXPECT_FALSE(t.short_call_ids);
}

TEST(TemplateTraits, PartsAloneAndBoth) {
    const TemplateTraits parts = traits(
        "{% for m in messages %}{% for p in m.content %}{{ p.text }}{% endfor %}{% endfor %}");
    EXPECT_TRUE(parts.part_content);
    EXPECT_FALSE(parts.text_content);
    const TemplateTraits both = traits(
        "{% for m in messages %}{% if m.content is string %}{{ m.content }}{% else %}"
        "{% for p in m.content %}{{ p['text'] }}{% endfor %}{% endif %}{% endfor %}");
    EXPECT_TRUE(both.part_content);
    EXPECT_TRUE(both.text_content);
}

TEST(TemplateTraits, RoleDeveloper) {
    EXPECT_TRUE(traits("{% for m in messages %}{% if m.role == 'developer' %}<dev>{% else %}"
                       "[{{ m.role }}]{% endif %}{{ m.content }}{% endfor %}")
                    .developer_role);
    EXPECT_TRUE(traits("{% for m in messages %}{% if m.role not in ['user', 'developer', "
                       "'assistant', 'tool'] %}{{ raise_exception('who?') }}{% endif %}"
                       "[{{ m.role }}]{{ m.content }}{% endfor %}")
                    .developer_role);
    EXPECT_FALSE(traits("{% for m in messages %}{% if m.role not in ['user', 'system', "
                        "'assistant', 'tool'] %}{{ raise_exception('who?') }}{% endif %}"
                        "[{{ m.role }}]{{ m.content }}{% endfor %}")
                     .developer_role);
}

/// With `how` to write a call's arguments.
std::string calling(const std::string& how) {
    return "{% for m in messages %}[{{ m.role }}]{% if m.content %}{{ m.content }}{% endif %}"
           "{% for c in m.tool_calls or [] %}" +
           how + "{% endfor %}{% endfor %}";
}

TEST(TemplateTraits, Arguments) {
    EXPECT_FALSE(traits(calling("{{ c.function.arguments | tojson }}")).string_arguments);
    EXPECT_FALSE(traits(calling("{{ c.function | tojson }}")).string_arguments);
    EXPECT_FALSE(traits(calling("{% for k, v in c.function.arguments.items() %}{{ k }}={{ v }}"
                                "{% endfor %}"))
                     .string_arguments);
    EXPECT_TRUE(traits(calling("{{ 'args: ' + c.function.arguments }}")).string_arguments);
    EXPECT_FALSE(traits(kPlain).string_arguments);
}

TEST(TemplateTraits, NullContent) {
    EXPECT_TRUE(traits(calling("{{ c.function.arguments | tojson }}")).null_content);
    EXPECT_FALSE(
        traits("{% for m in messages %}{{ '[' + m.content + ']' }}{% endfor %}").null_content);
    EXPECT_FALSE(traits(kPlain).null_content);  // writes None
}

TEST(TemplateTraits, CallsThatAreOnlyShownBesideNull) {
    const TemplateTraits t = traits(
        "{% for m in messages %}{% if m.role == 'assistant' and m.content is none %}"
        "{% for c in m.tool_calls %}{{ '<' + c.function.arguments + '>' }}{% endfor %}"
        "{% else %}{{ '[' + m.content + ']' }}{% endif %}{% endfor %}");
    EXPECT_TRUE(t.null_content);
    EXPECT_TRUE(t.string_arguments);
    EXPECT_FALSE(t.short_call_ids);
}

TEST(TemplateTraits, ShortCallIds) {
    EXPECT_TRUE(traits(calling("{% if c.id | length != 9 %}{{ raise_exception('9') }}{% endif %}"
                               "{{ c.function | tojson }}"))
                    .short_call_ids);
    EXPECT_FALSE(traits(calling("{{ c.id }}{{ c.function | tojson }}")).short_call_ids);
}

TEST(TemplateTraits, ARefusingTemplateHasTheUsualOnes) {
    EXPECT_EQ(traits("{{ raise_exception('no') }}"), TemplateTraits{});
}

}  // namespace
}  // namespace stator::text
