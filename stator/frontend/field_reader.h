#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "stator/base/error.h"
#include "stator/codec/json.h"

namespace stator::frontend {

/// What a value is, for messages: `3.5`, `"text"` (cut where long), `an object`.
[[nodiscard]] std::string describe(codec::JsonView value);

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
/// field's name and say what would be right.
class FieldReader {
  public:
    explicit FieldReader(codec::JsonView object) : object_(object) {}

    [[nodiscard]] codec::JsonView object() const { return object_; }
    [[nodiscard]] codec::JsonView view(std::string_view name) const { return object_.find(name); }

    std::optional<bool> boolean(std::string_view name);
    std::optional<std::string_view> string(std::string_view name);
    std::optional<std::int64_t> integer(std::string_view name, std::int64_t low, std::int64_t high);
    /// As float; the range holds for the value after rounding to float, too.
    std::optional<float> number(std::string_view name, const NumberRange& range);
    /// The field, where it is an array; `what` completes "must be …".
    std::optional<codec::JsonView> array(std::string_view name, std::string_view what);
    std::optional<codec::JsonView> object(std::string_view name, std::string_view what);

    /// Keeps `e` unless there is an error already.
    void fail(tl::unexpected<Error> e);
    /// "<name> must be <what>, not <value>".
    void fail_type(std::string_view name, std::string_view what, codec::JsonView value);
    [[nodiscard]] bool ok() const { return !error_.has_value(); }
    /// The first error, moved out; only where !ok().
    [[nodiscard]] tl::unexpected<Error> error();

  private:
    codec::JsonView object_;
    std::optional<Error> error_;
};

}  // namespace stator::frontend
