#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <string>
#include <string_view>
#include <vector>

namespace stator::text {

/// Whether a text begins with a mark.
enum class Match : std::uint8_t {
    kNo,
    kPart,  ///< all there is of the text is the mark's beginning, and more may come
    kYes,
};

/// What a parser may read now: the front of the output not yet taken. Decisions must follow from
/// the text alone: where `rest` ends too early for one, a parser waits, unless it is the `last`.
struct Input {
    std::string_view rest;
    bool last = false;  ///< nothing will follow

    [[nodiscard]] bool empty() const { return rest.empty(); }
    [[nodiscard]] char front() const { return rest.front(); }
    /// Removes and gives the first `n` bytes.
    std::string_view take(std::size_t n) {
        const std::string_view taken = rest.substr(0, n);
        rest.remove_prefix(n);
        return taken;
    }
    [[nodiscard]] Match at(std::string_view mark) const { return match(rest, mark, last); }

    [[nodiscard]] static Match match(std::string_view text, std::string_view mark, bool last) {
        if (text.size() >= mark.size()) {
            return text.starts_with(mark) ? Match::kYes : Match::kNo;
        }
        return !last && mark.starts_with(text) ? Match::kPart : Match::kNo;
    }
};

/// Runs over `text` behind what was left of earlier pieces, and keeps what is left of it.
template <typename Run>
void run_piece(std::string& pending, std::string_view text, Run&& run) {
    if (pending.empty()) {
        Input in{text, false};
        run(in);
        if (!in.empty()) pending.assign(in.rest);
        return;
    }
    pending.append(text);
    Input in{pending, false};
    run(in);
    pending.erase(0, pending.size() - in.rest.size());
}

[[nodiscard]] constexpr bool is_space(char c) {
    return c == ' ' || c == '\n' || c == '\t' || c == '\r';
}

/// Length of the white space that `text` begins with.
[[nodiscard]] std::size_t leading_space(std::string_view text);
[[nodiscard]] std::string_view trimmed(std::string_view text);

/// A few strings to look for in running text. The strings are views and must outlive the set.
class MarkSet {
  public:
    MarkSet() = default;
    MarkSet(std::initializer_list<std::string_view> marks);
    void add(std::string_view mark);  ///< empty: none
    [[nodiscard]] std::size_t size() const { return marks_.size(); }
    [[nodiscard]] std::string_view operator[](std::size_t i) const { return marks_[i]; }

    struct Found {
        std::size_t begin =
            0;  ///< the text before it has no mark in it; its size where there is none
        std::size_t mark = 0;  ///< which
        Match match = Match::kNo;
    };
    /// The first place where a mark begins, the longest one there. kPart: one may begin there.
    [[nodiscard]] Found find(std::string_view text, bool last) const;
    /// The same for the beginning of `text` alone.
    [[nodiscard]] Found at(std::string_view text, bool last) const;

  private:
    [[nodiscard]] std::size_t candidate(std::string_view text, std::size_t from) const;

    std::vector<std::string_view> marks_;
    std::array<bool, 256> first_{};
    int only_first_ = -1;  ///< the byte that all marks begin with
};

}  // namespace stator::text
