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

void find_call_traits(const Probe& probe, TemplateTraits& out) {
    constexpr std::string_view kShortId = "Zq7abcdef";
    constexpr std::string_view kLongId = "call_Zq7abcdefghijklmnopqrst";
    const std::string object = fmt::format(R"({{"at":"{}"}})", kNeedle);
    const std::string string = fmt::format(R"("{{\"at\":\"{}\"}}")", kNeedle);
    // Where an object is put out without being made JSON, it is in Python's notation.
    const auto wrong = [&](std::string_view text) {
        return !has_needle(text) || has(text, "'at'") || has(text, "\\\"at");
    };
    out.string_arguments = wrong(probe.call(kShortId, R"("")", object)) &&
                           !wrong(probe.call(kShortId, R"("")", string));
    const std::string& arguments = out.string_arguments ? string : object;
    const std::string plain = probe.call(kShortId, R"("")", arguments);
    if (plain.empty()) return;
    const std::string null = probe.call(kShortId, "null", arguments);
    out.null_content = !null.empty() && !(has(null, "None") && !has(plain, "None"));
    out.short_call_ids = probe.call(kLongId, R"("")", arguments).empty();
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
