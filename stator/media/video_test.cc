// Videos, where FFmpeg's libraries were there to build their decoder, and its program is there to
// make some.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "stator/base/log.h"
#include "stator/media/decoder.h"

#ifndef STATOR_VIDEO_HELPER
#define STATOR_VIDEO_HELPER ""
#endif

namespace stator::media {
namespace {

using protocol::MediaContent;
using testing::SizeIs;

constexpr auto kVideo = MediaContent::Kind::kVideo;
const std::atomic<bool> kNever{false};

/// A clip whose red grows with time; empty without ffmpeg.
std::string clip(const std::string& options, const std::string& ending) {
    const std::string file = (std::filesystem::temp_directory_path() /
                              ("stator-clip-" + std::to_string(::getpid()) + "." + ending))
                                 .string();
    const std::string command =
        "ffmpeg -v error -y -f lavfi -i " + options + " " + file + " </dev/null >/dev/null 2>&1";
    std::stringstream bytes;
    if (std::system(command.c_str()) == 0) bytes << std::ifstream(file).rdbuf();
    std::filesystem::remove(file);
    return bytes.str();
}

class VideoTest : public testing::Test {
  protected:
    void SetUp() override {
        set_log(LogLevel::kOff, LogFormat::kText);
        options.video_helper = STATOR_VIDEO_HELPER;
        options.image_helper = STATOR_IMAGE_HELPER;
        if (options.video_helper.empty()) GTEST_SKIP() << "built without FFmpeg's libraries";
        mp4 = clip("testsrc=size=64x48:rate=10:duration=4 -c:v mpeg4 -pix_fmt yuv420p", "mp4");
        if (mp4.empty()) GTEST_SKIP() << "no ffmpeg to make a clip with";
    }
    Result<MediaContent> decode(const std::string& bytes) {
        Decoder decoder(options, Clock::real());
        return decoder.decode(kVideo, bytes, Deadline::never(), kNever);
    }
    ErrorCode refused(const std::string& bytes) {
        const auto content = decode(bytes);
        return content ? ErrorCode::kUnknown : content.error().code;
    }

    DecoderOptions options;
    std::string mp4;
};

TEST_F(VideoTest, FramesAreTakenEvenly) {
    const auto content = decode(mp4);
    ASSERT_TRUE(content) << content.error().message;
    EXPECT_EQ(content->kind, kVideo);
    EXPECT_EQ(content->width, 64U);
    EXPECT_EQ(content->height, 48U);
    ASSERT_EQ(content->frames, 8U);
    ASSERT_THAT(content->frame_ms, SizeIs(8));
    EXPECT_THAT(content->pixels, SizeIs(8 * 64 * 48 * 3));
    // From the first to the last, which begins at 3.9 s.
    for (std::uint32_t i = 0; i < 8; ++i) {
        EXPECT_NEAR(content->frame_ms[i], i * 3900.0 / 7, 51) << i;
    }
    EXPECT_EQ(content->frame_ms.front(), 0U);
    EXPECT_EQ(content->frame_ms.back(), 3900U);
    const std::size_t frame = 64 * 48 * 3;
    EXPECT_NE(content->pixels.substr(0, frame), content->pixels.substr(frame, frame));
}

TEST_F(VideoTest, OtherContainersAndCodecs) {
    for (const auto& [coded, ending] :
         {std::pair("testsrc=size=64x48:rate=10:duration=1 -c:v libvpx", "webm"),
          std::pair("testsrc=size=64x48:rate=10:duration=1 -c:v libx264", "mkv"),
          std::pair("testsrc=size=64x48:rate=10:duration=1 -c:v mjpeg", "avi")}) {
        const std::string bytes = clip(coded, ending);
        if (bytes.empty()) continue;  // an ffmpeg without that encoder
        const auto content = decode(bytes);
        ASSERT_TRUE(content) << ending << ": " << content.error().message;
        EXPECT_EQ(content->frames, 8U) << ending;
        EXPECT_NEAR(content->frame_ms.back(), 900, 1) << ending;
    }
}

TEST_F(VideoTest, WhatHasNoPicturesOrIsCodedInAnotherWaySaysSo) {
    const std::string sound = clip("sine=duration=1 -c:a aac", "m4a");
    if (!sound.empty()) {
        const auto content = decode(sound);
        ASSERT_FALSE(content);
        EXPECT_EQ(content.error().code, ErrorCode::kUnsupported);
        EXPECT_THAT(content.error().message, testing::HasSubstr("no pictures"));
    }
    const std::string raw = clip("testsrc=size=64x48:rate=10:duration=1 -c:v rawvideo", "avi");
    if (!raw.empty()) {
        const auto content = decode(raw);
        ASSERT_FALSE(content);
        EXPECT_EQ(content.error().code, ErrorCode::kUnsupported);
        EXPECT_THAT(content.error().message, testing::HasSubstr("coded in a way"));
    }
}

TEST_F(VideoTest, AHelperThatDoesNotWorkIsNoError) {
    options.video_helper = "/bin/true";
    Decoder decoder(options, Clock::real());
    ASSERT_TRUE(decoder.check());
    EXPECT_FALSE(decoder.reads_video());
    EXPECT_THAT(decoder.no_video().value().message, testing::HasSubstr("can't be started"));
}

TEST_F(VideoTest, FewFramesAreNotRepeated) {
    const auto content = decode(clip("testsrc=size=64x48:rate=10:duration=0.3 -c:v mpeg4", "mp4"));
    ASSERT_TRUE(content) << content.error().message;
    EXPECT_LE(content->frames, 3U);
    EXPECT_GE(content->frames, 2U);
}

TEST_F(VideoTest, LargeFramesAreScaledDown) {
    const auto content = decode(clip("testsrc=size=2560x1440:rate=2:duration=4 -c:v mpeg4", "mp4"));
    ASSERT_TRUE(content) << content.error().message;
    EXPECT_EQ(content->frames, 8U);
    EXPECT_LT(content->width, 2560U);
    EXPECT_LE(content->pixels.size(), kMaxDecodedBytes);
    EXPECT_NEAR(static_cast<double>(content->width) / content->height, 16.0 / 9, 0.02);
}

TEST_F(VideoTest, WhatIsRefused) {
    EXPECT_EQ(refused(std::string(1000, '\0')), ErrorCode::kUnsupported);
    EXPECT_EQ(refused("#EXTM3U\nfile:///etc/passwd\n"), ErrorCode::kUnsupported);
    EXPECT_EQ(refused("ffconcat version 1.0\nfile /etc/passwd\n"), ErrorCode::kUnsupported);
    EXPECT_EQ(refused(mp4.substr(0, mp4.size() / 2)), ErrorCode::kDataLoss);
    EXPECT_EQ(refused(mp4.substr(0, mp4.size() - 1)), ErrorCode::kDataLoss);
    options.limits.max_duration = std::chrono::milliseconds(3'000);
    EXPECT_EQ(refused(mp4), ErrorCode::kTooLarge);
    options.limits = {};
    options.limits.max_pixels = 1000;
    EXPECT_NE(refused(mp4), ErrorCode::kUnknown);  // MPEG-4 says its size in its frames alone
    const std::string webm = clip("testsrc=size=64x48:rate=10:duration=1 -c:v libvpx", "webm");
    if (!webm.empty()) {
        EXPECT_EQ(refused(webm), ErrorCode::kTooLarge);
    }
    options.limits = {};
    options.limits.max_packets = 3;
    EXPECT_EQ(refused(mp4), ErrorCode::kTooLarge);
}

}  // namespace
}  // namespace stator::media
