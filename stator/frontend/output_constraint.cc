#include "stator/frontend/output_constraint.h"

#include <algorithm>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "stator/codec/json_writer.h"

namespace stator::frontend {
namespace {

using codec::JsonDocument;
using codec::JsonType;
using codec::JsonView;
using protocol::OutputConstraint;
using Kind = OutputConstraint::Kind;

constexpr std::size_t kMaxChoices = 4096;

/// One constraint, as the client wrote it.
struct Found {
    Kind kind = Kind::kJsonObject;
    std::string text;
    std::string field;
};

tl::unexpected<Error> unsupported(std::string_view field, std::string message) {
    auto e = error(ErrorCode::kUnsupported, "{}", message);
    e.value().param = field;
    return e;
}

std::size_t depth_of(JsonView value) {
    std::size_t deepest = 0;
    const auto look = [&](JsonView v) { deepest = std::max(deepest, depth_of(v)); };
    if (value.type() == JsonType::kArray) {
        value.each_element([&](std::size_t, JsonView v) {
            look(v);
            return true;
        });
    } else if (value.type() == JsonType::kObject) {
        value.each_member([&](std::string_view, JsonView v) {
            look(v);
            return true;
        });
    } else {
        return 0;
    }
    return deepest + 1;
}

/// Collects the constraints of one request and keeps the first error.
class Collector {
  public:
    explicit Collector(FieldReader& fields) : fields_(fields) {}

    void fail(tl::unexpected<Error> e) { fields_.fail(std::move(e)); }
    void fail_type(const std::string& field, std::string_view what, JsonView value) {
        fail(param_error(field, "{} must be {}, not {}", field, what, describe(value)));
    }

    void object(const std::string& field) { add(Kind::kJsonObject, {}, field); }
    /// An object, or its text where `text_too`.
    void schema(JsonView value, const std::string& field, bool text_too);
    void regex(JsonView value, const std::string& field) { text(Kind::kRegex, value, field); }
    void grammar(JsonView value, const std::string& field);
    void choice(JsonView value, const std::string& field);
    void whitespace(JsonView value, const std::string& field);
    void finish(const RequestRules& rules, GenerationFields& out);

  private:
    void add(Kind kind, std::string text, const std::string& field);
    void text(Kind kind, JsonView value, const std::string& field);

