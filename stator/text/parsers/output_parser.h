#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "stator/base/error.h"

namespace stator::text {

/// What a parser made of a model's output, in order: flat, reused from piece to piece, so that
/// ordinary text costs no allocation.
struct OutputEvents {
    enum class Kind : std::uint8_t {
        kContent,        ///< text for the user
        kReasoning,      ///< text of the model's thinking
        kToolBegin,      ///< call `tool` begins; the text is the function's name
        kToolArguments,  ///< a piece of its arguments; joined they are one JSON object
        kToolEnd,        ///< its arguments are complete
    };
    struct Event {
        Kind kind = Kind::kContent;
        std::uint32_t tool = 0;  ///< of kTool…: which call of this output, from 0
        std::uint32_t begin = 0;
        std::uint32_t size = 0;  ///< text[begin .. begin + size)
    };
    std::vector<Event> events;
    std::string text;

    [[nodiscard]] std::string_view of(const Event& e) const {
        return std::string_view(text).substr(e.begin, e.size);
    }
    void clear() {
        events.clear();
        text.clear();
    }
    /// Appends; content, reasoning and arguments join an event of their kind that is the last one.
    void add(Kind kind, std::string_view piece, std::uint32_t tool = 0);
};

/// A function that may be called: what a parser needs to turn a family's own notation of arguments
/// into JSON.
struct ToolShape {
    enum class Type : std::uint8_t { kAny, kString, kNumber, kInteger, kBoolean, kObject, kArray };
    std::string name;
    std::map<std::string, Type, std::less<>> parameters;  ///< by name, as its JSON schema says
};

/// Reads one model's notation of thinking and calling tools from its output as it comes. Pure, one
/// per generation, not thread-safe. Events depend on the whole text alone and not on how it was cut
/// (OutputEvents::add() joined). Holds back no more than a mark that may have begun. Nothing is
/// lost: text that turns out not to be a call is content, and a call cut off by the end of the
/// output keeps the arguments it had.
class OutputParser {
  public:
    virtual ~OutputParser() = default;
    /// `text`: valid UTF-8, control tokens spelled out ("<|channel|>").
    virtual void push(std::string_view text, OutputEvents& out) = 0;
    /// The output has ended.
    virtual void finish(OutputEvents& out) = 0;
};

/// Which notations a model uses; empty = none: all is content.
struct OutputFormat {
    std::string tools;      ///< "hermes", "llama3_json", "mistral", …
    std::string reasoning;  ///< "qwen3", "deepseek_r1", "gpt_oss", …
    bool operator==(const OutputFormat&) const = default;
};

/// What make_output_parser() must know of a request.
struct OutputParserOptions {
    OutputFormat format;
    std::vector<ToolShape> tools;
    /// The prompt ends inside the model's thinking: its template wrote the opening mark.
    bool begins_in_reasoning = false;
    /// The output is forced to be JSON: "[{"name":…,"parameters":{…}},…]" where no name is given,
    /// and otherwise the arguments of this function.
    bool forced = false;
    std::string forced_name;
};

/// kInvalidArgument: no such format; names those there are.
[[nodiscard]] Result<std::unique_ptr<OutputParser>> make_output_parser(OutputParserOptions options);

/// What a chat template shows of its model's notations; empty where it shows none.
[[nodiscard]] OutputFormat detect_output_format(std::string_view chat_template);

/// The rendered prompt ends inside thinking in this notation.
[[nodiscard]] bool ends_in_reasoning(std::string_view reasoning_format, std::string_view prompt);

/// "</think>" and the like: what ends thinking in this notation; empty where there is no such mark.
[[nodiscard]] std::string_view reasoning_end_mark(std::string_view reasoning_format);

/// All names that OutputFormat may have, for messages and manuals.
[[nodiscard]] std::vector<std::string_view> tool_formats();
[[nodiscard]] std::vector<std::string_view> reasoning_formats();

}  // namespace stator::text
