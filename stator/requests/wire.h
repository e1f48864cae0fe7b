#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "stator/base/error.h"

namespace stator::requests {

/// The frames of the request plane; docs/request-plane.md is the specification, with each payload.
/// All numbers are little-endian.
///
///   0   4  check: low 32 bits of XXH3-64 over everything after this field
///   4   2  payload bytes, at most kMaxPayloadBytes
///   6   1  type
///   7   1  flags
///   8   4  stream; 0 = the link itself
///   12     payload
constexpr std::size_t kFrameHeaderBytes = 12;
constexpr std::size_t kMaxFrameBytes = 32 * 1024;
constexpr std::size_t kMaxPayloadBytes = kMaxFrameBytes - kFrameHeaderBytes;
constexpr std::uint32_t kProtocolVersion = 1;

/// Never reorder or reuse: the numbers travel. kFlagCritical says what a reader does with a type
/// that it does not know.
enum class FrameType : std::uint8_t {
    kHello = 1,     ///< both: version, features, nonce, lane
    kAuth = 2,      ///< client: proof of the shared secret
    kInfo = 3,      ///< worker: WorkerInfo, at first and whenever it changes
    kOpen = 4,      ///< client: a request; its prompt follows in kData where it is long
    kData = 5,      ///< either: a piece of a long body
    kTokens = 6,    ///< worker: what one engine step did, for many streams; ends streams too
    kError = 7,     ///< stream 0: the link ends; else the stream ends
    kCancel = 8,    ///< client: end this stream
    kCredit = 9,    ///< client: so many more tokens may be sent for this stream
    kLoad = 10,     ///< worker: load report with the highest booking seen
    kGoAway = 11,   ///< worker: open no more streams; those there go on
    kPing = 12,     ///< either
    kPong = 13,     ///< either
    kFetch = 14,    ///< client, on a bulk lane: an artifact, a snapshot, a range of events
    kHandoff = 15,  ///< worker: where a leg's result lies; before the share that ends the stream
};
/// "hello", …; "unknown" for numbers that are none.
std::string_view to_string(FrameType type);

constexpr std::uint8_t kFlagCritical =
    1;  ///< a reader that does not know the type refuses the stream (the
        ///< link, if the stream is 0); without it: skips the frame
constexpr std::uint8_t kFlagMore = 2;  ///< the body goes on in kData frames of the same stream

struct Frame {
    FrameType type = FrameType::kPing;  ///< may hold a number that is no enumerator
    std::uint8_t flags = 0;
    std::uint32_t stream = 0;
    std::string_view payload;
};

/// Every connection begins with these bytes from the client, so that a stray protocol is told
/// apart.
constexpr std::string_view kPreface = "STATOR\r\n";

/// Appends one frame. STATOR_CHECK: the payload fits.
void append_frame(std::string& out, FrameType type, std::uint8_t flags, std::uint32_t stream,
                  std::string_view payload);

/// Appends a frame whose payload is written straight into `out`:
///   const std::size_t at = begin_frame(out); …append payload…; end_frame(out, at, type, flags,
///   stream);
[[nodiscard]] std::size_t begin_frame(std::string& out);
void end_frame(std::string& out, std::size_t at, FrameType type, std::uint8_t flags,
               std::uint32_t stream);

/// Cuts a stream of bytes into frames, whatever pieces it comes in. Holds at most one frame's
/// bytes.
class FrameReader {
  public:
    /// `expect_preface`: the first bytes must be kPreface (a server's side).
    explicit FrameReader(bool expect_preface) : preface_(expect_preface) {}

    /// Gives the frames that `bytes` completes to `take(const Frame&) -> Result<void>`, whose error
    /// ends it. The views are gone afterwards. kDataLoss: checksum, oversize length, no preface;
    /// the connection can't go on.
    template <typename Take>
    [[nodiscard]] Result<void> feed(std::string_view bytes, Take&& take) {
        while (true) {
            Frame frame;
            auto got = next(bytes, frame);
            if (!got) return tl::unexpected<Error>(std::move(got.error()));
            if (!*got) return {};
            if (auto ok = take(static_cast<const Frame&>(frame)); !ok) return ok;
        }
    }

  private:
    /// Takes the next frame off the front of `bytes` (or completes the held one). False: needs
    /// more.
    [[nodiscard]] Result<bool> next(std::string_view& bytes, Frame& frame);

    std::string held_;         ///< an incomplete frame (or preface)
    bool held_given_ = false;  ///< held_ was handed out and is to be cleared
    bool preface_;
};

}  // namespace stator::requests
