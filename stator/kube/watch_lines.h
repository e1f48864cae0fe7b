#pragma once

#include <cstddef>
#include <functional>
#include <string>
#include <string_view>

namespace stator::kube {

/// Cuts a watch's body into its lines; pieces of the body may end anywhere. Holds at most one line
/// of `max_line_bytes`.
class WatchLines {
  public:
    explicit WatchLines(std::size_t max_line_bytes) : most_(max_line_bytes) {}

    /// Calls `line` for each whole line that is not empty (without its line break) until it returns
    /// false; then, and where a line is too long, the rest is of no use and this returns false. A
    /// whole line that came in one piece is not copied.
    bool feed(std::string_view piece, const std::function<bool(std::string_view)>& line);
    /// A line has been too long.
    [[nodiscard]] bool too_long() const { return too_long_; }
    void reset();

  private:
    bool tell(std::string_view text, const std::function<bool(std::string_view)>& line);

    std::size_t most_;
    std::string begun_;
    bool too_long_ = false;
};

}  // namespace stator::kube
