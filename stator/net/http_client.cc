#include "stator/net/http_client.h"

#include <array>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/write.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/core/tcp_stream.hpp>
#include <boost/beast/http/buffer_body.hpp>
#include <boost/beast/http/parser.hpp>
#include <boost/beast/http/read.hpp>
#include <optional>

#include "stator/net/http_names.h"
#include "stator/net/http_url.h"

namespace stator::net {
namespace {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = beast::http;
using asio::ip::tcp;
using ErrorCodeOfBoost = boost::system::error_code;

constexpr std::uint32_t kMaxHeadBytes = 64 * 1024;
constexpr std::size_t kPieceBytes = 16 * 1024;
constexpr std::chrono::milliseconds kAskPeriod{
    100};  // how soon HttpClientRequest::cancelled counts

Result<std::string> render(const HttpClientRequest& request, const HttpUrl& url) {
    std::string out = request.method + " " + url.path + " HTTP/1.1\r\nHost: " + url.authority +
                      "\r\nConnection: close\r\n";
    if (!is_token(request.method)) {
        return error(ErrorCode::kInvalidArgument, "'{}' is not an HTTP method", request.method);
    }
    for (const auto& [name, value] : request.headers) {
        if (!is_token(name) || value.find_first_of(std::string_view("\r\n\0", 3)) != value.npos) {
            return error(ErrorCode::kInvalidArgument,
                         "the header '{}' has a character that headers can't hold", name);
        }
        out += name + ": " + value + "\r\n";
    }
    if (!request.body.empty() || request.method == "POST" || request.method == "PUT") {
        out += "Content-Length: " + std::to_string(request.body.size()) + "\r\n";
    }
    return out + "\r\n";
}

/// One request's connection. Each step runs the io_context until its operation has ended; the
/// stream's own timer bounds it.
class Call {
  public:
    Call(const HttpClientRequest& request, HttpUrl url) : request_(request), url_(std::move(url)) {}

    Result<void> connect();
    void send(const std::string& head);
    Result<HttpClientResponse> receive(const std::function<bool(std::string_view)>& on_data);

  private:
    using Parser = http::response_parser<http::buffer_body>;

    /// Starts an operation with `start(handler)` and waits for its end.
    template <typename Start>
    ErrorCodeOfBoost wait(std::chrono::milliseconds timeout, Start&& start) {
        ErrorCodeOfBoost result;
        stream_.expires_after(timeout);
        start([&result](const ErrorCodeOfBoost& ec, auto&&...) { result = ec; });
        io_.restart();
        while (!io_.stopped()) {
            io_.run_for(kAskPeriod);
            if (io_.stopped() || !request_.cancelled || !request_.cancelled()) continue;
            cancelled_ = true;
            stream_.cancel();
        }
        return result;
    }

    Result<void> read_head(std::optional<Parser>& parser);
    Result<void> read_body(Parser& parser, HttpClientResponse& response,
                           const std::function<bool(std::string_view)>& on_data);
    tl::unexpected<Error> failed(const ErrorCodeOfBoost& ec, bool head_read) const;

