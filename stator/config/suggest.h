#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <string_view>

namespace stator::config {

/// Edits (insert, delete, replace, swap neighbours) that turn one word into the other.
[[nodiscard]] std::size_t edit_distance(std::string_view a, std::string_view b);

/// The candidate that someone who wrote `word` most likely meant; empty where none is near (more
/// than a third of its letters differ). The first of equally near ones.
[[nodiscard]] std::string_view nearest(std::string_view word,
                                       std::span<const std::string_view> candidates);

/// " Did you mean X?" or nothing; to append to a sentence.
[[nodiscard]] std::string did_you_mean(std::string_view word,
                                       std::span<const std::string_view> candidates);

}  // namespace stator::config
