#pragma once

#include <cstdint>
#include <type_traits>

/// What a decoding helper and its parent say to each other over one stream socket. Both are of one
/// build on one machine, so structs travel as they lie in memory; each side still checks all that
/// the other one says.
///
///     helper → parent   Hello, once, after it has locked itself in
///     parent → helper   Request, then `bytes` bytes
///     helper → parent   Reply, then `frames` times of u32 (video), then the pixels
///
/// The parent's leaving ends the helper.
namespace stator::media::helper {

inline constexpr std::uint32_t kMagic = 0x31444d53;  // "SMD1"
/// Most that a helper takes in at once, whatever the options say.
inline constexpr std::uint64_t kMaxInputBytes = 256ULL * 1024 * 1024;

inline constexpr std::uint32_t kDecodesImages = 1;
inline constexpr std::uint32_t kDecodesVideo = 2;

struct Hello {
    std::uint32_t magic = kMagic;
    std::uint32_t decodes = 0;
};

struct Limits {
    std::uint64_t max_bytes = 0;   ///< of all pixels: frames * width * height * 3
    std::uint64_t max_pixels = 0;  ///< width * height, as the file says
    std::uint32_t max_side = 0;
    std::uint32_t max_frames = 0;       ///< of a video: so many are taken, evenly
    std::uint32_t max_duration_ms = 0;  ///< of a video
    std::uint32_t max_packets = 0;      ///< of a video: compressed pieces that are looked at
};

struct Request {
    std::uint32_t magic = kMagic;
    std::uint32_t kind = 0;  ///< protocol::MediaContent::Kind
    std::uint64_t bytes = 0;
    Limits limits;
};

enum class Outcome : std::uint32_t {
    kOk = 0,
    kUnknownType,    ///< by its first bytes
    kUnknownCodec,   ///< a video that is coded in a way that is not read
    kNoPicture,      ///< a video file with sound alone
    kBroken,         ///< not what its type says, or cut short
    kTooManyPixels,  ///< `width` and `height` say how many
    kTooComplex,     ///< more scans, chunks or packets than an honest file has
    kAnimated,
    kTooLong,  ///< a video over max_duration_ms
    kNoMemory,
    kRefused,  ///< a request that makes no sense
};

struct Reply {
    std::uint32_t magic = kMagic;
    Outcome outcome = Outcome::kRefused;
    std::uint32_t width = 0;
    std::uint32_t height = 0;
    std::uint32_t frames = 0;
    std::uint32_t reserved = 0;
    std::uint64_t pixel_bytes = 0;
};

static_assert(std::is_trivially_copyable_v<Request> && std::is_trivially_copyable_v<Reply>);

}  // namespace stator::media::helper
