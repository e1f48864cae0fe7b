#pragma once

#include <fmt/format.h>

#include <concepts>
#include <cstdint>
#include <limits>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "stator/base/error.h"
#include "stator/codec/msgpack.h"

namespace stator::requests {

/// Reading of a payload that is a map with short text keys. Inside the room only.

constexpr std::size_t kMaxNameBytes = 256;
constexpr std::size_t kMaxErrorBytes = 4096;

/// A text of at most `limit` bytes.
[[nodiscard]] Result<void> read_text(codec::MsgpackReader& r, std::string& to, std::size_t limit);
/// Cut at `limit` bytes and made valid UTF-8, since readers insist on both.
void write_text(codec::MsgpackWriter& w, std::string_view text, std::size_t limit);

/// Reads one value into `to`; a number out of the type's range is an error.
template <typename T>
[[nodiscard]] Result<void> read_value(codec::MsgpackReader& r, T& to) {
    if constexpr (std::same_as<T, bool>) {
        auto v = r.boolean();
        if (!v) return tl::unexpected(std::move(v.error()));
        to = *v;
    } else if constexpr (std::same_as<T, std::string>) {
        auto v = r.string();
        if (!v) return tl::unexpected(std::move(v.error()));
        to.assign(*v);
    } else if constexpr (std::floating_point<T>) {
        auto v = r.real();
        if (!v) return tl::unexpected(std::move(v.error()));
        to = static_cast<T>(*v);
    } else if constexpr (std::unsigned_integral<T>) {
        auto v = r.number();
        if (!v) return tl::unexpected(std::move(v.error()));
        if (*v > std::numeric_limits<T>::max()) {
            return error(ErrorCode::kInvalidArgument, "{} is at most {}", *v,
                         std::numeric_limits<T>::max());
        }
        to = static_cast<T>(*v);
    } else {
        static_assert(std::signed_integral<T>);
        auto v = r.integer();
        if (!v) return tl::unexpected(std::move(v.error()));
        if (*v < std::numeric_limits<T>::min() || *v > std::numeric_limits<T>::max()) {
            return error(ErrorCode::kInvalidArgument, "{} is out of range", *v);
        }
        to = static_cast<T>(*v);
    }
    return {};
}

/// What a field's reader says about a key.
struct Field {
    bool known = true;
    Result<void> read;
    // NOLINTNEXTLINE(google-explicit-constructor): `return read_value(r, x);` in each_field's
    // lambda
    Field(Result<void> result) : read(std::move(result)) {}
    static Field unknown() {
        Field f{Result<void>{}};
        f.known = false;
        return f;
    }
};

/// Gives each key of the map to `field(key, reader) -> Field`. Unknown keys are skipped, but for
/// those that begin with '!', which say that they must be understood: kUnsupported. Errors name the
/// key.
template <typename F>
[[nodiscard]] Result<void> each_field(codec::MsgpackReader& r, F&& field) {
    auto n = r.map();
    if (!n) return tl::unexpected(std::move(n.error()));
    for (std::size_t i = 0; i < *n; ++i) {
        auto key = r.string();
        if (!key) return tl::unexpected(std::move(key.error()));
        Field f = field(*key, r);
        if (!f.known) {
            if (key->starts_with('!')) {
                return error(ErrorCode::kUnsupported, "field \"{}\" is not known here", *key);
            }
            f.read = r.skip();
        }
        if (!f.read) {
            f.read.error().message = fmt::format("field \"{}\": {}", *key, f.read.error().message);
            return f.read;
        }
    }
    return {};
}

/// As above, for a payload that is one map and nothing else.
template <typename F>
[[nodiscard]] Result<void> each_field_of(std::string_view payload, F&& field) {
    codec::MsgpackReader r(payload);
    if (auto ok = each_field(r, std::forward<F>(field)); !ok) return ok;
    if (!r.done()) {
        return error(ErrorCode::kInvalidArgument, "{} bytes lie behind the map",
                     payload.size() - r.position());
    }
    return {};
}

/// An enumerator from `first` to `last`.
template <typename E>
[[nodiscard]] Result<void> read_enum(codec::MsgpackReader& r, E& to, E first, E last) {
    auto v = r.number();
    if (!v) return tl::unexpected(std::move(v.error()));
    if (*v < static_cast<std::uint64_t>(first) || *v > static_cast<std::uint64_t>(last)) {
        return error(ErrorCode::kInvalidArgument, "{} is no value of it", *v);
    }
    to = static_cast<E>(*v);
    return {};
}

/// The value, or the error with what it was about.
template <typename T>
[[nodiscard]] Result<T> finish_reading(Result<void> read, T& value, std::string_view what) {
    if (read) return std::move(value);
    read.error().message = fmt::format("{}: {}", what, read.error().message);
    return tl::unexpected(std::move(read.error()));
}

/// Reads an array into a vector by `read(reader, element&) -> Result<void>`; at most `limit` long.
template <typename T, typename F>
[[nodiscard]] Result<void> read_array(codec::MsgpackReader& r, std::vector<T>& to,
                                      std::size_t limit, F&& read) {
    auto n = r.array();
    if (!n) return tl::unexpected(std::move(n.error()));
    if (*n > limit) {
        return error(ErrorCode::kTooLarge, "{} values, at most {}", *n, limit);
    }
    to.clear();
    for (std::size_t i = 0; i < *n; ++i) {
        T element{};
        if (auto ok = read(r, element); !ok) return ok;
        to.push_back(std::move(element));
    }
    return {};
}

}  // namespace stator::requests
