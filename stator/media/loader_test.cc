#include "stator/media/loader.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <future>
#include <thread>

#include "stator/base/log.h"
#include "stator/media/content.h"
#include "stator/media/picture_fixture.h"
#include "stator/net/scripted_server.h"

namespace stator::media {
namespace {

using testing::HasSubstr;
using testing::SizeIs;
using Loaded = Result<std::vector<LoadedMedia>>;

MediaSource image(std::string url) {
    MediaSource out;
    out.text = std::move(url);
    out.path = "messages[0].content[" + std::to_string(out.text.size()) + "]";
    return out;
}

class LoaderTest : public testing::Test {
  protected:
    void open(MediaLoaderOptions options = {}) {
        set_log(LogLevel::kOff, LogFormat::kText);
        options.decoder.image_helper = STATOR_IMAGE_HELPER;
        options.decoder.video_helper = "/nonexistent";
        options.fetch.allow_http = true;
        options.fetch.allow_private = true;
        options.decode_threads = 2;
        options.fetch_threads = 2;
        auto made = MediaLoader::make(std::move(options), registry);
        ASSERT_TRUE(made) << made.error().message;
        loader = std::move(*made);
    }
    Loaded load(std::vector<MediaSource> sources, Deadline deadline = {}) {
        std::promise<Loaded> promise;
        (void)loader->load(std::move(sources), deadline,
                           [&promise](Loaded result) { promise.set_value(std::move(result)); });
        return promise.get_future().get();
    }
    std::string metric(const std::string& line) {
        const std::string text = registry.render();
        const std::size_t at = text.find("\n" + line + " ");
        if (at == std::string::npos) return "not there";
        const std::size_t begin = at + line.size() + 2;
        return text.substr(begin, text.find('\n', begin) - begin);
    }

