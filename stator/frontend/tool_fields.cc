#include "stator/frontend/tool_fields.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <utility>

#include "stator/frontend/sampling_fields.h"

namespace stator::frontend {
namespace {

using codec::JsonType;
using codec::JsonView;
using Type = text::ToolShape::Type;

constexpr std::string_view kNameWords = "1 to 64 letters, digits, underscores, dashes and dots";

/// Of a JSON schema's type name.
Type type_named(std::string_view name) {
    if (name == "string") return Type::kString;
    if (name == "number") return Type::kNumber;
    if (name == "integer") return Type::kInteger;
    if (name == "boolean") return Type::kBoolean;
    if (name == "object") return Type::kObject;
    if (name == "array") return Type::kArray;
    return Type::kAny;
}

/// The type that all of `schemas` but null have; kAny where they differ.
class CommonType {
  public:
    void add(Type type) {
        if (!seen_) type_ = type;
        if (type != type_) type_ = Type::kAny;
        seen_ = true;
    }
    [[nodiscard]] Type get() const { return seen_ ? type_ : Type::kAny; }

  private:
    bool seen_ = false;
    Type type_ = Type::kAny;
};

/// What values a schema allows, as far as it says so outright.
Type type_of(JsonView schema) {
    CommonType common;
    const JsonView type = schema.find("type");
    if (const auto name = type.as_string()) return type_named(*name);
    if (type.present() && type.type() == JsonType::kArray) {
        type.each_element([&](std::size_t, JsonView v) {
            const auto name = v.as_string();
            if (name != "null") common.add(type_named(name.value_or("")));
            return true;
        });
        return common.get();
    }
    for (const std::string_view key : {"anyOf", "oneOf"}) {
        const JsonView alternatives = schema.find(key);
        if (alternatives.size() == 0) continue;
        alternatives.each_element([&](std::size_t, JsonView v) {
            if (v.find("type").as_string() != "null") common.add(type_of(v));
            return true;
        });
        return common.get();
    }
    schema.find("enum").each_element([&](std::size_t, JsonView v) {
        if (!v.is_null()) common.add(v.as_string() ? Type::kString : Type::kAny);
        return true;
    });
    if (schema.find("const").as_string()) common.add(Type::kString);
    return common.get();
}

void read_parameters(FieldReader& function, ToolSpec& out) {
    const auto schema = function.object("parameters", "a JSON schema, which is an object");
    if (!schema) return;
    const JsonView type = schema->find("type");
    if (!type.is_null() && type.as_string() != "object") {
        const std::string where = function.path("parameters");
        return function.fail(param_error(
            where, "{} must be the schema of an object, with \"type\": \"object\", not {}", where,
            describe(type)));
    }
    const JsonView properties = schema->find("properties");
    if (!properties.is_null() && properties.type() != JsonType::kObject) {
        return function.fail_type("parameters.properties", "an object", properties);
    }
    if (schema->size() > 0) schema->write_to(out.parameters_json);
    properties.each_member([&](std::string_view name, JsonView v) {
        out.shape.parameters.emplace(name, type_of(v));
        return true;
    });
}

void refuse_kind(FieldReader& part, std::string_view type) {
    const std::string where = part.path("type");
    auto e =
        error(ErrorCode::kUnsupported, "{} is \"{}\"; only tools of type \"function\" are served",
              where, type.substr(0, 40));
    e.value().param = where;
    part.fail(std::move(e));
}

void read_tool(JsonView tool, const std::string& path, ToolSpec& out, FieldReader& fields) {
    if (tool.is_null() || tool.type() != JsonType::kObject) {
        return fields.fail_type(path, "an object", tool);
    }
    FieldReader part(tool, path);
    const auto type = part.view("type").as_string();
    if (!type) {
        part.fail_type("type", "\"function\"", part.view("type"));
    } else if (*type != "function") {
        refuse_kind(part, *type);
    }
    const JsonView body = part.view("function");
    if (body.is_null() || body.type() != JsonType::kObject) {
        part.fail_type("function", "an object with a name", body);
    }
    FieldReader function(body, path + ".function");
    const auto name = function.view("name").as_string();
    if (!name || !valid_tool_name(*name)) {
        function.fail_type("name", fmt::format("a name of {}", kNameWords), function.view("name"));
    } else {
        out.shape.name = *name;
    }
    function.string("description");
    function.boolean("strict");
    read_parameters(function, out);
    part.fail_with(function);
    fields.fail_with(part);
    if (fields.ok()) tool.write_to(out.json);
}

void read_tools(FieldReader& fields, std::vector<ToolSpec>& out) {
    const auto tools = fields.array("tools", "an array of tools");
    if (!tools) return;
    if (tools->size() > kMaxTools) {
        return fields.fail(param_error("tools", "tools has {} elements; at most {} are allowed",
                                       tools->size(), kMaxTools));
    }
    std::size_t bytes = 0;
    tools->each_element([&](std::size_t i, JsonView v) {
        const std::string path = fmt::format("tools[{}]", i);
        ToolSpec spec;
        read_tool(v, path, spec, fields);
        if (!fields.ok()) return false;
        bytes += spec.json.size();
        if (bytes > kMaxToolBytes) {
            fields.fail(param_error("tools", "tools is over {} bytes, which is the most allowed",
                                    kMaxToolBytes));
            return false;
        }
        const auto same = [&](const ToolSpec& t) { return t.shape.name == spec.shape.name; };
        if (std::ranges::any_of(out, same)) {
            const std::string where = path + ".function.name";
            fields.fail(param_error(where, "{} is \"{}\", which another tool is called already",
                                    where, spec.shape.name));
            return false;
        }
        out.push_back(std::move(spec));
        return true;
    });
}

/// A {"type":"function","function":{"name":…}} that names one of `tools`.
std::string read_reference(FieldReader& reference, const std::vector<ToolSpec>& tools) {
    const JsonView name = reference.view("function").find("name");
    const auto text = name.as_string();
    if (!text) {
        reference.fail_type("function.name", "the name of one of the tools", name);
        return {};
    }
    const auto same = [&](const ToolSpec& t) { return t.shape.name == *text; };
    if (std::ranges::none_of(tools, same)) {
        reference.fail_type("function.name", "the name of one of the tools", name);
        return {};
    }
    return std::string(*text);
}

void read_allowed_tools(FieldReader& choice, ToolUse& out) {
    const auto allowed = choice.object("allowed_tools", "an object with mode and tools");
    if (!allowed) {
        return choice.fail_type("allowed_tools", "an object with mode and tools",
                                choice.view("allowed_tools"));
    }
    FieldReader part(*allowed, choice.path("allowed_tools"));
    constexpr std::array<std::string_view, 2> kModes = {"auto", "required"};
    const auto mode = part.one_of("mode", kModes);
    if (!mode) part.fail_type("mode", "one of auto and required", part.view("mode"));
    const JsonView list = part.view("tools");
    if (list.is_null() || list.type() != JsonType::kArray || list.size() == 0) {
        part.fail_type("tools", "an array of at least one function", list);
    }
    std::vector<std::string> names;
    list.each_element([&](std::size_t i, JsonView v) {
        FieldReader reference(v, fmt::format("{}[{}]", part.path("tools"), i));
        const auto type = reference.view("type").as_string();
        if (type != "function") {
            reference.fail_type("type", "\"function\"", reference.view("type"));
        }
        names.push_back(read_reference(reference, out.tools));
        part.fail_with(reference);
        return part.ok();
    });
    choice.fail_with(part);
    if (!choice.ok()) return;
    std::erase_if(out.tools, [&](const ToolSpec& t) {
        return std::ranges::find(names, t.shape.name) == names.end();
    });
    out.choice = *mode == "required" ? ToolUse::Choice::kRequired : ToolUse::Choice::kAuto;
}

void read_choice_object(FieldReader& fields, JsonView object, ToolUse& out) {
    FieldReader choice(object, "tool_choice");
    const auto type = choice.view("type").as_string();
    if (type == "function") {
        out.named = read_reference(choice, out.tools);
        out.choice = ToolUse::Choice::kNamed;
    } else if (type == "allowed_tools") {
        read_allowed_tools(choice, out);
    } else if (type) {
        refuse_kind(choice, *type);
    } else {
        choice.fail_type("type", "one of function and allowed_tools", choice.view("type"));
    }
    fields.fail_with(choice);
}

void read_choice(FieldReader& fields, ToolUse& out) {
    out.choice = out.tools.empty() ? ToolUse::Choice::kNone : ToolUse::Choice::kAuto;
    const JsonView v = fields.view("tool_choice");
    if (v.is_null()) return;
    const auto word = v.as_string();
    if (word == "none") {
        out.choice = ToolUse::Choice::kNone;
        return;
    }
    if (word == "auto") return;
    const bool is_object = v.type() == JsonType::kObject;
    if (word != "required" && !is_object) {
        return fields.fail_type("tool_choice", "none, auto, required or an object", v);
    }
    if (out.tools.empty()) {
        return fields.fail(
            param_error("tool_choice", "tool_choice is only allowed where there are tools"));
    }
    if (is_object) return read_choice_object(fields, v, out);
    out.choice = ToolUse::Choice::kRequired;
}

}  // namespace

bool valid_tool_name(std::string_view name) {
    return !name.empty() && name.size() <= kMaxToolNameBytes &&
           std::ranges::all_of(name, [](char c) {
               return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                      c == '_' || c == '-' || c == '.';
           });
}

void read_tool_use(FieldReader& fields, ToolUse& out) {
    refuse_unless_empty(fields, "functions", "send tools instead");
    if (const auto call = fields.view("function_call").as_string();
        call != "none" && call != "auto") {
        refuse_unless_empty(fields, "function_call", "send tool_choice instead");
    }
    read_tools(fields, out.tools);
    if (!fields.ok()) return;
    read_choice(fields, out);
    out.parallel = fields.boolean("parallel_tool_calls").value_or(true);
}

}  // namespace stator::frontend
