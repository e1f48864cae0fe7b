#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace stator::codec {

/// Appends compact JSON to a string the caller owns. Commas are put by the writer; nesting is the caller's to get right
/// (asserted in debug builds). No allocation but the string's own growth: this is on the path of every streamed token.
///
///     JsonWriter w(out);
///     w.begin_object().key("id").string(id).key("n").number(3).end_object();
///
/// NaN and infinities are written as null. Strings must be valid UTF-8 and are escaped as RFC 8259 demands.
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
    std::string& out_;
    bool need_comma_ = false;
};

/// Appends `s` with quotes, escaped.
void append_json_string(std::string& out, std::string_view s);

}  // namespace stator::codec