    metrics::Registry registry;
    std::shared_ptr<MediaLoader> loader;
};

TEST_F(LoaderTest, ItemsComeInTheirOrder) {
    open();
    const std::string fetched = to_webp(gradient(7, 5));
    net::ScriptedServer server([&](net::ScriptedConnection& c) {
        c.read_request();
        c.answer(fetched);
    });
    MediaSource raw = image(to_base64(to_png(gradient(3, 2))));
    raw.form = MediaSource::Form::kBase64;
    const auto items = load({image(server.url() + "/a"), raw,
                             image(to_data_url("image/jpeg", to_jpeg(gradient(20, 10))))});
    ASSERT_TRUE(items) << items.error().message;
    ASSERT_THAT(*items, SizeIs(3));
    EXPECT_EQ((*items)[0].content->pixels, gradient(7, 5).rgb);
    EXPECT_EQ((*items)[1].content->width, 3U);
    EXPECT_EQ((*items)[2].content->height, 10U);
    for (const auto& item : *items) EXPECT_EQ(item.digest, content_digest(*item.content));
    EXPECT_EQ(metric("stator_media_items_total{kind=\"image\",outcome=\"ok\"}"), "3");
    EXPECT_EQ(metric("stator_media_fetch_seconds_count"), "1");
    EXPECT_EQ(metric("stator_media_decode_seconds_count"), "3");
    EXPECT_EQ(metric("stator_media_helper_crashes_total"), "0");
}

TEST_F(LoaderTest, OneNameForOnePictureAndOneDecoding) {
    open();
    const Picture picture = gradient(30, 20);
    const std::string png = to_data_url("image/png", to_png(picture));
    const auto first = load({image(png)});
    const auto second = load({image(png)});
    const auto other = load({image(to_data_url("image/webp", to_webp(picture)))});
    ASSERT_TRUE(first && second && other);
    EXPECT_EQ(first->at(0).content, second->at(0).content);
    EXPECT_EQ(first->at(0).digest, other->at(0).digest);
    EXPECT_EQ(metric("stator_media_cache_hits_total"), "1");
    EXPECT_EQ(metric("stator_media_decode_seconds_count"), "2");
}

TEST_F(LoaderTest, PixelsAreCountedAsLongAsTheyLive) {
    MediaLoaderOptions options;
    options.cache_bytes = 0;
    options.max_held_bytes = 1000;
    open(options);
    const auto source = image(to_data_url("image/png", to_png(gradient(20, 20))));
    auto first = load({source});
    ASSERT_TRUE(first);
    EXPECT_EQ(metric("stator_media_held_bytes"), "1200");
    const auto refused = load({source});
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code, ErrorCode::kUnavailable);
    EXPECT_TRUE(refused.error().retryable);
    first = Loaded();
    EXPECT_EQ(metric("stator_media_held_bytes"), "0");
    EXPECT_TRUE(load({source}));
}

TEST_F(LoaderTest, ItemsThatCameTogetherAreBoundedToo) {
    MediaLoaderOptions options;
    options.cache_bytes = 0;
    options.max_held_bytes = 1000;
    open(options);
    // All of them come while there is room; two at a time are decoded.
    std::vector<MediaSource> sources;
    for (std::uint32_t i = 0; i < 20; ++i) {
        sources.push_back(image(to_data_url("image/png", to_png(gradient(20 + i, 20)))));
    }
    const auto items = load(std::move(sources));
    ASSERT_FALSE(items);
    EXPECT_EQ(items.error().code, ErrorCode::kUnavailable);
    EXPECT_TRUE(items.error().retryable);
    // Those that had not begun are dropped.
    const Deadline end = Deadline::after(Clock::real().now(), std::chrono::seconds(20));
    while (metric("stator_media_source_bytes") != "0" && !end.reached(Clock::real().now())) {
        std::this_thread::yield();
    }
    loader->stop();
    EXPECT_LE(std::stoi(metric("stator_media_decode_seconds_count")), 4);
    EXPECT_EQ(metric("stator_media_held_bytes"), "0");
    EXPECT_EQ(metric("stator_media_source_bytes"), "0");
}

TEST_F(LoaderTest, WhatIsFetchedIsCounted) {
    open();
    const std::string picture = to_png(gradient(7, 5));
    net::ScriptedServer server([&](net::ScriptedConnection& c) {
        if (c.read_request().starts_with("GET /a ")) return static_cast<void>(c.answer(picture));
        c.send("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n");
    });
    EXPECT_TRUE(load({image(server.url() + "/a")}));
    EXPECT_FALSE(load({image(server.url() + "/b")}));
    EXPECT_FALSE(load({image("ftp://a/b")}));
    const std::string inside = to_png(gradient(4, 4));
    EXPECT_TRUE(load({image(to_data_url("image/png", inside))}));
    EXPECT_EQ(metric("stator_media_fetches_total{outcome=\"ok\"}"), "1");
    EXPECT_EQ(metric("stator_media_fetches_total{outcome=\"unavailable\"}"), "1");
    EXPECT_EQ(metric("stator_media_fetches_total{outcome=\"invalid_argument\"}"), "1");
    EXPECT_EQ(metric("stator_media_fetch_seconds_count"), "3");
    EXPECT_EQ(metric("stator_media_bytes_total{from=\"url\"}"), std::to_string(picture.size()));
    EXPECT_EQ(metric("stator_media_bytes_total{from=\"request\"}"), std::to_string(inside.size()));
    EXPECT_EQ(metric("stator_media_cached_bytes"), std::to_string(7 * 5 * 3 + 4 * 4 * 3));
    EXPECT_EQ(metric("stator_media_source_bytes"), "0");
}

TEST_F(LoaderTest, WithoutTheVideoDecoderNothingIsFetched) {
    open();
    std::atomic<int> asked{0};
    net::ScriptedServer server([&](net::ScriptedConnection& c) {
        c.read_request();
        ++asked;
        c.answer("x");
    });
    MediaSource video = image(server.url());
    video.kind = protocol::MediaContent::Kind::kVideo;
    EXPECT_FALSE(load({video}));
    EXPECT_EQ(asked.load(), 0);
    EXPECT_EQ(metric("stator_media_fetch_seconds_count"), "0");
}

TEST_F(LoaderTest, ErrorsNameTheirSource) {
    open();
    const MediaSource good = image(to_data_url("image/png", to_png(gradient(20, 20))));
    const MediaSource bad = image("data:image/png;base64,AAAA");
    const auto items = load({good, bad});
    ASSERT_FALSE(items);
    EXPECT_EQ(items.error().param, bad.path);
    EXPECT_EQ(items.error().code, ErrorCode::kUnsupported);
    EXPECT_FALSE(items.error().retryable);
    EXPECT_EQ(metric("stator_media_items_total{kind=\"image\",outcome=\"unsupported\"}"), "1");
    MediaSource video = good;
    video.kind = protocol::MediaContent::Kind::kVideo;
    const auto none = load({video});
    ASSERT_FALSE(none);
    EXPECT_EQ(none.error().code, ErrorCode::kUnsupported);
    EXPECT_THAT(none.error().message, HasSubstr("no stator-video-decode"));
    EXPECT_THAT(none.error().message, HasSubstr("--media-video-helper"));
    EXPECT_EQ(metric("stator_media_items_total{kind=\"video\",outcome=\"unsupported\"}"), "1");
}

TEST_F(LoaderTest, TooManyBytes) {
    MediaLoaderOptions options;
    options.max_bytes = 100;
    open(options);
    const auto items = load({image(to_data_url("image/png", std::string(101, 'x')))});
    ASSERT_FALSE(items);
    EXPECT_EQ(items.error().code, ErrorCode::kTooLarge);
}

TEST_F(LoaderTest, AnEmptyAnswer) {
    open();
    net::ScriptedServer server([&](net::ScriptedConnection& c) {
        c.read_request();
        c.answer("");
    });
    const auto items = load({image(server.url())});
    ASSERT_FALSE(items);
    EXPECT_EQ(items.error().code, ErrorCode::kDataLoss);
}

TEST_F(LoaderTest, TheRequestsOwnTime) {
    open();
    net::ScriptedServer server([&](net::ScriptedConnection& c) {
        c.read_request();
        c.await_end();
    });
    const auto items = load({image(server.url())},
                            Deadline::after(Clock::real().now(), std::chrono::milliseconds(50)));
    ASSERT_FALSE(items);
    EXPECT_EQ(items.error().code, ErrorCode::kDeadlineExceeded);
    EXPECT_TRUE(items.error().retryable);
}

TEST_F(LoaderTest, StopEndsWhatWaits) {
    open();
    std::promise<void> asked;
    net::ScriptedServer server([&](net::ScriptedConnection& c) {
        c.read_request();
        asked.set_value();
        c.await_end();
    });
    (void)loader->load({image(server.url())}, {}, [](Loaded) {});
    asked.get_future().wait();
    loader->stop();  // returns, though the server says nothing
}

}  // namespace
}  // namespace stator::media
