#include "stator/config/option_table.h"

namespace stator::config::table {
namespace {

void add_fetching(std::vector<Option>& t) {
    using S = Settings;
    using M = MediaSettings;
    t.push_back(option<&S::media, &M::allow_http>(
        "media.allow_http", "--media-allow-http",
        "Fetch http:// URLs too, which anybody on the way can read and change."));
    t.push_back(option<&S::media, &M::allow_private>(
        "media.allow_private", "--media-allow-private",
        "Fetch from addresses that are not public, and from any port: whoever may send a message "
        "can then make this server read what only it can reach. Only with --media-host."));
    t.push_back(option<&S::media, &M::hosts>(
                    "media.hosts", "--media-host",
                    "The only hosts that URLs may name: images.example.org, or *.example.org for "
                    "all below it. If empty: every public one.")
                    .in("host"));
    t.push_back(option<&S::media, &M::redirects>(
                    "media.redirects", "--media-redirects",
                    "How many redirects are followed; each is checked like a URL.")
                    .range(0, 10)
                    .in("redirects"));
    t.push_back(
        option<&S::media, &M::fetch_timeout>("media.fetch_timeout", "--media-fetch-timeout",
                                             "For one item, from its name to its last byte.")
            .range(1, kDay_ms));
}

void add_bounds(std::vector<Option>& t) {
    using S = Settings;
    using M = MediaSettings;
    t.push_back(
        option<&S::media, &M::max_items>("media.max_items", "--media-max-items",
                                         "Images and videos of one request. 0: none are taken.")
            .range(0, 64)
            .in("items"));
    t.push_back(option<&S::media, &M::max_size>(
                    "media.max_size", "--media-max-size",
                    "Largest item as it is sent or fetched, compressed. Those within a request "
                    "count against --max-body-size, too, a third larger.")
                    .range(kKiB, 256 * kKiB * kKiB));
    t.push_back(option<&S::media, &M::max_pixels>(
                    "media.max_pixels", "--media-max-pixels",
                    "Largest picture, or frame of a video, in pixels (width times height). At most "
                    "20 Mi, since three bytes of each must fit a message to a worker.")
                    .range(1, 20 * kKiB * kKiB)
                    .in("pixels"));
    t.push_back(
        option<&S::media, &M::video_frames>("media.video_frames", "--media-video-frames",
                                            "Frames that a video becomes, evenly over its length.")
            .range(1, 64)
            .in("frames"));
    t.push_back(option<&S::media, &M::video_length>("media.video_length", "--media-video-length",
                                                    "Longest video.")
                    .range(1, kDay_ms));
    t.push_back(option<&S::media, &M::decode_timeout>(
                    "media.decode_timeout", "--media-decode-timeout",
                    "For decoding one item; then the process that does it is killed.")
                    .range(1, kDay_ms));
    t.push_back(
        option<&S::media, &M::cache_size>("media.cache_size", "--media-cache-size",
                                          "Memory for decoded items that may come again. 0: none.")
            .range(0, 1e12));
}

void add_helpers(std::vector<Option>& t) {
    using S = Settings;
    using M = MediaSettings;
    t.push_back(option<&S::media, &M::helper>(
                    "media.helper", "--media-helper",
                    "The program that decodes images. If empty: stator-media-decode beside this "
                    "one; without it there are no images.")
                    .in("file"));
    t.push_back(option<&S::media, &M::video_helper>(
                    "media.video_helper", "--media-video-helper",
                    "The program that decodes videos. If empty: stator-video-decode beside this "
                    "one; without it there are no videos.")
                    .in("file"));
}

}  // namespace

void add_media_options(std::vector<Option>& t) {
    add_fetching(t);
    add_bounds(t);
    add_helpers(t);
}

}  // namespace stator::config::table
