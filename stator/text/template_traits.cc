#include "stator/text/template_traits.h"

#include <fmt/format.h>

#include <string>
#include <string_view>

namespace stator::text {
namespace {

constexpr std::string_view kNeedle = "Zq7needle";

/// Renders messages; empty where the template refuses them.
class Probe {
  public:
    explicit Probe(const ChatTemplate& t) : template_(t) {}

    [[nodiscard]] std::string render(std::string_view messages) const {
        return context(messages, "null");
    }
    /// A call with `arguments`, given as JSON, and its result.
    [[nodiscard]] std::string call(std::string_view id, std::string_view content,
                                   std::string_view arguments) const {
        return context(
            fmt::format(R"({{"role":"user","content":"Hello"}},{{"role":"assistant","content":{1},)"
                        R"("tool_calls":[{{"id":"{0}","type":"function","function":)"
                        R"({{"name":"look","arguments":{2}}}}}]}},)"
                        R"({{"role":"tool","content":"42","name":"look","tool_call_id":"{0}"}})",
                        id, content, arguments),
            R"([{"type":"function","function":{"name":"look","description":"Looks.",)"
            R"("parameters":{"type":"object","properties":{"at":{"type":"string",)"
            R"("description":"Where."}},"required":["at"]}}}])");
    }

  private:
    [[nodiscard]] std::string context(std::string_view messages, std::string_view tools) const {
        auto text = template_.render(
            fmt::format(
                R"({{"messages":[{}],"tools":{},"documents":null,"add_generation_prompt":true}})",
                messages, tools),
            0);
        return text ? std::move(*text) : std::string();
    }

    const ChatTemplate& template_;
};

bool has(std::string_view text, std::string_view part) {
    return text.find(part) != std::string_view::npos;
}

bool has_needle(std::string_view text) { return has(text, kNeedle); }

std::string replaced(std::string text, std::string_view from, std::string_view to) {
    for (std::size_t at = 0; (at = text.find(from, at)) != std::string::npos; at += to.size()) {
        text.replace(at, from.size(), to);
    }
    return text;
}

bool knows_developer(const Probe& probe) {
    constexpr std::string_view kNobody = "zq7role";
    const auto with = [&](std::string_view role) {
        return probe.render(
            fmt::format(R"({{"role":"{}","content":"{}"}},{{"role":"user","content":"Hello"}})",
                        role, kNeedle));
    };
    const std::string developer = with("developer");
    if (!has_needle(developer)) return false;
    return replaced(developer, "developer", kNobody) != with(kNobody);
}

constexpr std::string_view kShortId = "Zq7abcdef";
constexpr std::string_view kLongId = "call_Zq7abcdefghijklmnopqrst";

/// Whether the needle of a call's arguments is there, in JSON: an object that is put out without
/// being made JSON is in Python's notation, and a string that is made JSON once more has
/// backslashes.
bool shows_arguments(std::string_view text) {
    return has_needle(text) && !has(text, "'at'") && !has(text, "\\\"at");
}

/// Some templates only show calls beside null, some write it out as None, some fail at it; some
/// want arguments as an object, some as a string. Tries them in the order of what clients send and
/// Transformers expects.
void find_call_traits(const Probe& probe, TemplateTraits& out) {
    const std::string object = fmt::format(R"({{"at":"{}"}})", kNeedle);
    const std::string string = fmt::format(R"("{{\"at\":\"{}\"}}")", kNeedle);
    const auto render = [&](bool null, bool as_string, std::string_view id = kShortId) {
        return probe.call(id, null ? "null" : R"("")", as_string ? string : object);
    };
    const auto writes_none = [&](bool as_string) {
        return has(render(true, as_string), "None") && !has(render(false, as_string), "None");
    };
    bool found = false;
    for (const bool as_string : {false, true}) {
        for (const bool null : {true, false}) {
            if (found || !shows_arguments(render(null, as_string))) continue;
            if (null && shows_arguments(render(false, as_string)) && writes_none(as_string)) {
                continue;
            }
            found = true;
            out.string_arguments = as_string;
            out.null_content = null;
        }
    }
    if (!found) {
        if (render(false, false).empty()) return;
        out.null_content = !render(true, false).empty() && !writes_none(false);
    }
    out.short_call_ids = render(out.null_content, out.string_arguments, kLongId).empty();
}

}  // namespace

TemplateTraits find_template_traits(const ChatTemplate& chat_template) {
    const Probe probe(chat_template);
    TemplateTraits out;
    const std::string parts = probe.render(
        fmt::format(R"({{"role":"user","content":[{{"type":"text","text":"{}"}}]}})", kNeedle));
    // The list itself, as Python or JSON would show it, is no content.
    out.part_content = has_needle(parts) && !has(parts, "'type'") && !has(parts, "\"type\"") &&
                       !has(parts, "'text'") && !has(parts, "\"text\"");
    out.text_content =
        !out.part_content ||
        has_needle(probe.render(fmt::format(R"({{"role":"user","content":"{}"}})", kNeedle)));
    out.developer_role = knows_developer(probe);
    find_call_traits(probe, out);
    return out;
}

}  // namespace stator::text
