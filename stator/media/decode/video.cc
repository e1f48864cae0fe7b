#include "stator/media/decode/video.h"

extern "C" {
#include <libavcodec/avcodec.h>
#include <libavformat/avformat.h>
#include <libavutil/display.h>
#include <libswscale/swscale.h>
}

#include <algorithm>
#include <cmath>
#include <cstring>

namespace stator::media::helper {
namespace {

constexpr char kFormats[] = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi";
constexpr char kCodecs[] = "h264,hevc,vp8,vp9,libdav1d,mpeg4,mjpeg,mpeg1video,mpeg2video";
constexpr int kBuffer = 64 * 1024;
constexpr std::int64_t kProbeBytes = 4LL * 1024 * 1024;

/// The bytes as FFmpeg reads files.
struct Reader {
    Bytes bytes;
    std::int64_t at = 0;
};

int read_some(void* opaque, std::uint8_t* to, int count) {
    auto* reader = static_cast<Reader*>(opaque);
    const std::int64_t left = static_cast<std::int64_t>(reader->bytes.size()) - reader->at;
    if (left <= 0) return AVERROR_EOF;
    const auto n = static_cast<int>(std::min<std::int64_t>(left, count));
    std::memcpy(to, reader->bytes.data() + reader->at, static_cast<std::size_t>(n));
    reader->at += n;
    return n;
}

std::int64_t seek(void* opaque, std::int64_t offset, int whence) {
    auto* reader = static_cast<Reader*>(opaque);
    const auto size = static_cast<std::int64_t>(reader->bytes.size());
    if (whence == AVSEEK_SIZE) return size;
    whence &= ~AVSEEK_FORCE;
    const std::int64_t base = whence == SEEK_CUR ? reader->at : whence == SEEK_END ? size : 0;
    if (offset < -size || offset > size || base + offset < 0 || base + offset > size) return -1;
    reader->at = base + offset;
    return reader->at;
}

/// Everything that FFmpeg gives, and gives back.
class Video {
  public:
    Video(Bytes bytes, const Limits& limits) : reader_{.bytes = bytes}, limits_(limits) {}
    ~Video() {
        sws_freeContext(scaler_);
        av_frame_free(&frame_);
        av_packet_free(&packet_);
        avcodec_free_context(&codec_);
        avformat_close_input(&format_);
        if (io_ != nullptr) av_freep(&io_->buffer);
        avio_context_free(&io_);
    }
    Video(const Video&) = delete;
    Video& operator=(const Video&) = delete;

    Decoded sample();

  private:
    Outcome open();
    Outcome open_codec(const AVCodec* codec);
    /// The first frame at or after `at` (in the stream's units) is in frame_.
    Outcome frame_at(std::int64_t at);
    Outcome next_frame();
    [[nodiscard]] Decoded check(int width, int height) const {
        return check_size(
            static_cast<std::uint64_t>(std::max(width, 0)),
            static_cast<std::uint64_t>(std::max(height, 0)),
            {.max_bytes = ~0ULL, .max_pixels = limits_.max_pixels, .max_side = limits_.max_side});
    }
    Outcome take_frame(Decoded& out, std::uint32_t index);
    /// Sets the size that all frames get, and room for them, by one of them or by what the file
    /// says.
    [[nodiscard]] Outcome plan(Decoded& out, int width, int height) const;
    [[nodiscard]] unsigned orientation() const;
    /// From the first frame to the last, evenly; half a frame early, as times are rounded.
    [[nodiscard]] double second_of(std::uint32_t index, std::uint32_t most) const {
        const double rate = av_q2d(stream_->avg_frame_rate);
        if (!(rate > 0) || most < 2) return seconds_ * index / most;
        return std::max((seconds_ - 1 / rate) * index / (most - 1) - 0.5 / rate, 0.0);
    }
    /// The first of the stream's units at or after that time: a unit may be a whole frame.
    [[nodiscard]] std::int64_t units(double seconds) const {
        constexpr double kRounding = 1e-6;
        return static_cast<std::int64_t>(
            std::ceil(seconds / av_q2d(stream_->time_base) - kRounding));
    }

