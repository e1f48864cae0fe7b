#pragma once

#include <compare>
#include <cstddef>
#include <functional>

namespace stator {

/// A number that can't be mixed up with another number: `using RequestId = Strong<std::uint64_t,
/// struct RequestIdTag>;` Construction is explicit, comparison and hashing are the number's own.
template <typename T, typename Tag>
struct Strong {
    T value{};

    constexpr Strong() = default;
    constexpr explicit Strong(T v) : value(v) {}
    constexpr auto operator<=>(const Strong&) const = default;
};

}  // namespace stator

template <typename T, typename Tag>
struct std::hash<stator::Strong<T, Tag>> {
    std::size_t operator()(const stator::Strong<T, Tag>& s) const noexcept {
        return std::hash<T>{}(s.value);
    }
};
