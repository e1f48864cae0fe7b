#include "stator/media/decoder.h"

#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <utility>

#include "stator/base/log.h"
#include "stator/media/helper_process.h"

namespace stator::media {
namespace {

using Kind = protocol::MediaContent::Kind;
using helper::Outcome;

constexpr std::chrono::seconds kStartTime{10};

/// Where build and packages put it.
std::string beside_program(std::string_view name) {
    std::error_code ec;
    const auto self = std::filesystem::read_symlink("/proc/self/exe", ec);
    return ec ? std::string(name) : (self.parent_path() / name).string();
}

bool can_run(const std::string& program) { return ::access(program.c_str(), X_OK) == 0; }

tl::unexpected<Error> refusal(Kind kind, const helper::Reply& reply, const DecodeLimits& limits) {
    const bool video = kind == Kind::kVideo;
    const std::string_view what = video ? "video" : "image";
    switch (reply.outcome) {
        case Outcome::kUnknownType:
            return error(ErrorCode::kUnsupported,
                         "the {} is of a type that is not read here (by its bytes, whatever its "
                         "name); send {}",
                         what, video ? "MP4, WebM, Matroska or AVI" : "JPEG, PNG or WebP");
        case Outcome::kUnknownCodec:
            return error(ErrorCode::kUnsupported,
                         "the {} is coded in a way that is not read here; H.264, HEVC, VP8, VP9, "
                         "AV1, MPEG-1, MPEG-2, MPEG-4 and Motion JPEG are",
                         what);
        case Outcome::kNoPicture:
            return error(ErrorCode::kUnsupported, "the {} has sound, but no pictures", what);
        case Outcome::kAnimated:
            return error(ErrorCode::kUnsupported, "the {} is animated; send one picture", what);
        case Outcome::kTooManyPixels:
            return error(ErrorCode::kTooLarge,
                         "the {} is {} x {} pixels; at most {} and {} on a side are read", what,
                         reply.width, reply.height, limits.max_pixels, limits.max_side);
        case Outcome::kTooComplex:
            if (video) {
                return error(ErrorCode::kTooLarge, "the {} has more than {} packets", what,
                             limits.max_packets);
            }
            return error(ErrorCode::kTooLarge, "the {} has more scans or chunks than are read",
                         what);
        case Outcome::kTooLong:
            return error(ErrorCode::kTooLarge,
                         "the {} is longer than {:g} s, or does not say how long it is", what,
                         to_seconds(limits.max_duration));
        case Outcome::kNoMemory:
            return error(ErrorCode::kTooLarge, "the {} takes more memory than it may", what);
        case Outcome::kOk:
        case Outcome::kBroken:
        case Outcome::kRefused:
            break;
    }
    return error(ErrorCode::kDataLoss, "the {} is broken or cut short", what);
}

}  // namespace

Decoder::Decoder(DecoderOptions options, const Clock& clock)
    : options_(std::move(options)), clock_(clock) {
    if (options_.image_helper.empty()) {
        options_.image_helper = beside_program("stator-media-decode");
    }
    if (options_.video_helper.empty()) {
        options_.video_helper = beside_program("stator-video-decode");
    }
    if (!can_run(options_.video_helper)) {
        no_video_ =
            "there is no stator-video-decode, which is built where FFmpeg's development packages "
            "are installed and stands beside the server's program, or where --media-video-helper "
            "says";
    }
}

Decoder::~Decoder() = default;

Result<void> Decoder::check() {
    auto helper = take(Kind::kImage);
    if (!helper) return tl::unexpected<Error>(std::move(helper.error()));
    give_back(Kind::kImage, std::move(*helper));
    if (!reads_video()) return {};
    if (auto video = take(Kind::kVideo)) {
        give_back(Kind::kVideo, std::move(*video));
    } else {
        log_warn("Videos are refused.", {{"reason", video.error().message}});
        no_video_ = "its stator-video-decode can't be started";
    }
    return {};
}

tl::unexpected<Error> Decoder::no_video() const {
    return error(ErrorCode::kUnsupported, "this server reads no videos: {}", no_video_);
}

Result<std::unique_ptr<HelperProcess>> Decoder::take(Kind kind) {
    {
        const std::scoped_lock lock(mutex_);
        Idle& idle = kind == Kind::kVideo ? videos_ : images_;
        if (!idle.empty()) {
            auto out = std::move(idle.back());
            idle.pop_back();
            return out;
        }
    }
    started_.fetch_add(1, std::memory_order_relaxed);
    return HelperProcess::start(
        kind == Kind::kVideo ? options_.video_helper : options_.image_helper, clock_,
        Deadline::after(clock_.now(), kStartTime));
}

void Decoder::give_back(Kind kind, std::unique_ptr<HelperProcess> helper) {
    if (helper->items() >= options_.items_per_helper) return;
    const std::scoped_lock lock(mutex_);
    Idle& idle = kind == Kind::kVideo ? videos_ : images_;
    if (idle.size() < options_.max_idle) idle.push_back(std::move(helper));
}

Result<protocol::MediaContent> Decoder::decode(Kind kind, std::string_view bytes, Deadline deadline,
                                               const std::atomic<bool>& cancelled) {
    if (kind == Kind::kVideo && !reads_video()) return no_video();
    const DecodeLimits& limits = options_.limits;
    helper::Request request;
    request.kind = static_cast<std::uint32_t>(kind);
    request.bytes = bytes.size();
    request.limits = {.max_bytes = kMaxDecodedBytes,
                      .max_pixels = limits.max_pixels,
                      .max_side = limits.max_side,
                      .max_frames = limits.max_frames,
                      .max_duration_ms = static_cast<std::uint32_t>(limits.max_duration.count()),
                      .max_packets = limits.max_packets};
    if (bytes.size() > helper::kMaxInputBytes) {
        return error(ErrorCode::kTooLarge, "{} bytes are too many to decode", bytes.size());
    }
    auto process = take(kind);
    if (!process) {
        log_error("A decoding process can't be started.", {{"reason", process.error().message}});
        auto e = error(ErrorCode::kUnavailable, "{} can't be decoded at the moment",
                       kind == Kind::kVideo ? "videos" : "images");
        e.value().retryable = true;
        return e;
    }
    auto answer = (*process)->decode(
        request, bytes, std::min(deadline, Deadline::after(clock_.now(), limits.time)), cancelled);
    if (!answer) {
        if (answer.error().code == ErrorCode::kCancelled) {
            return tl::unexpected<Error>(std::move(answer.error()));
        }
        crashes_.fetch_add(1, std::memory_order_relaxed);
        log_warn("A decoding process died of an item or had to be ended.",
                 {{"bytes", bytes.size()}, {"reason", answer.error().message}});
        if (answer.error().code == ErrorCode::kDeadlineExceeded) {
            return error(ErrorCode::kDeadlineExceeded, "the {} takes longer than {:g} s to decode",
                         kind == Kind::kVideo ? "video" : "image", to_seconds(limits.time));
        }
        return error(ErrorCode::kDataLoss, "the {} can't be decoded",
                     kind == Kind::kVideo ? "video" : "image");
    }
    if (answer->reply.outcome != Outcome::kOk) return refusal(kind, answer->reply, limits);
    // What refused an item may have been taken over by it.
    give_back(kind, std::move(*process));
    return std::move(answer->content);
}

}  // namespace stator::media
