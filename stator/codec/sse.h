#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>

#include "stator/base/error.h"

namespace stator::codec {

/// Reads a text/event-stream (WHATWG HTML, 9.2) from arbitrary pieces. Lines may end in LF, CRLF or CR; a leading BOM is
/// skipped; comments and the fields id and retry are ignored. Any split of the bytes yields the same events.
class SseReader {
 public:
    struct Event {
        std::string type;  ///< "message" where the stream names none
        std::string data;  ///< the data lines, joined by LF
        bool operator==(const Event&) const = default;
    };

    explicit SseReader(std::size_t max_event_bytes = 16 * 1024 * 1024) : max_(max_event_bytes) {}

    /// Takes more bytes. kTooLarge once an event or a line passes the limit; the reader is dead afterwards.
    [[nodiscard]] Result<void> feed(std::string_view bytes);
    /// The next complete event, if there is one.
    [[nodiscard]] std::optional<Event> next();

 private:
    std::size_t max_;
    std::string pending_;
    std::size_t scanned_ = 0;
    bool at_start_ = true;
    bool skip_lf_ = false;
    bool dead_ = false;
    Event current_;
    bool has_data_ = false;
    // Complete events wait here until next(); bounded by the bytes fed since the last drain.
    std::string ready_;
    std::size_t ready_read_ = 0;
};

}  // namespace stator::codec
