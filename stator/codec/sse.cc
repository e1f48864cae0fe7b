#include "stator/codec/sse.h"

#include <utility>

namespace stator::codec {

Result<void> SseReader::feed(std::string_view bytes) {
    std::size_t at = 0;
    std::size_t lf =
        bytes.find('\n');  // the first one at or after `at`, so that it is looked for only once
    while (!dead_ && at < bytes.size()) {
        if (lf < at) lf = bytes.find('\n', at);
        if (std::exchange(skip_lf_, false) && bytes[at] == '\n') {
            ++at;
            continue;
        }
        std::string_view line = bytes.substr(at, lf == std::string_view::npos ? lf : lf - at);
        const std::size_t cr = line.find('\r');
        skip_lf_ = cr != std::string_view::npos;
        line = line.substr(0, cr);
        at += line.size();
        if (at == bytes.size()) {
            dead_ = line.size() > max_ - pending_.size();
            if (!dead_) pending_.append(line);
        } else {
            dead_ = !end_line(line);
            ++at;
        }
    }
    if (!dead_) return {};
    pending_ = {};
    current_ = {};
    return error(ErrorCode::kTooLarge,
                 "A line or event of the event stream is longer than {} bytes, which is the most "
                 "that is read.",
                 max_);
}

/// The end of a line has come: what is pending and `rest` make it up. False where that is too long.
bool SseReader::end_line(std::string_view rest) {
    if (rest.size() > max_ - pending_.size()) return false;
    if (pending_.empty()) return take_line(rest);
    pending_.append(rest);
    const bool good = take_line(pending_);
    pending_.clear();
    return good;
}

bool SseReader::take_line(std::string_view line) {
    if (std::exchange(first_line_, false) && line.starts_with("\xEF\xBB\xBF")) {
        line.remove_prefix(3);
    }
    if (line.empty()) {
        dispatch();
        return true;
    }
    const std::size_t colon = line.find(':');
    const std::string_view field = line.substr(0, colon);
    std::string_view value = colon == std::string_view::npos ? "" : line.substr(colon + 1);
    if (value.starts_with(' ')) value.remove_prefix(1);
    if (field == "event") {
        current_.type = value;
    } else if (field == "data") {
        const std::size_t newline = has_data_ ? 1 : 0;
        if (current_.data.size() + newline + value.size() > max_) return false;
        if (std::exchange(has_data_, true)) current_.data += '\n';
        current_.data += value;
    }
    return true;
}

void SseReader::dispatch() {
    if (std::exchange(has_data_, false)) {
        if (current_.type.empty()) current_.type = "message";
        ready_.push_back(std::move(current_));
    }
    current_ = {};
}

std::optional<SseReader::Event> SseReader::next() {
    if (ready_.empty()) return std::nullopt;
    std::optional<Event> event(std::move(ready_.front()));
    ready_.pop_front();
    return event;
}

}  // namespace stator::codec
