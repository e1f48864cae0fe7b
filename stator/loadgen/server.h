#pragma once

#include <chrono>
#include <cstddef>
#include <functional>
#include <memory>
#include <string>

#include "stator/base/clock.h"
#include "stator/base/error.h"
#include "stator/loadgen/request_body.h"
#include "stator/net/http_pool.h"
#include "stator/runtime/loop.h"

namespace stator::loadgen {

struct ServerOptions {
    /// "http://host:port", "https://…", "unix:/path"; a trailing slash or /v1 does not matter.
    std::string url = {};
    std::string api_key = {};       ///< empty: none is sent
    net::HttpHeaders headers = {};  ///< sent with every request
    std::string model = {};         ///< empty: the first that the server lists
    Api api = Api::kChat;
    bool strict = false;     ///< see Dialect
    std::string extra = {};  ///< see Dialect
    /// Ask how many tokens a word is; else a word counts as 1.3 tokens.
    bool calibrate = true;
    std::chrono::milliseconds connect_timeout{5'000};
    std::chrono::milliseconds silence_timeout{300'000};
};

/// A server that was there, and how to write requests for it.
struct Server {
    net::HttpUrl url;
    net::HttpPoolOptions pool;
    Dialect dialect;
    std::string name;     ///< the URL, for people
    std::string warning;  ///< about what could not be found out; may be empty
};

/// Asks the server which models it has and how it counts words: at most three small requests.
/// Blocks; not on the loop. `cancelled` is asked now and then. Errors are sentences for the
/// terminal: kUnavailable where nobody answers, kInvalidArgument for a URL, kUnauthenticated,
/// kNotFound where there is no model, kCancelled.
[[nodiscard]] Result<Server> find_server(ServerOptions options, runtime::Loop& loop,
                                         const Clock& clock,
                                         const std::function<bool()>& cancelled);

}  // namespace stator::loadgen