    FieldReader& fields_;
    std::optional<Found> found_;
    std::string whitespace_;  ///< a regex; empty = not given
    std::string whitespace_field_;
};

void Collector::add(Kind kind, std::string text, const std::string& field) {
    if (text.size() > protocol::kMaxConstraintBytes) {
        return fail(param_error(field, "{} has {} bytes; at most {} are allowed", field,
                                text.size(), protocol::kMaxConstraintBytes));
    }
    if (found_) {
        return fail(param_error(field, "{} and {} both constrain the output; give one of them",
                                found_->field, field));
    }
    found_ = Found{kind, std::move(text), field};
}

void Collector::text(Kind kind, JsonView value, const std::string& field) {
    const auto text = value.as_string();
    if (!text || text->empty()) return fail_type(field, "a non-empty string", value);
    add(kind, std::string(*text), field);
}

void Collector::schema(JsonView value, const std::string& field, bool text_too) {
    const auto take = [&](JsonView schema) {
        if (const std::size_t depth = depth_of(schema); depth > kMaxSchemaDepth) {
            return fail(param_error(field, "{} is nested {} levels deep; at most {} are allowed",
                                    field, depth, kMaxSchemaDepth));
        }
        std::string json;
        schema.write_to(json);
        add(Kind::kJsonSchema, std::move(json), field);
    };
    if (const auto text = value.as_string(); text && text_too) {
        JsonDocument document;
        const auto parsed = document.parse(*text);
        if (!parsed) {
            return fail(param_error(field, "{} is a string that is no JSON: {}", field,
                                    parsed.error().message));
        }
        if (parsed->type() != JsonType::kObject) {
            return fail_type(field, "a JSON schema, which is an object", *parsed);
        }
        return take(*parsed);
    }
    if (value.type() != JsonType::kObject) {
        return fail_type(field, "a JSON schema, which is an object", value);
    }
    take(value);
}

void Collector::grammar(JsonView value, const std::string& field) {
    const auto text = value.as_string();
    if (!text || text->empty()) return fail_type(field, "a non-empty string", value);
    if (text->find("::=") != std::string_view::npos) {
        return fail(unsupported(
            field, fmt::format("{} is in GBNF (it has ::=), which is not served; write it in Lark",
                               field)));
    }
    add(Kind::kLark, std::string(*text), field);
}

void Collector::choice(JsonView value, const std::string& field) {
    if (value.type() != JsonType::kArray || value.size() == 0) {
        return fail_type(field, "a non-empty array of strings", value);
    }
    if (value.size() > kMaxChoices) {
        return fail(param_error(field, "{} has {} choices; at most {} are allowed", field,
                                value.size(), kMaxChoices));
    }
    bool sound = true;
    value.each_element([&](std::size_t i, JsonView v) {
        const auto text = v.as_string();
        sound = text.has_value() && !text->empty();
        if (!sound) fail_type(fmt::format("{}[{}]", field, i), "a non-empty string", v);
        return sound;
    });
    if (!sound) return;
    std::string json;
    value.write_to(json);
    add(Kind::kChoice, std::move(json), field);
}

void Collector::whitespace(JsonView value, const std::string& field) {
    const auto text = value.as_string();
    if (!text || text->empty()) return fail_type(field, "a non-empty string", value);
    whitespace_ = *text;
    whitespace_field_ = field;
}

/// The schema with x-guidance, the grammar engine's way of saying what may stand between the tokens
/// of JSON.
Result<std::string> with_whitespace(const std::string& schema, const std::string& pattern,
                                    const std::string& field) {
    JsonDocument document;
    const auto parsed = document.parse(schema);
    if (!parsed) return tl::unexpected<Error>(parsed.error());
    if (parsed->find("x-guidance").present()) {
        return param_error(field, "{} and x-guidance in the schema can't be given together", field);
    }
    std::string quoted;
    codec::append_json_string(quoted, pattern);
    std::string out = fmt::format(R"({{"x-guidance":{{"whitespace_pattern":{}}})", quoted);
    if (parsed->size() > 0) {
        out += ',';
        out.append(schema, 1);
    } else {
        out += '}';
    }
    return out;
}

void Collector::finish(const RequestRules& rules, GenerationFields& out) {
    if (!fields_.ok()) return;
    if (!found_) {
        if (!whitespace_.empty()) {
            fail(param_error(whitespace_field_, "{} needs a JSON constraint beside it",
                             whitespace_field_));
        }
        return;
    }
    if (!whitespace_.empty()) {
        if (found_->kind != Kind::kJsonSchema && found_->kind != Kind::kJsonObject) {
            return fail(param_error(whitespace_field_, "{} is for JSON; {} is none",
                                    whitespace_field_, found_->field));
        }
        const std::string schema =
            found_->kind == Kind::kJsonObject ? R"({"type":"object"})" : found_->text;
        auto text = with_whitespace(schema, whitespace_, whitespace_field_);
        if (!text) return fail(tl::unexpected<Error>(std::move(text.error())));
        found_->kind = Kind::kJsonSchema;
        found_->text = std::move(*text);
    }
    if (!rules.structured_output) {
        return fail(unsupported(
            found_->field,
            fmt::format("the engine of this model can't hold its output to {}", found_->field)));
    }
    auto constraint = std::make_shared<OutputConstraint>();
    constraint->kind = found_->kind;
    constraint->text = std::move(found_->text);
    out.constraint = std::move(constraint);
    out.constraint_field = std::move(found_->field);
}

void read_response_format(Collector& all, JsonView format) {
    if (format.is_null()) return;
    const auto type = format.find("type").as_string();
    if (!type) {
        return all.fail(param_error("response_format",
                                    "response_format must be an object with a type, not {}",
                                    describe(format)));
    }
    if (*type == "text") return;
    if (*type == "json_object") {
        // vLLM, SGLang and llama.cpp take a schema here, too.
        const JsonView schema = format.find("schema");
        if (schema.is_null()) return all.object("response_format");
        return all.schema(schema, "response_format.schema", false);
    }
    if (*type != "json_schema") {
        return all.fail(unsupported(
            "response_format.type",
            fmt::format("response_format.type is \"{}\"; text, json_object and json_schema are "
                        "served",
                        type->substr(0, 40))));
    }
    const JsonView outer = format.find("json_schema");
    if (outer.type() != JsonType::kObject) {
        return all.fail_type("response_format.json_schema", "an object with name and schema",
                             outer);
    }
    const JsonView name = outer.find("name");
    if (name.present() && !name.as_string()) {
        return all.fail_type("response_format.json_schema.name", "a string", name);
    }
    const JsonView strict = outer.find("strict");
    if (!strict.is_null() && !strict.as_bool()) {
        return all.fail_type("response_format.json_schema.strict", "true or false", strict);
    }
    const JsonView schema = outer.find("schema");
    // OpenAI: without a schema any JSON object.
    if (schema.is_null()) return all.object("response_format.json_schema");
    all.schema(schema, "response_format.json_schema.schema", false);
}

/// vLLM's object of today.
void read_structured_outputs(Collector& all, JsonView value) {
    if (value.is_null()) return;
    if (value.type() != JsonType::kObject) {
        return all.fail_type("structured_outputs", "an object", value);
    }
    const auto each = [&](std::string_view name, const auto& read) {
        const JsonView v = value.find(name);
        if (!v.is_null()) read(v, fmt::format("structured_outputs.{}", name));
    };
    each("json", [&](JsonView v, const std::string& f) { all.schema(v, f, true); });
    each("regex", [&](JsonView v, const std::string& f) { all.regex(v, f); });
    each("choice", [&](JsonView v, const std::string& f) { all.choice(v, f); });
    each("grammar", [&](JsonView v, const std::string& f) { all.grammar(v, f); });
    each("json_object", [&](JsonView v, const std::string& f) {
        const auto wanted = v.as_bool();
        if (!wanted) return all.fail_type(f, "true or false", v);
        if (*wanted) all.object(f);
    });
    each("whitespace_pattern", [&](JsonView v, const std::string& f) { all.whitespace(v, f); });
    each("structural_tag", [&](JsonView, const std::string& f) {
        all.fail(unsupported(f, f + " is not served; json, regex, choice and grammar are"));
    });
}

}  // namespace

void read_output_constraint(FieldReader& fields, const RequestRules& rules, GenerationFields& out) {
    Collector all(fields);
    read_response_format(all, fields.view("response_format"));
    read_structured_outputs(all, fields.view("structured_outputs"));
    const auto each = [&](std::string_view name, const auto& read) {
        const JsonView v = fields.view(name);
        if (!v.is_null() && v.as_string() != "") read(v, std::string(name));
    };
    const auto regex = [&](JsonView v, const std::string& f) { all.regex(v, f); };
    const auto schema = [&](JsonView v, const std::string& f) { all.schema(v, f, true); };
    const auto grammar = [&](JsonView v, const std::string& f) { all.grammar(v, f); };
    each("guided_json", schema);
    each("guided_regex", regex);
    each("guided_choice", [&](JsonView v, const std::string& f) { all.choice(v, f); });
    each("guided_grammar", grammar);
    each("guided_whitespace_pattern",
         [&](JsonView v, const std::string& f) { all.whitespace(v, f); });
    each("json_schema", schema);
    each("regex", regex);
    each("grammar", grammar);
    each("ebnf", grammar);
    all.finish(rules, out);
}

}  // namespace stator::frontend
