#include "stator/frontend/output_constraint.h"

#include <gtest/gtest.h>

#include <string>

#include "stator/codec/json.h"

namespace stator::frontend {
namespace {

using protocol::OutputConstraint;
using Kind = OutputConstraint::Kind;

struct Read {
    GenerationFields fields;
    std::optional<Error> error;
};

Read read(const std::string& body, bool served = true) {
    codec::JsonDocument document;
    const auto root = document.parse(body);
    EXPECT_TRUE(root) << body;
    FieldReader reader(*root);
    RequestRules rules;
    rules.structured_output = served;
    Read out;
    read_output_constraint(reader, rules, out.fields);
    if (!reader.ok()) out.error = reader.error().value();
    return out;
}

struct Good {
    const char* body;
    Kind kind;
    const char* text;
    const char* field;
};

TEST(OutputConstraint, EveryNameOfItIsRead) {
    const Good cases[] = {
        {R"({"response_format":{"type":"json_object"}})", Kind::kJsonObject, "", "response_format"},
        {R"({"response_format":{"type":"json_object","schema":{"type":"object"}}})",
         Kind::kJsonSchema, R"({"type":"object"})", "response_format.schema"},
        {R"({"response_format":{"type":"json_schema","json_schema":{"name":"x","strict":true,)"
         R"("schema":{"type": "array", "items": {"type":"integer"}}}}})",
         Kind::kJsonSchema, R"({"type":"array","items":{"type":"integer"}})",
         "response_format.json_schema.schema"},
        {R"({"response_format":{"type":"json_schema","json_schema":{"name":"x"}}})",
         Kind::kJsonObject, "", "response_format.json_schema"},
        {R"({"guided_json":{"type":"null"}})", Kind::kJsonSchema, R"({"type":"null"})",
         "guided_json"},
        {R"({"guided_json":"{\"type\": \"null\"}"})", Kind::kJsonSchema, R"({"type":"null"})",
         "guided_json"},
        {R"({"guided_regex":"a+"})", Kind::kRegex, "a+", "guided_regex"},
        {R"({"guided_choice":["a","b"]})", Kind::kChoice, R"(["a","b"])", "guided_choice"},
        {R"({"guided_grammar":"start: \"a\""})", Kind::kLark, "start: \"a\"", "guided_grammar"},
        {R"({"structured_outputs":{"json":{"type":"null"}}})", Kind::kJsonSchema,
         R"({"type":"null"})", "structured_outputs.json"},
        {R"({"structured_outputs":{"regex":"x"}})", Kind::kRegex, "x", "structured_outputs.regex"},
        {R"({"structured_outputs":{"choice":["x"]}})", Kind::kChoice, R"(["x"])",
         "structured_outputs.choice"},
        {R"({"structured_outputs":{"grammar":"start: X"}})", Kind::kLark, "start: X",
         "structured_outputs.grammar"},
        {R"({"structured_outputs":{"json_object":true,"regex":null}})", Kind::kJsonObject, "",
         "structured_outputs.json_object"},
        {R"({"json_schema":"{}"})", Kind::kJsonSchema, "{}", "json_schema"},
        {R"({"json_schema":{}})", Kind::kJsonSchema, "{}", "json_schema"},
        {R"({"regex":"x"})", Kind::kRegex, "x", "regex"},
        {R"({"grammar":"start: X"})", Kind::kLark, "start: X", "grammar"},
        {R"({"ebnf":"start: X"})", Kind::kLark, "start: X", "ebnf"},
        {R"({"guided_json":{"type":"object"},"guided_whitespace_pattern":"[ ]\n?"})",
         Kind::kJsonSchema, R"({"x-guidance":{"whitespace_pattern":"[ ]\n?"},"type":"object"})",
         "guided_json"},
        {R"({"guided_json":{},"guided_whitespace_pattern":"x"})", Kind::kJsonSchema,
         R"({"x-guidance":{"whitespace_pattern":"x"}})", "guided_json"},
    };
    for (const Good& c : cases) {
        const Read got = read(c.body);
        ASSERT_FALSE(got.error) << c.body << got.error->message;
        ASSERT_TRUE(got.fields.constraint) << c.body;
        EXPECT_EQ(got.fields.constraint->kind, c.kind) << c.body;
        EXPECT_EQ(got.fields.constraint->text, c.text) << c.body;
        EXPECT_EQ(got.fields.constraint->after, "");
        EXPECT_EQ(got.fields.constraint_field, c.field) << c.body;
        const Read refused = read(c.body, false);
        ASSERT_TRUE(refused.error) << c.body;
        EXPECT_EQ(refused.error->code, ErrorCode::kUnsupported);
        EXPECT_EQ(refused.error->param, c.field);
    }
}

