#pragma once

#include <cstddef>
#include <deque>
#include <optional>
#include <string>
#include <string_view>

#include "stator/base/error.h"

namespace stator::codec {

/// Reads a text/event-stream (WHATWG HTML, 9.2) from arbitrary pieces. Lines may end in LF, CRLF or
/// CR; a leading BOM is skipped; comments and the fields id and retry are ignored. Any split of the
/// bytes yields the same events. Bytes are passed on as they are: whether they are UTF-8 is for
/// whoever reads the data.
class SseReader {
  public:
    struct Event {
        std::string type;  ///< "message" where the stream names none
        std::string data;  ///< the data lines, joined by LF
        bool operator==(const Event&) const = default;
    };

    explicit SseReader(std::size_t max_event_bytes = 16 * 1024 * 1024) : max_(max_event_bytes) {}

    /// Takes more bytes. kTooLarge once a line or an event's data passes the limit; events complete
    /// before that can still be taken, further bytes are refused. Complete events wait for next():
    /// drain after each piece.
    [[nodiscard]] Result<void> feed(std::string_view bytes);
    /// The next complete event, if there is one.
    [[nodiscard]] std::optional<Event> next();

  private:
    [[nodiscard]] bool end_line(std::string_view rest_of_line);
    [[nodiscard]] bool take_line(std::string_view line);
    void dispatch();

    std::size_t max_;
    std::string pending_;  // the beginning of a line whose end has not come yet
    bool first_line_ = true;
    bool skip_lf_ = false;  // the last byte was a CR that ended a line
    bool dead_ = false;
    bool has_data_ = false;
    Event current_;
    std::deque<Event> ready_;
};

}  // namespace stator::codec
