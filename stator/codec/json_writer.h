#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace stator::codec {

/// Appends compact JSON to a string the caller owns. Commas are put by the writer; nesting is the
/// caller's to get right (asserted in debug builds, down to 128 levels). No allocation but the
/// string's own growth: this is on the path of every streamed token.
///
///     JsonWriter w(out);
///     w.begin_object().key("id").string(id).key("n").number(3).end_object();
///
/// A double stays one: 1.0 is written "1.0". NaN and infinities are written as null. Strings must
/// be valid UTF-8 (asserted) and are escaped as RFC 8259 demands. One writer writes one value;
/// `out` may hold something before it.
class JsonWriter {
  public:
    explicit JsonWriter(std::string& out) : out_(out) {}

    JsonWriter& begin_object();
    JsonWriter& end_object();
    JsonWriter& begin_array();
    JsonWriter& end_array();
    JsonWriter& key(std::string_view k);
    JsonWriter& string(std::string_view s);
    JsonWriter& number(std::int64_t n);
    JsonWriter& number(std::uint64_t n);
    JsonWriter& number(int n) { return number(static_cast<std::int64_t>(n)); }
    JsonWriter& number(unsigned n) { return number(static_cast<std::uint64_t>(n)); }
    JsonWriter& number(double d);  ///< shortest form that reads back the same
    JsonWriter& boolean(bool b);
    JsonWriter& null();
    /// Something already encoded, one whole value.
    JsonWriter& raw(std::string_view json);

  private:
    void before_value();
    void open(bool object);
    void close(bool object);
    [[nodiscard]] bool in_object() const;

    std::string& out_;
    bool need_comma_ = false;
    // For the asserts only; release builds leave them alone.
    bool after_key_ = false;
    bool done_ = false;
    std::uint32_t depth_ = 0;
    std::uint64_t objects_[2] = {};  // bit d: level d + 1 is an object
};

/// Appends `s` with quotes, escaped.
void append_json_string(std::string& out, std::string_view s);

}  // namespace stator::codec
