#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace stator::gateway {

/// The endpoint that was picked, "ip:port" or several with commas between them: a request header,
/// and in the metadata of kEnvoyLb.
inline constexpr std::string_view kDestination = "x-gateway-destination-endpoint";
inline constexpr std::string_view kEnvoyLb = "envoy.lb";
/// In the metadata of kSubsetHint: a list of the endpoints that may be picked.
inline constexpr std::string_view kSubset = "x-gateway-destination-endpoint-subset";
inline constexpr std::string_view kSubsetHint = "envoy.lb.subset_hint";
/// In the metadata of kEnvoyLb, with the answer: the endpoint that gave it.
inline constexpr std::string_view kServed = "x-gateway-destination-endpoint-served";

/// `name` is in lower case, as HTTP/2 has it.
struct Header {
    std::string name;
    std::string value;
    bool operator==(const Header&) const = default;
};

/// The value of the first header of that name (lower case); empty where there is none.
[[nodiscard]] std::string_view header_of(const std::vector<Header>& headers, std::string_view name);

/// How a proxy sends one side's body. The numbers are ext_proc's.
enum class BodyMode : std::uint8_t {
    kNone = 0,
    kStreamed = 1,         ///< piece by piece, an answer for each; headers have left before
    kBuffered = 2,         ///< at once, after the answer to the headers
    kBufferedPartial = 3,  ///< the same, perhaps only its beginning
    kFullDuplex = 4,       ///< piece by piece, answered whenever and in whatever pieces
};

/// What a proxy tells of a request that it has, a message of its stream.
struct FromProxy {
    enum class Kind : std::uint8_t {
        kUnknown,
        kRequestHeaders,
        kRequestBody,
        kRequestTrailers,
        kResponseHeaders,
        kResponseBody,
        kResponseTrailers,
    };
    struct Modes {
        BodyMode request = BodyMode::kFullDuplex;
        BodyMode response = BodyMode::kFullDuplex;
    };

    Kind kind = Kind::kUnknown;
    std::vector<Header> headers;
    std::string body;
    bool end_of_stream = false;
    /// The only endpoints that may be picked; none: any.
    std::optional<std::vector<std::string>> subset = std::nullopt;
    std::string served = {};                    ///< who gave the answer; empty: not said
    std::optional<Modes> modes = std::nullopt;  ///< in the first message, of proxies that say it
    bool only_observed = false;                 ///< the proxy waits for no answers
};

/// What it is told to do.
struct ToProxy {
    enum class Kind : std::uint8_t {
        kRequestHeaders,
        kRequestBody,
        kRequestTrailers,
        kResponseHeaders,
        kResponseBody,
        kResponseTrailers,
        kImmediate,  ///< answer the client with this; the last message of a stream
    };
    enum class Body : std::uint8_t {
        kUnchanged,
        kReplaced,  ///< by `body`
        kPiece,     ///< `body` is the next piece of what goes on (kFullDuplex)
    };

    Kind kind = Kind::kRequestHeaders;
    std::vector<Header> set;          ///< overwrite what the request has of these names
    std::vector<std::string> remove;  ///< names
    bool choose_route_again = false;
    Body how = Body::kUnchanged;
    std::string body = {};
    bool end_of_stream = false;
    std::string destination = {};  ///< not empty: for the metadata
    int status = 0;                ///< of kImmediate, HTTP's
    std::string details = {};      ///< of kImmediate, for the proxy's log
};

}  // namespace stator::gateway
