#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "stator/base/error.h"

namespace stator::codec {

enum class JsonType : std::uint8_t { kNull, kBool, kInt, kUint, kDouble, kString, kArray, kObject };
std::string_view to_string(JsonType type);

/// A value inside a JsonDocument: 16 bytes, copied freely, valid as long as the document is. A
/// default-constructed view is "absent", which find() returns for a missing key; every other method
/// may be called on it and says so by its result.
class JsonView {
  public:
    JsonView() = default;

    [[nodiscard]] bool present() const { return present_; }
    [[nodiscard]] JsonType type() const;  ///< kNull where absent
    [[nodiscard]] bool is_null() const { return !present_ || type() == JsonType::kNull; }

    /// Empty where the value has another type or does not fit. as_double() takes integers too (the
    /// nearest double, beyond 2^53), as_int() and as_uint() never take a double, not even 1.0.
    [[nodiscard]] std::optional<bool> as_bool() const;
    [[nodiscard]] std::optional<std::int64_t> as_int() const;
    [[nodiscard]] std::optional<std::uint64_t> as_uint() const;
    [[nodiscard]] std::optional<double> as_double() const;
    /// Unescaped, valid UTF-8; the view points into the document.
    [[nodiscard]] std::optional<std::string_view> as_string() const;

    /// Object member by key (the first, where a key is there twice); absent for other types.
    [[nodiscard]] JsonView find(std::string_view key) const;
    /// Elements of an array or members of an object; 0 for other types.
    [[nodiscard]] std::size_t size() const;
    /// Calls f(index, element) in order until it returns false. Nothing for other types.
    void each_element(const std::function<bool(std::size_t, JsonView)>& f) const;
    /// Calls f(key, value) in the document's order until it returns false. Nothing for other types.
    void each_member(const std::function<bool(std::string_view, JsonView)>& f) const;

    /// The value as compact JSON again, appended to `out`.
    void write_to(std::string& out) const;

  private:
    friend class JsonDocument;
    friend struct JsonAccess;
    alignas(8) std::byte raw_[16]{};
    bool present_ = false;
};

/// A parsed JSON text (RFC 8259, UTF-8 checked, no extensions). Narrower than the RFC allows:
/// integers must fit 64 bits, other numbers a double; \u escapes must form whole characters; at
/// most kMaxDepth objects and arrays around a value. Reuse one per thread: its buffers are kept.
/// Not thread-safe. Parsing again, shrink() and destruction invalidate all views; moving does not.
class JsonDocument {
  public:
    static constexpr std::size_t kMaxDepth = 64;

    JsonDocument();
    ~JsonDocument();
    JsonDocument(JsonDocument&&) noexcept;
    JsonDocument& operator=(JsonDocument&&) noexcept;

    /// Parses a copy of `text` and gives its value. kInvalidArgument with what is wrong and at
    /// which byte, where the text is no JSON; kTooLarge from 4 GiB on; kExhausted where memory is
    /// short.
    [[nodiscard]] Result<JsonView> parse(std::string_view text);

    /// Bytes the document's buffers hold now: about 16 per byte of the longest text parsed so far.
    /// A caller that keeps documents calls shrink() after a large one.
    [[nodiscard]] std::size_t capacity_bytes() const;
    /// Gives all buffers back.
    void shrink();

  private:
    struct Impl;
    std::unique_ptr<Impl> impl_;
};

}  // namespace stator::codec