TEST(OutputConstraint, NothingAskedForIsNoConstraint) {
    for (const char* body :
         {"{}", R"({"response_format":null})", R"({"response_format":{"type":"text"}})",
          R"({"guided_json":null,"guided_regex":"","structured_outputs":null})",
          R"({"structured_outputs":{}})", R"({"structured_outputs":{"json_object":false}})"}) {
        for (const bool served : {true, false}) {
            const Read got = read(body, served);
            EXPECT_FALSE(got.error) << body;
            EXPECT_FALSE(got.fields.constraint) << body;
        }
    }
}

TEST(OutputConstraint, ErrorsNameTheFieldsPath) {
    std::string deep = R"({"guided_json":)";
    for (int i = 0; i < 25; ++i) deep += R"({"a":[)";
    deep += "1";
    for (int i = 0; i < 25; ++i) deep += "]}";
    const std::string many = R"({"guided_choice":["a",)" + [] {
        std::string out;
        for (int i = 0; i < 4096; ++i) out += R"("b",)";
        return out;
    }() + R"("c"]})";
    const std::string large = R"({"guided_regex":")" + std::string(300'000, 'a') + R"("})";
    const std::pair<std::string, const char*> cases[] = {
        {R"({"response_format":"json"})", "response_format"},
        {R"({"response_format":{"type":"json_schema"}})", "response_format.json_schema"},
        {R"({"response_format":{"type":"json_schema","json_schema":{"name":5}}})",
         "response_format.json_schema.name"},
        {R"({"response_format":{"type":"json_schema","json_schema":{"strict":1,"schema":{}}}})",
         "response_format.json_schema.strict"},
        {R"({"response_format":{"type":"json_schema","json_schema":{"schema":[]}}})",
         "response_format.json_schema.schema"},
        {R"({"guided_json":5})", "guided_json"},
        {R"({"guided_json":"{"})", "guided_json"},
        {R"({"guided_json":"5"})", "guided_json"},
        {R"({"guided_regex":5})", "guided_regex"},
        {R"({"guided_choice":[]})", "guided_choice"},
        {R"({"guided_choice":"a"})", "guided_choice"},
        {R"({"guided_choice":["a",1]})", "guided_choice[1]"},
        {R"({"guided_choice":["a",""]})", "guided_choice[1]"},
        {R"({"structured_outputs":[]})", "structured_outputs"},
        {R"({"structured_outputs":{"json_object":1}})", "structured_outputs.json_object"},
        {R"({"structured_outputs":{"choice":[2]}})", "structured_outputs.choice[0]"},
        {R"({"guided_json":{},"guided_regex":"a"})", "guided_regex"},
        {R"({"structured_outputs":{"json":{},"regex":"a"}})", "structured_outputs.regex"},
        {R"({"guided_whitespace_pattern":"x"})", "guided_whitespace_pattern"},
        {R"({"guided_regex":"a","guided_whitespace_pattern":"x"})", "guided_whitespace_pattern"},
        {R"({"guided_json":{"x-guidance":{}},"guided_whitespace_pattern":"x"})",
         "guided_whitespace_pattern"},
        {deep + "}", "guided_json"},
        {many, "guided_choice"},
        {large, "guided_regex"},
    };
    for (const auto& [body, param] : cases) {
        const Read got = read(body);
        ASSERT_TRUE(got.error) << body.substr(0, 100);
        EXPECT_EQ(got.error->code, ErrorCode::kInvalidArgument) << body.substr(0, 100);
        EXPECT_EQ(got.error->param, param) << body.substr(0, 100);
        EXPECT_FALSE(got.fields.constraint);
    }
    const std::pair<std::string, const char*> unserved[] = {
        {R"({"response_format":{"type":"grammar"}})", "response_format.type"},
        {R"({"structured_outputs":{"structural_tag":{"a":1}}})",
         "structured_outputs.structural_tag"},
        {R"({"grammar":"root ::= \"a\""})", "grammar"},
        {R"({"ebnf":"root ::= \"a\""})", "ebnf"},
    };
    for (const auto& [body, param] : unserved) {
        const Read got = read(body);
        ASSERT_TRUE(got.error) << body;
        EXPECT_EQ(got.error->code, ErrorCode::kUnsupported) << body;
        EXPECT_EQ(got.error->param, param) << body;
    }
}

}  // namespace
}  // namespace stator::frontend
