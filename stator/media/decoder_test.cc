// The helper processes: what they do, and what they can't.
#include "stator/media/decoder.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <thread>

#include "stator/base/log.h"
#include "stator/media/picture_fixture.h"

namespace stator::media {
namespace {

using protocol::MediaContent;
using testing::HasSubstr;

constexpr auto kImage = MediaContent::Kind::kImage;
const std::atomic<bool> kNever{false};

DecoderOptions with(const char* helper) {
    set_log(LogLevel::kOff, LogFormat::kText);
    DecoderOptions options;
    options.image_helper = helper;
    options.video_helper = "/nonexistent";
    return options;
}

TEST(Decoder, OneHelperForManyItems) {
    Decoder decoder(with(STATOR_IMAGE_HELPER), Clock::real());
    ASSERT_TRUE(decoder.check());
    for (int i = 0; i < 5; ++i) {
        const Picture picture = gradient(20 + static_cast<std::uint32_t>(i), 9);
        const auto content = decoder.decode(kImage, to_png(picture), Deadline::never(), kNever);
        ASSERT_TRUE(content) << content.error().message;
        EXPECT_EQ(content->width, picture.width);
        EXPECT_EQ(content->height, 9U);
        EXPECT_EQ(content->frames, 1U);
        EXPECT_TRUE(content->frame_ms.empty());
        EXPECT_EQ(content->pixels, picture.rgb);
    }
    EXPECT_EQ(decoder.started(), 1U);
}

TEST(Decoder, AHelperThatRefusedAnItemIsReplaced) {
    Decoder decoder(with(STATOR_IMAGE_HELPER), Clock::real());
    const auto content = decoder.decode(kImage, "GIF89a", Deadline::never(), kNever);
    ASSERT_FALSE(content);
    EXPECT_EQ(content.error().code, ErrorCode::kUnsupported);
    EXPECT_THAT(content.error().message, HasSubstr("JPEG, PNG or WebP"));
    EXPECT_TRUE(decoder.decode(kImage, to_png(gradient(4, 4)), Deadline::never(), kNever));
    EXPECT_EQ(decoder.started(), 2U);
    EXPECT_EQ(decoder.crashes(), 0U);
}

TEST(Decoder, TooManyPixelsAreToldWithTheirNumber) {
    DecoderOptions options = with(STATOR_IMAGE_HELPER);
    options.limits.max_pixels = 100;
    Decoder decoder(options, Clock::real());
    const auto content = decoder.decode(kImage, to_png(gradient(20, 6)), Deadline::never(), kNever);
    ASSERT_FALSE(content);
    EXPECT_EQ(content.error().code, ErrorCode::kTooLarge);
    EXPECT_THAT(content.error().message, HasSubstr("20 x 6 pixels; at most 100"));
}

TEST(Decoder, NoHelper) {
    Decoder decoder(with("/nonexistent"), Clock::real());
    EXPECT_FALSE(decoder.check());
    const auto content = decoder.decode(kImage, "x", Deadline::never(), kNever);
    ASSERT_FALSE(content);
    EXPECT_EQ(content.error().code, ErrorCode::kUnavailable);
    EXPECT_TRUE(content.error().retryable);
    EXPECT_FALSE(decoder.reads_video());
    const auto video = decoder.decode(MediaContent::Kind::kVideo, "x", Deadline::never(), kNever);
    ASSERT_FALSE(video);
    EXPECT_EQ(video.error().code, ErrorCode::kUnsupported);
}

TEST(Decoder, SomethingElseThanAHelper) {
    Decoder decoder(with("/bin/true"), Clock::real());
    const auto ok = decoder.check();
    ASSERT_FALSE(ok);
    EXPECT_THAT(ok.error().message, HasSubstr("does not work here"));
}

TEST(Sandbox, KillsWhoTriesWhatIsNotAllowed) {
    DecoderOptions options = with(STATOR_HOSTILE_HELPER);
    Decoder decoder(options, Clock::real());
    std::uint64_t crashes = 0;
    for (const char* what : {"open", "socket", "exec", "fork", "code", "crash", "exit", "lie"}) {
        const auto content = decoder.decode(kImage, what, Deadline::never(), kNever);
        ASSERT_FALSE(content) << what;
        EXPECT_EQ(content.error().code, ErrorCode::kDataLoss) << what;
        EXPECT_EQ(decoder.crashes(), ++crashes) << what;
        // Nobody else's harm.
        EXPECT_TRUE(decoder.decode(kImage, "nothing", Deadline::never(), kNever)) << what;
    }
    EXPECT_TRUE(decoder.decode(kImage, "environment", Deadline::never(), kNever));
    const auto memory = decoder.decode(kImage, "memory", Deadline::never(), kNever);
    ASSERT_FALSE(memory);
    EXPECT_EQ(memory.error().code, ErrorCode::kTooLarge);
    EXPECT_EQ(decoder.crashes(), crashes);
}

TEST(Sandbox, TimeRunsOut) {
    DecoderOptions options = with(STATOR_HOSTILE_HELPER);
    options.limits.time = std::chrono::milliseconds(100);
    Decoder decoder(options, Clock::real());
    const auto content = decoder.decode(kImage, "spin", Deadline::never(), kNever);
    ASSERT_FALSE(content);
    EXPECT_EQ(content.error().code, ErrorCode::kDeadlineExceeded);
    EXPECT_EQ(decoder.crashes(), 1U);
}

TEST(Sandbox, ACallerThatLeavesEndsIt) {
    Decoder decoder(with(STATOR_HOSTILE_HELPER), Clock::real());
    std::atomic<bool> left{false};
    std::thread client([&] {
        while (decoder.started() == 0) std::this_thread::yield();
        left.store(true);
    });
    const auto content = decoder.decode(kImage, "spin", Deadline::never(), left);
    client.join();
    ASSERT_FALSE(content);
    EXPECT_EQ(content.error().code, ErrorCode::kCancelled);
}

}  // namespace
}  // namespace stator::media
