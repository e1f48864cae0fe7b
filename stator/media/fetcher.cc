#include "stator/media/fetcher.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <utility>

#include "stator/media/fetch_connection.h"
#include "stator/net/http_names.h"
#include "stator/net/http_response.h"

namespace stator::media {
namespace {

constexpr std::size_t kMaxHead = 32 * 1024;
constexpr std::size_t kMaxTries = 3;  // of a host's addresses

std::string lower(std::string_view text) {
    std::string out(text);
    for (char& c : out) {
        if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
    }
    return out;
}

bool host_matches(const std::string& host, std::string_view pattern) {
    if (!pattern.starts_with("*.")) return host == lower(pattern);
    const std::string suffix = lower(pattern.substr(1));
    return host.size() > suffix.size() && host.ends_with(suffix);
}

bool is_media_type(std::string_view type) {
    const std::string name = lower(type.substr(0, type.find(';')));
    return name.empty() || name.starts_with("image/") || name.starts_with("video/") ||
           name.starts_with("application/octet-stream") || name.starts_with("binary/octet-stream");
}

bool is_redirect(int status) {
    constexpr std::array<int, 5> kRedirects = {301, 302, 303, 307, 308};
    return std::ranges::find(kRedirects, status) != kRedirects.end();
}

std::string request_text(const MediaUrl& url) {
    return "GET " + url.target + " HTTP/1.1\r\nHost: " + url.authority +
           "\r\nUser-Agent: stator\r\nAccept: image/*, video/*\r\nAccept-Encoding: identity\r\n"
           "Connection: close\r\n\r\n";
}

/// One answer on its way in.
class Answer {
  public:
    Answer(const FetchOptions& options, const Clock& clock)
        : options_(options), clock_(clock), parser_(kMaxHead) {
        parser_.begin(false);
    }

    /// Reads it all, or only the head where that decides.
    Result<void> read(FetchConnection& connection, Deadline deadline);
    [[nodiscard]] const net::HttpResponseHead& head() const { return parser_.head(); }
    std::string body;

  private:
    using State = net::HttpResponseParser::State;
    Result<void> take(std::string_view bytes);
    [[nodiscard]] Result<void> check_head() const;
    [[nodiscard]] Result<void> check_rate(TimePoint begin) const;

