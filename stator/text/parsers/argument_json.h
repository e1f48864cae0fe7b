#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "stator/text/parsers/json_scan.h"
#include "stator/text/parsers/output_parser.h"

namespace stator::text {

/// What the schema says of a parameter; `otherwise` where it, or the function, is not there.
[[nodiscard]] ToolShape::Type parameter_type(const std::vector<ToolShape>& tools,
                                             std::string_view function, std::string_view parameter,
                                             ToolShape::Type otherwise);

/// Appends the JSON that a value written as text stands for: as it is where it is JSON of the
/// schema's type, converted where it is a Python literal, and a string otherwise. Formats JSON as
/// Python's json.dumps does.
void append_argument_json(std::string& out, std::string_view text, ToolShape::Type type);

/// Writes the arguments of one call, piece by piece, as one JSON object.
class ArgumentObject {
  public:
    void begin() { *this = ArgumentObject(); }
    /// A key; its value follows.
    void key(std::string& out, std::string_view key);

    /// A value whose text comes in pieces: strings are written as they come, others when they are
    /// complete, at least where they are shorter than kMaxHeld.
    void begin_value(std::string_view key, ToolShape::Type type);
    /// Gives the bytes taken. Not all: a large value turns out there to be no JSON, when it is
    /// written in part.
    [[nodiscard]] std::size_t value(std::string& out, std::string_view piece);
    /// False: a large value was no JSON.
    [[nodiscard]] bool end_value(std::string& out);

    void end(std::string& out);

  private:
    void write_kept(std::string& out);

    enum class Mode : std::uint8_t { kText, kKept, kJson };

    bool any_ = false;
    Mode mode_ = Mode::kText;
    ToolShape::Type type_ = ToolShape::Type::kAny;
    bool started_ = false;
    std::string key_;
    std::string kept_;
    JsonScan scan_;
};

}  // namespace stator::text
