#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace stator::net {

/// The standard phrase of a status, "Unknown" for others. Static storage.
[[nodiscard]] std::string_view reason_phrase(int status);

/// May an answer with this status have a body (and its framing headers)?
[[nodiscard]] bool status_has_body(int status);

/// Unix seconds as HTTP writes them: "Sun, 06 Nov 1994 08:49:37 GMT".
[[nodiscard]] std::string http_date(std::int64_t unix_seconds);

/// The Date header's line, rendered once per second.
class DateLine {
  public:
    [[nodiscard]] std::string_view at(std::int64_t unix_seconds);

  private:
    std::int64_t second_ = -1;
    std::string line_;
};

enum class Framing : std::uint8_t {
    kNone,        ///< no body and no length (204, 304)
    kLength,      ///< Content-Length
    kChunked,     ///< Transfer-Encoding: chunked
    kUntilClose,  ///< HTTP/1.0 without a length
};

struct AnswerHead {
    int status = 200;
    std::string_view content_type = {};
    std::string_view extra = {};  ///< whole header lines, see append_header()
    Framing framing = Framing::kLength;
    std::size_t content_length = 0;
    bool close = false;       ///< say that the connection ends
    bool keep_alive = false;  ///< say that it stays (HTTP/1.0 needs to hear it)
};

/// Status line, headers and the empty line.
void append_head(std::string& out, const AnswerHead& head, std::string_view date_line);

/// "name: value" and a line break. Control characters become spaces: they could end the line and
/// start another header.
void append_header(std::string& out, std::string_view name, std::string_view value);

/// One chunk. `bytes` is not empty: an empty chunk ends an answer.
void append_chunk(std::string& out, std::string_view bytes);

inline constexpr std::string_view kLastChunk = "0\r\n\r\n";

}  // namespace stator::net