    const FetchOptions& options_;
    const Clock& clock_;
    net::HttpResponseParser parser_;
    bool head_seen_ = false;
};

Result<void> Answer::check_head() const {
    const net::HttpResponseHead& head = parser_.head();
    if (head.status != 200) return {};
    if (const auto coding = head.header("content-encoding");
        !coding.empty() && !net::same_name(coding, "identity")) {
        return error(ErrorCode::kUnsupported,
                     "the URL's server sent an encoded body; it must be sent as it is");
    }
    if (!is_media_type(head.header("content-type"))) {
        return error(ErrorCode::kUnsupported,
                     "the URL leads to something that is neither image "
                     "nor video, by its Content-Type");
    }
    const std::string_view length = head.header("content-length");
    std::uint64_t bytes = 0;
    std::from_chars(length.data(), length.data() + length.size(), bytes);
    if (bytes > options_.max_bytes) {
        return error(ErrorCode::kTooLarge, "the URL leads to {} bytes; at most {} are taken", bytes,
                     options_.max_bytes);
    }
    return {};
}

Result<void> Answer::check_rate(TimePoint begin) const {
    const auto elapsed = clock_.now() - begin;
    if (elapsed < options_.rate_after) return {};
    const double least = to_seconds(elapsed) * static_cast<double>(options_.min_bytes_per_second);
    if (static_cast<double>(body.size()) >= least) return {};
    return error(ErrorCode::kDeadlineExceeded,
                 "the URL's server sends fewer than {} bytes a second",
                 options_.min_bytes_per_second);
}

Result<void> Answer::take(std::string_view bytes) {
    while (!bytes.empty() && parser_.state() != State::kDone) {
        std::string_view piece;
        const State state = parser_.next(bytes, piece);
        if (state == State::kBad) {
            return error(ErrorCode::kDataLoss, "the URL's server does not speak HTTP/1.1");
        }
        if (state != State::kHead && !std::exchange(head_seen_, true)) {
            if (auto ok = check_head(); !ok) return ok;
        }
        if (body.size() + piece.size() > options_.max_bytes) {
            return error(ErrorCode::kTooLarge, "the URL leads to more than {} bytes",
                         options_.max_bytes);
        }
        body += piece;
    }
    return {};
}

Result<void> Answer::read(FetchConnection& connection, Deadline deadline) {
    std::string bytes;
    const TimePoint begin = clock_.now();
    while (parser_.state() != State::kDone) {
        if (head_seen_ && parser_.head().status != 200) return {};  // its body is nobody's business
        bool in_order = false;
        // A server that sends nothing must not hold the thread until the end of all time.
        const Deadline next =
            std::min(deadline, Deadline::after(clock_.now(), options_.rate_after));
        auto got = connection.receive(bytes, in_order, next);
        const bool silent =
            !got && got.error().code == ErrorCode::kDeadlineExceeded && next < deadline;
        if (!got && !silent) return got;
        if (auto ok = check_rate(begin); !ok) return ok;
        if (silent) continue;
        if (auto ok = take(bytes); !ok) return ok;
        if (bytes.empty() && (!in_order || parser_.end() != State::kDone)) {
            return error(ErrorCode::kDataLoss, "the URL's server ended its answer too early");
        }
    }
    if (!std::exchange(head_seen_, true)) return check_head();
    return {};
}

/// To the first of the addresses that answers.
Result<void> connect_to_one(FetchConnection& connection, const std::vector<IpAddress>& addresses,
                            std::uint16_t port, std::chrono::milliseconds each, const Clock& clock,
                            Deadline deadline) {
    Result<void> last = error(ErrorCode::kUnavailable, "the URL's host has no address");
    for (std::size_t i = 0; i < std::min(addresses.size(), kMaxTries); ++i) {
        last = connection.connect(addresses[i], port,
                                  std::min(deadline, Deadline::after(clock.now(), each)));
        if (last || last.error().code == ErrorCode::kCancelled) break;
    }
    return last;
}

}  // namespace

Error Fetcher::with_limit(Error why, bool connected, bool over) const {
    if (why.code != ErrorCode::kDeadlineExceeded) return why;
    if (over) {
        why.message = fmt::format("the URL was not fetched within {:g} s",
                                  to_seconds(options_.total_timeout));
    } else if (!connected) {
        why.message = fmt::format("the URL's server could not be reached within {:g} s",
                                  to_seconds(options_.connect_timeout));
    }
    return why;
}

Fetcher::Fetcher(FetchOptions options, std::shared_ptr<Resolver> resolver, const Clock& clock)
    : options_(std::move(options)), resolver_(std::move(resolver)), clock_(clock) {}

Result<void> Fetcher::check_url(const MediaUrl& url) const {
    if (!url.tls && !options_.allow_http) {
        return error(ErrorCode::kPermissionDenied, "only https URLs are fetched here");
    }
    if (url.tls && options_.tls == nullptr) {
        return error(ErrorCode::kPermissionDenied, "https URLs are not fetched here");
    }
    const std::uint16_t usual = url.tls ? 443 : 80;
    constexpr std::uint16_t kFirstFree = 1024;
    if (!options_.allow_private && url.port != usual && url.port < kFirstFree) {
        return error(ErrorCode::kPermissionDenied, "the URL's port {} is another service's",
                     url.port);
    }
    const auto matches = [&](const std::string& p) { return host_matches(url.host, p); };
    if (!options_.hosts.empty() && std::ranges::none_of(options_.hosts, matches)) {
        return error(ErrorCode::kPermissionDenied, "URLs of the host {} are not fetched here",
                     url.host);
    }
    return {};
}

Result<std::vector<IpAddress>> Fetcher::checked_addresses(const MediaUrl& url,
                                                          Deadline deadline) const {
    Result<std::vector<IpAddress>> found =
        url.address ? Result<std::vector<IpAddress>>({*url.address})
                    : resolver_->resolve(url.host, deadline.left(clock_.now()));
    if (!found || options_.allow_private) return found;
    // All of them: a name with a public and a private one is up to no good.
    for (const IpAddress& address : *found) {
        const auto& allowed = options_.allowed_addresses;
        if (std::ranges::find(allowed, address) != allowed.end()) continue;
        if (!why_not_public(address).empty()) {
            return error(ErrorCode::kPermissionDenied,
                         "the URL's host {} is not on the public internet", url.host);
        }
    }
    return found;
}

Result<Fetcher::Destination> Fetcher::check(Result<MediaUrl> url, Deadline deadline) const {
    if (!url) return tl::unexpected<Error>(std::move(url.error()));
    if (auto ok = check_url(*url); !ok) return tl::unexpected<Error>(std::move(ok.error()));
    auto addresses = checked_addresses(*url, deadline);
    if (!addresses) return tl::unexpected<Error>(std::move(addresses.error()));
    return Destination{std::move(*url), std::move(*addresses)};
}

Result<Fetcher::Destination> Fetcher::check(std::string_view url) const {
    return check(parse_media_url(url), Deadline::after(clock_.now(), options_.total_timeout));
}

Result<std::string> Fetcher::fetch(std::string_view text, Deadline deadline,
                                   const std::atomic<bool>& cancelled) const {
    deadline = std::min(deadline, Deadline::after(clock_.now(), options_.total_timeout));
    auto next = parse_media_url(text);
    for (std::uint32_t redirects = 0;; ++redirects) {
        const auto to = check(std::move(next), deadline);
        if (!to) return tl::unexpected<Error>(to.error());
        const MediaUrl& url = to->url;
        FetchConnection connection(clock_, cancelled);
        Answer answer(options_, clock_);
        auto done = connect_to_one(connection, to->addresses, url.port, options_.connect_timeout,
                                   clock_, deadline);
        if (done && url.tls) {
            done = connection.begin_tls(
                options_.tls, url.host,
                std::min(deadline, Deadline::after(clock_.now(), options_.connect_timeout)));
        }
        const bool connected = done.has_value();
        if (done) done = connection.send(request_text(url), deadline);
        if (done) done = answer.read(connection, deadline);
        if (!done) {
            return tl::unexpected<Error>(
                with_limit(std::move(done.error()), connected, deadline.reached(clock_.now())));
        }
        const int status = answer.head().status;
        if (status == 200) return std::move(answer.body);
        if (!is_redirect(status)) {
            return error(ErrorCode::kUnavailable, "the URL's server answered with status {}",
                         status);
        }
        if (redirects >= options_.max_redirects) {
            return error(ErrorCode::kPermissionDenied,
                         "the URL leads elsewhere (status {}), and at most {} redirects are "
                         "followed",
                         status, options_.max_redirects);
        }
        next = parse_redirect(url, answer.head().header("location"));
        if (next && url.tls && !next->tls) {
            return error(ErrorCode::kPermissionDenied, "the URL leads from https to http");
        }
    }
}

}  // namespace stator::media
