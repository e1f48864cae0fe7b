// Any text as a media item's URL, data URL or redirect. What is accepted must have one meaning:
// written down again from its parts it must be read as the same, it must agree with net's own
// parser, and its host can't be a number that others would read as another address.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "stator/base/check.h"
#include "stator/media/data_url.h"
#include "stator/media/media_url.h"
#include "stator/net/http_url.h"

namespace {

using stator::media::MediaUrl;

std::string written(const MediaUrl& url) {
    return (url.tls ? "https://" : "http://") + url.authority + url.target;
}

void check(const MediaUrl& url) {
    STATOR_CHECK(url.port != 0 && !url.host.empty(), "a host or port is missing");
    STATOR_CHECK(url.target.starts_with('/'), "the target is no path");
    for (const char c : written(url)) {
        STATOR_CHECK(c > ' ' && c < 127 && c != '\\', "a character that splits requests or hosts");
    }
    STATOR_CHECK(url.authority.find_first_of("@%#?/") == std::string::npos, "not a host alone");
    const auto again = stator::media::parse_media_url(written(url));
    STATOR_CHECK(again && *again == url, "it is read differently once it is written");
    const auto other = stator::net::parse_http_url(written(url));
    STATOR_CHECK(!other || (other->tls == url.tls && other->address.port == url.port &&
                            other->path == url.target && other->address.host == url.host),
                 "two parsers disagree");
    const bool digits =
        std::ranges::all_of(url.host, [](char c) { return (c >= '0' && c <= '9') || c == '.'; });
    STATOR_CHECK(!digits || url.address, "a number that is no address");
    if (url.address) {
        STATOR_CHECK(stator::media::parse_ip_address(url.host) == url.address, "another address");
        (void)stator::media::why_not_public(*url.address);
    }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    const std::string_view text(reinterpret_cast<const char*>(data), size);
    if (const auto url = stator::media::parse_media_url(text)) check(*url);
    MediaUrl from;
    from.tls = true;
    from.host = from.authority = "a.example.org";
    from.port = 443;
    from.target = "/";
    if (const auto url = stator::media::parse_redirect(from, text)) check(*url);
    constexpr std::size_t kMost = 100;
    const auto bytes = stator::media::read_data_url(text, kMost);
    if (bytes) STATOR_CHECK(bytes->size() <= kMost && !bytes->empty(), "over its limit");
    return 0;
}
