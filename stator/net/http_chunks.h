#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace stator::net {

/// Takes the chunked coding (RFC 9112, 7.1) off a body, byte by byte: how the bytes are cut never
/// matters, nothing waits in a buffer and nothing is looked at twice. Stricter than the RFC asks
/// where leniency lets two parsers disagree: CR LF only, no white space around a length, at most 16
/// digits, no quotes in extensions. Extensions and trailers are checked for form, bounded and
/// dropped.
class ChunkDecoder {
  public:
    enum class Outcome : std::uint8_t {
        kMore,           ///< feed on
        kEnd,            ///< the body is whole
        kMalformed,      ///< see reason()
        kTooLong,        ///< the chunks add up to more than max_body_bytes
        kTooMuchAround,  ///< extensions or trailers are over max_framing_bytes
    };

    ChunkDecoder(std::size_t max_body_bytes, std::size_t max_framing_bytes)
        : body_left_(max_body_bytes), framing_left_(max_framing_bytes) {}

    /// Reads from the front of `bytes` and removes what was used. Where that is body, `data` is it
    /// (a view into `bytes`), else it is empty. Returns at each piece of body, so call it while
    /// bytes are left and the outcome is kMore.
    Outcome next(std::string_view& bytes, std::string_view& data);

    /// What is wrong, after kMalformed.
    [[nodiscard]] const char* reason() const { return reason_; }

  private:
    enum class State : std::uint8_t {
        kSizeFirst,
        kSize,
        kExtension,
        kSizeLf,
        kData,
        kDataCr,
        kDataLf,
        kTrailerFirst,
        kTrailerName,
        kTrailerValue,
        kTrailerLf,
        kLastLf,
    };
    Outcome step(char c);
    Outcome on_size(char c);
    Outcome on_trailer(char c);
    Outcome bad(const char* reason);

    State state_ = State::kSizeFirst;
    unsigned digits_ = 0;
    std::uint64_t size_ = 0;  ///< of the present chunk, then what is left of it
    std::size_t body_left_;
    std::size_t framing_left_;
    const char* reason_ = "";
};

}  // namespace stator::net
