#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "stator/base/clock.h"
#include "stator/base/error.h"
#include "stator/protocol/handoff.h"

namespace stator::media {

class HelperProcess;

/// Bounds of what is decoded. The pixels of an item stay below 64 MiB whatever they say, because
/// that is what one message to a worker may hold.
struct DecodeLimits {
    std::uint64_t max_pixels = 20ULL * 1024 * 1024;  ///< of a picture or a frame, as the file says
    std::uint32_t max_side = 32'768;
    std::uint32_t max_frames = 8;  ///< that a video becomes
    std::chrono::milliseconds max_duration{600'000};
    std::uint32_t max_packets = 200'000;
    std::chrono::milliseconds time{10'000};  ///< wall time of one item
};

inline constexpr std::uint64_t kMaxDecodedBytes = 60ULL * 1024 * 1024;

struct DecoderOptions {
    std::string image_helper;  ///< path of stator-media-decode; empty: beside this program
    /// Path of stator-video-decode; empty: beside this program, where there is one.
    std::string video_helper;
    /// A helper is replaced after so many items, and after each one that it refused.
    std::uint32_t items_per_helper = 256;
    std::uint32_t max_idle = 4;  ///< helpers kept of each kind
    DecodeLimits limits;
};

/// Decodes in helper processes that can do nothing else (decode/sandbox.h). Each call uses one; as
/// many run as there are callers. Thread-safe; blocks the caller.
class Decoder {
  public:
    Decoder(DecoderOptions options, const Clock& clock);
    ~Decoder();
    Decoder(const Decoder&) = delete;
    Decoder& operator=(const Decoder&) = delete;

    /// Starts a helper of each kind, to see whether that works. kUnavailable: images can't be
    /// decoded, and why. Without a helper that works videos are not read; that is no error. Before
    /// the first decode().
    [[nodiscard]] Result<void> check();
    [[nodiscard]] bool reads_video() const { return no_video_.empty(); }
    /// What videos are refused with where they are not read.
    [[nodiscard]] tl::unexpected<Error> no_video() const;
    [[nodiscard]] const DecodeLimits& limits() const { return options_.limits; }

    /// kUnsupported: not a type that is read here; kDataLoss: broken, cut short, or the helper died
    /// of it; kTooLarge: over a limit; kDeadlineExceeded: `limits.time` or `deadline`; kUnavailable
    /// (retryable): no helper; kCancelled.
    [[nodiscard]] Result<protocol::MediaContent> decode(protocol::MediaContent::Kind kind,
                                                        std::string_view bytes, Deadline deadline,
                                                        const std::atomic<bool>& cancelled);

    /// Helpers that died in the middle of an item, or had to be killed.
    [[nodiscard]] std::uint64_t crashes() const { return crashes_.load(std::memory_order_relaxed); }
    [[nodiscard]] std::uint64_t started() const { return started_.load(std::memory_order_relaxed); }

  private:
    using Kind = protocol::MediaContent::Kind;
    using Idle = std::vector<std::unique_ptr<HelperProcess>>;
    [[nodiscard]] Result<std::unique_ptr<HelperProcess>> take(Kind kind);
    void give_back(Kind kind, std::unique_ptr<HelperProcess> helper);

    DecoderOptions options_;
    const Clock& clock_;
    std::string no_video_;  ///< why videos are not read; empty: they are
    std::mutex mutex_;
    Idle images_;
    Idle videos_;
    std::atomic<std::uint64_t> crashes_{0};
    std::atomic<std::uint64_t> started_{0};
};

}  // namespace stator::media
