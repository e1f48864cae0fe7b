#include "stator/kube/watch_lines.h"

namespace stator::kube {
namespace {
constexpr std::size_t kKeptBytes = 256 * 1024;  // a buffer larger than this is given back
}

bool WatchLines::tell(std::string_view text, const std::function<bool(std::string_view)>& line) {
    if (!text.empty() && text.back() == '\r') text.remove_suffix(1);
    return text.empty() || line(text);
}

bool WatchLines::feed(std::string_view piece, const std::function<bool(std::string_view)>& line) {
    while (!piece.empty() && !too_long_) {
        const std::size_t end = piece.find('\n');
        const std::string_view part = piece.substr(0, end);
        if (begun_.size() + part.size() > most_) {
            too_long_ = true;
            begun_ = {};
            break;
        }
        if (end == std::string_view::npos) {
            begun_ += part;
            return true;
        }
        piece.remove_prefix(end + 1);
        if (begun_.empty()) {
            if (!tell(part, line)) return false;
            continue;
        }
        begun_ += part;
        const bool go_on = tell(begun_, line);
        if (begun_.capacity() > kKeptBytes) begun_ = {};
        begun_.clear();
        if (!go_on) return false;
    }
    return !too_long_;
}

void WatchLines::reset() {
    begun_ = {};
    too_long_ = false;
}

}  // namespace stator::kube