    Reader reader_;
    const Limits& limits_;
    AVIOContext* io_ = nullptr;
    AVFormatContext* format_ = nullptr;
    AVStream* stream_ = nullptr;
    AVCodecContext* codec_ = nullptr;
    AVPacket* packet_ = nullptr;
    AVFrame* frame_ = nullptr;
    SwsContext* scaler_ = nullptr;
    double seconds_ = 0;
    std::int64_t begin_ = 0;  // in the stream's units
    std::uint32_t packets_ = 0;
    bool drained_ = false;
};

Outcome Video::open() {
    auto* buffer = static_cast<unsigned char*>(av_malloc(kBuffer));
    if (buffer == nullptr) return Outcome::kNoMemory;
    io_ = avio_alloc_context(buffer, kBuffer, 0, &reader_, read_some, nullptr, seek);
    format_ = avformat_alloc_context();
    packet_ = av_packet_alloc();
    frame_ = av_frame_alloc();
    if (io_ == nullptr || format_ == nullptr || packet_ == nullptr || frame_ == nullptr) {
        return Outcome::kNoMemory;
    }
    format_->pb = io_;
    format_->format_whitelist = av_strdup(kFormats);
    format_->codec_whitelist = av_strdup(kCodecs);
    format_->protocol_whitelist = av_strdup("none");
    format_->probesize = kProbeBytes;
    format_->max_streams = 16;
    const int opened = avformat_open_input(&format_, nullptr, nullptr, nullptr);
    if (opened == AVERROR_INVALIDDATA || opened == AVERROR(EINVAL)) return Outcome::kUnknownType;
    if (opened < 0) return Outcome::kBroken;
    const AVCodec* codec = nullptr;
    const int index = av_find_best_stream(format_, AVMEDIA_TYPE_VIDEO, -1, -1, &codec, 0);
    if (index == AVERROR_STREAM_NOT_FOUND) return Outcome::kNoPicture;
    if (index < 0 || codec == nullptr) return Outcome::kUnknownCodec;
    stream_ = format_->streams[index];
    // The cover of a piece of music.
    if ((stream_->disposition & AV_DISPOSITION_ATTACHED_PIC) != 0) return Outcome::kNoPicture;
    for (unsigned i = 0; i < format_->nb_streams; ++i) {
        if (static_cast<int>(i) != index) format_->streams[i]->discard = AVDISCARD_ALL;
    }
    return open_codec(codec);
}

Outcome Video::open_codec(const AVCodec* codec) {
    const AVCodecParameters& p = *stream_->codecpar;
    if (p.width > 0 && p.height > 0 && check(p.width, p.height).outcome != Outcome::kOk) {
        return Outcome::kTooManyPixels;
    }
    codec_ = avcodec_alloc_context3(codec);
    if (codec_ == nullptr || avcodec_parameters_to_context(codec_, &p) < 0) {
        return Outcome::kNoMemory;
    }
    codec_->thread_count = 1;
    codec_->max_pixels = static_cast<std::int64_t>(limits_.max_pixels);
    codec_->codec_whitelist = av_strdup(kCodecs);
    codec_->pkt_timebase = stream_->time_base;
    if (avcodec_open2(codec_, codec, nullptr) < 0) return Outcome::kUnknownCodec;
    const double own = static_cast<double>(stream_->duration) * av_q2d(stream_->time_base);
    seconds_ = format_->duration > 0 ? static_cast<double>(format_->duration) / AV_TIME_BASE : own;
    if (!(seconds_ > 0) || seconds_ * 1000 > limits_.max_duration_ms) return Outcome::kTooLong;
    begin_ = stream_->start_time == AV_NOPTS_VALUE ? 0 : stream_->start_time;
    return Outcome::kOk;
}

Outcome Video::next_frame() {
    for (;;) {
        const int got = avcodec_receive_frame(codec_, frame_);
        if (got == 0) return Outcome::kOk;
        if (got != AVERROR(EAGAIN) || drained_) return Outcome::kBroken;  // or the end
        const int read = av_read_frame(format_, packet_);
        if (read < 0) {
            drained_ = true;
            avcodec_send_packet(codec_, nullptr);
            continue;
        }
        const bool ours = packet_->stream_index == stream_->index;
        // A packet that makes no sense is passed over, as players do.
        if (ours) static_cast<void>(avcodec_send_packet(codec_, packet_));
        av_packet_unref(packet_);
        if (++packets_ > limits_.max_packets) return Outcome::kTooComplex;
    }
}

Outcome Video::frame_at(std::int64_t at) {
    for (;;) {
        if (const Outcome o = next_frame(); o != Outcome::kOk) return o;
        const std::int64_t pts = frame_->best_effort_timestamp;
        if (pts == AV_NOPTS_VALUE || pts >= at) return Outcome::kOk;
    }
}

unsigned Video::orientation() const {
    std::size_t size = 0;
    const auto* matrix = av_stream_get_side_data(stream_, AV_PKT_DATA_DISPLAYMATRIX, &size);
    if (matrix == nullptr || size < 9 * sizeof(std::int32_t)) return 1;
    const double turned = av_display_rotation_get(reinterpret_cast<const std::int32_t*>(matrix));
    if (std::isnan(turned)) return 1;
    constexpr unsigned kByQuarter[] = {1, 8, 3, 6};  // EXIF's, counterclockwise
    const long quarter = std::lround(turned / 90) % 4;
    return kByQuarter[quarter < 0 ? quarter + 4 : quarter];
}

Outcome Video::plan(Decoded& out, int width, int height) const {
    const std::uint32_t most = std::max(1U, limits_.max_frames);
    out = check(width, height);
    if (out.outcome != Outcome::kOk) return out.outcome;
    while (out.pixel_bytes() * most > limits_.max_bytes && out.width > 1 && out.height > 1) {
        out.width = std::max(out.width * 7 / 8, 1U);
        out.height = std::max(out.height * 7 / 8, 1U);
    }
    if (out.pixel_bytes() * most > limits_.max_bytes) return Outcome::kTooManyPixels;
    constexpr std::size_t kBehind = 64;
    out.pixels = allocate(out.pixel_bytes() * most + kBehind);
    return out.pixels ? Outcome::kOk : Outcome::kNoMemory;
}

/// Into the `index`-th place of `out`, whose size is set by the first.
Outcome Video::take_frame(Decoded& out, std::uint32_t index) {
    if (!out.pixels) {
        if (const Outcome o = plan(out, frame_->width, frame_->height); o != Outcome::kOk) return o;
    }
    if (check(frame_->width, frame_->height).outcome != Outcome::kOk) return Outcome::kBroken;
    scaler_ = sws_getCachedContext(scaler_, frame_->width, frame_->height,
                                   static_cast<AVPixelFormat>(frame_->format),
                                   static_cast<int>(out.width), static_cast<int>(out.height),
                                   AV_PIX_FMT_RGB24, SWS_AREA, nullptr, nullptr, nullptr);
    if (scaler_ == nullptr) return Outcome::kBroken;
    std::uint8_t* to[4] = {out.pixels.get() + std::size_t{index} * out.width * out.height * 3};
    const int stride[4] = {static_cast<int>(out.width * 3)};
    // The scaler may write a few bytes behind a row: `pixels` has room behind the last.
    if (sws_scale(scaler_, frame_->data, frame_->linesize, 0, frame_->height, to, stride) <= 0) {
        return Outcome::kBroken;
    }
    const std::int64_t pts = frame_->best_effort_timestamp;
    const double seconds =
        pts == AV_NOPTS_VALUE ? 0 : static_cast<double>(pts - begin_) * av_q2d(stream_->time_base);
    out.frame_ms.push_back(static_cast<std::uint32_t>(std::clamp(seconds * 1000, 0.0, 4e9)));
    return Outcome::kOk;
}

/// All of `out`'s frames, turned.
bool turn(Decoded& out, unsigned orientation) {
    if (orientation == 1) return true;
    const std::size_t bytes = std::size_t{out.width} * out.height * 3;
    std::uint32_t width = out.width;
    std::uint32_t height = out.height;
    for (std::uint32_t i = 0; i < out.frames; ++i) {
        Decoded frame;
        frame.width = out.width;
        frame.height = out.height;
        frame.pixels = allocate(bytes);
        if (!frame.pixels) return false;
        std::memcpy(frame.pixels.get(), out.pixels.get() + i * bytes, bytes);
        if (!apply_orientation(frame, orientation)) return false;
        std::memcpy(out.pixels.get() + i * bytes, frame.pixels.get(), bytes);
        width = frame.width;
        height = frame.height;
    }
    out.width = width;
    out.height = height;
    return true;
}

Decoded Video::sample() {
    if (const Outcome o = open(); o != Outcome::kOk) {
        Decoded out = failed(o);
        if (o == Outcome::kTooManyPixels) {
            out.width = static_cast<std::uint32_t>(stream_->codecpar->width);
            out.height = static_cast<std::uint32_t>(stream_->codecpar->height);
        }
        return out;
    }
    const std::uint32_t most = std::max(1U, limits_.max_frames);
    Decoded out;
    // Where the file says it, before anything is decoded.
    if (codec_->width > 0 && codec_->height > 0) {
        if (const Outcome o = plan(out, codec_->width, codec_->height); o != Outcome::kOk) {
            out.outcome = o;
            return out;
        }
    }
    std::int64_t last = AV_NOPTS_VALUE;
    std::uint32_t taken = 0;
    for (std::uint32_t i = 0; i < most; ++i) {
        const std::int64_t at = begin_ + units(second_of(i, most));
        // Near frames are reached by reading on; far ones from their key frame.
        if (last == AV_NOPTS_VALUE || at - last > units(1.0)) {
            if (av_seek_frame(format_, stream_->index, at, AVSEEK_FLAG_BACKWARD) >= 0) {
                avcodec_flush_buffers(codec_);
                drained_ = false;
            }
        }
        if (last != AV_NOPTS_VALUE && last >= at) continue;  // fewer frames than places
        const Outcome o = frame_at(at);
        if (o == Outcome::kTooComplex) return failed(o);
        if (o != Outcome::kOk) break;  // the end, or what comes is broken
        last = frame_->best_effort_timestamp;
        if (const Outcome t = take_frame(out, taken); t != Outcome::kOk) {
            out.outcome = t;
            return out;
        }
        ++taken;
    }
    if (taken == 0) return failed(Outcome::kBroken);
    out.frames = taken;
    return turn(out, orientation()) ? std::move(out) : failed(Outcome::kNoMemory);
}

}  // namespace

Decoded decode_video(Bytes bytes, const Limits& limits) {
    av_log_set_callback([](void*, int, const char*, va_list) {});
    if (is_cut_short(bytes)) return failed(Outcome::kBroken);
    return Video(bytes, limits).sample();
}

}  // namespace stator::media::helper
