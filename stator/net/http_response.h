#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "stator/net/http_chunks.h"

namespace stator::net {

struct HttpResponseHead {
    int status = 0;
    std::vector<std::pair<std::string, std::string>> headers;

    /// The first of this name, in any case; empty where there is none.
    [[nodiscard]] std::string_view header(std::string_view name) const;
};

/// The client's half of HTTP/1.1 without sockets: bytes in, head and body of answers out. How the
/// bytes are cut never matters. Strict where leniency lets two parsers disagree: CR LF only, no
/// folded headers, one Content-Length, no other coding than chunked. Interim answers (1xx) are
/// passed over.
class HttpResponseParser {
  public:
    enum class State : std::uint8_t {
        kHead,
        kBody,  ///< head() is whole
        kDone,  ///< the answer is whole
        kBad,   ///< see reason()
    };

    explicit HttpResponseParser(std::size_t max_head_bytes) : max_head_bytes_(max_head_bytes) {}

    /// Ready for the next answer. `to_head`: it answers a HEAD request, so it has no body.
    void begin(bool to_head);
    /// Reads from the front of `bytes` and removes what was used. Where that is body, `body` is it
    /// (a view into `bytes`), else it is empty. Call it while bytes are left and the state is kHead
    /// or kBody.
    State next(std::string_view& bytes, std::string_view& body);
    /// The peer has closed its side in order: kDone for a body that lasts until then, else kBad.
    State end();

    [[nodiscard]] State state() const { return state_; }
    [[nodiscard]] const HttpResponseHead& head() const { return head_; }
    [[nodiscard]] const std::string& reason() const { return reason_; }
    /// After kDone: may the connection carry another request?
    [[nodiscard]] bool keep_alive() const { return keep_alive_; }

  private:
    enum class Framing : std::uint8_t { kNone, kLength, kChunked, kUntilClose };

    State fail(std::string reason);
    void read_head(std::string_view& bytes);
    void take_head();
    [[nodiscard]] bool take_status_line(std::string_view line);
    [[nodiscard]] bool take_header(std::string_view line);
    void choose_framing();
    void read_chunked(std::string_view& bytes, std::string_view& body);

    std::size_t max_head_bytes_;
    State state_ = State::kHead;
    Framing framing_ = Framing::kNone;
    bool to_head_ = false;
    bool keep_alive_ = false;
    bool http_1_0_ = false;
    std::string text_;  ///< of the head, so far
    std::size_t interim_bytes_ = 0;
    HttpResponseHead head_;
    std::uint64_t left_ = 0;
    std::optional<ChunkDecoder> chunks_;
    std::string reason_;
};

}  // namespace stator::net