    const HttpClientRequest& request_;
    HttpUrl url_;
    asio::io_context io_{1};
    beast::tcp_stream stream_{io_};
    beast::flat_buffer buffer_;
    bool cancelled_ = false;
};

tl::unexpected<Error> Call::failed(const ErrorCodeOfBoost& ec, bool head_read) const {
    if (cancelled_) return error(ErrorCode::kCancelled, "the caller ended the request");
    if (ec == beast::error::timeout) {
        return error(ErrorCode::kDeadlineExceeded, "{} sent nothing for {} ms", url_.authority,
                     request_.read_timeout.count());
    }
    if (head_read) {
        return error(ErrorCode::kDataLoss, "the answer of {} was cut short: {}", url_.authority,
                     ec.message());
    }
    return error(ErrorCode::kUnavailable, "{} closed the connection without an answer: {}",
                 url_.authority, ec.message());
}

Result<void> Call::connect() {
    ErrorCodeOfBoost ec;
    tcp::resolver resolver(io_);
    const auto addresses =
        resolver.resolve(url_.address.host, std::to_string(url_.address.port), ec);
    if (ec) {
        return error(ErrorCode::kUnavailable, "can't find the host '{}': {}", url_.address.host,
                     ec.message());
    }
    ec = wait(request_.connect_timeout,
              [&](auto handler) { stream_.async_connect(addresses, std::move(handler)); });
    if (cancelled_) return failed(ec, false);
    if (ec == beast::error::timeout) {
        return error(ErrorCode::kDeadlineExceeded, "{} did not accept a connection within {} ms",
                     url_.authority, request_.connect_timeout.count());
    }
    if (ec) {
        return error(ErrorCode::kUnavailable, "can't connect to {}: {}", url_.authority,
                     ec.message());
    }
    stream_.socket().set_option(tcp::no_delay(true), ec);
    return {};
}

void Call::send(const std::string& head) {
    const std::array<asio::const_buffer, 2> parts = {asio::buffer(head),
                                                     asio::buffer(request_.body)};
    // A failure is not the end: a server that refuses a body answers before it has read it.
    static_cast<void>(wait(request_.read_timeout, [&](auto handler) {
        asio::async_write(stream_, parts, std::move(handler));
    }));
}

Result<void> Call::read_head(std::optional<Parser>& parser) {
    while (true) {
        parser.emplace();
        parser->header_limit(kMaxHeadBytes);
        parser->body_limit(boost::none);
        parser->skip(request_.method == "HEAD");
        const auto ec = wait(request_.read_timeout, [&](auto handler) {
            http::async_read_header(stream_, buffer_, *parser, std::move(handler));
        });
        if (ec == http::error::header_limit) {
            return error(ErrorCode::kTooLarge, "the headers of {} are longer than {} bytes",
                         url_.authority, kMaxHeadBytes);
        }
        if (ec) return failed(ec, false);
        if (parser->get().result_int() / 100 != 1) return {};  // 1xx: the answer is yet to come
    }
}

Result<void> Call::read_body(Parser& parser, HttpClientResponse& response,
                             const std::function<bool(std::string_view)>& on_data) {
    const bool hand_over = on_data && response.status / 100 == 2;
    std::array<char, kPieceBytes> piece{};
    while (!parser.is_done()) {
        auto& body = parser.get().body();
        body.data = piece.data();
        body.size = piece.size();
        const auto ec = wait(request_.read_timeout, [&](auto handler) {
            http::async_read_some(stream_, buffer_, parser, std::move(handler));
        });
        if (ec && ec != http::error::need_buffer) return failed(ec, true);
        const std::string_view bytes(piece.data(), piece.size() - body.size);
        if (bytes.empty()) continue;
        if (hand_over) {
            if (!on_data(bytes)) return error(ErrorCode::kCancelled, "the caller ended the answer");
        } else if (response.body.size() + bytes.size() > request_.max_response_bytes) {
            return error(ErrorCode::kTooLarge, "the answer of {} is longer than {} bytes",
                         url_.authority, request_.max_response_bytes);
        } else {
            response.body += bytes;
        }
    }
    return {};
}

Result<HttpClientResponse> Call::receive(const std::function<bool(std::string_view)>& on_data) {
    std::optional<Parser> parser;
    if (auto head = read_head(parser); !head) return tl::unexpected<Error>(head.error());
    HttpClientResponse response;
    response.status = static_cast<int>(parser->get().result_int());
    for (const auto& field : parser->get()) {
        response.headers.emplace_back(
            std::string(field.name_string().data(), field.name_string().size()),
            std::string(field.value().data(), field.value().size()));
    }
    if (auto body = read_body(*parser, response, on_data); !body) {
        return tl::unexpected<Error>(body.error());
    }
    return response;
}

}  // namespace

std::string_view HttpClientResponse::header(std::string_view name) const {
    for (const auto& [header_name, value] : headers) {
        if (same_name(header_name, name)) return value;
    }
    return {};
}

Result<HttpClientResponse> http_request(const HttpClientRequest& request,
                                        const std::function<bool(std::string_view)>& on_data) {
    auto url = parse_http_url(request.url);
    if (!url) return tl::unexpected<Error>(url.error());
    if (url->tls || url->address.kind != SocketAddress::Kind::kTcp) {
        return error(ErrorCode::kInvalidArgument,
                     "'{}' is not a URL of the form http://host:port/path", request.url);
    }
    const auto head = render(request, *url);
    if (!head) return tl::unexpected<Error>(head.error());
    Call call(request, std::move(*url));
    if (auto connected = call.connect(); !connected) {
        return tl::unexpected<Error>(connected.error());
    }
    call.send(*head);
    return call.receive(on_data);
}

}  // namespace stator::net
