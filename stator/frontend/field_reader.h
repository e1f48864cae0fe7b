#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>

#include "stator/base/error.h"
#include "stator/codec/json.h"

namespace stator::frontend {

/// What a value is, for messages: `3.5`, `"text"` (cut where long), `an object`.
[[nodiscard]] std::string describe(codec::JsonView value);

/// "a, b and c", for messages.
[[nodiscard]] std::string list_words(std::span<const std::string_view> words);

/// A range of numbers, in words and as a test.
struct NumberRange {
    double low;
    double high;
    bool low_open = false;   ///< `low` itself is not in the range
    bool high_open = false;  ///< `high` itself is not in the range

    [[nodiscard]] bool has(double v) const;
    [[nodiscard]] std::string words() const;  ///< "from 0 to 2", "above 0 and up to 1"
};

/// Reads the fields of one JSON object, keeping the first error: read all fields, then ask error()
/// once. A field that is absent or null gives nullopt, as does a wrong one. Errors carry the
/// field's path and say what would be right.
class FieldReader {
  public:
    /// `path` is that of the object itself in the body, for errors: "messages[2]"; empty for the
    /// body.
    explicit FieldReader(codec::JsonView object, std::string path = {})
        : object_(object), path_(std::move(path)) {}

    [[nodiscard]] codec::JsonView object() const { return object_; }
    [[nodiscard]] codec::JsonView view(std::string_view name) const { return object_.find(name); }
    /// Of a field in the body: "messages[2].role".
    [[nodiscard]] std::string path(std::string_view name) const;

    std::optional<bool> boolean(std::string_view name);
    std::optional<std::string_view> string(std::string_view name);
    /// A string that is one of `choices`.
    std::optional<std::string_view> one_of(std::string_view name,
                                           std::span<const std::string_view> choices);
    std::optional<std::int64_t> integer(std::string_view name, std::int64_t low, std::int64_t high);
    /// As float; the range holds for the value after rounding to float, too.
    std::optional<float> number(std::string_view name, const NumberRange& range);
    /// The field, where it is an array; `what` completes "must be …".
    std::optional<codec::JsonView> array(std::string_view name, std::string_view what);
    std::optional<codec::JsonView> object(std::string_view name, std::string_view what);

    /// Keeps `e` unless there is an error already.
    void fail(tl::unexpected<Error> e);
    /// The error of a reader of a part of this object, if it has one.
    void fail_with(FieldReader& part);
    /// "<path> must be <what>, not <value>".
    void fail_type(std::string_view name, std::string_view what, codec::JsonView value);
    [[nodiscard]] bool ok() const { return !error_.has_value(); }
    /// The first error, moved out; only where !ok().
    [[nodiscard]] tl::unexpected<Error> error();

  private:
    codec::JsonView object_;
    std::string path_;
    std::optional<Error> error_;
};

}  // namespace stator::frontend
