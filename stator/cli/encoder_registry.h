#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <mutex>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "stator/base/error.h"
#include "stator/net/http_server.h"
#include "stator/net/http_url.h"

namespace stator::cli {

/// Where SGLang's encoders say that they are there (--encoder-register-urls), by SGLang's own
/// routes. The server that computes prompts (--language-only) is told of each of them, again and
/// again, since it may have begun anew; or it looks here.
///
///     POST   /register_encoder_url    {"url": "http://host:port"}
///     DELETE /unregister_encoder_url  {"url": …}
///     GET    /list_encoder_urls       {"encoder_urls": [ … ]}
///
/// Encoders that do not answer are left out of the list until they do, and forgotten after a
/// while: one that is back registers again. Thread-safe; has a thread that asks them.
class EncoderRegistry {
  public:
    static constexpr std::size_t kMaxEncoders = 256;
    static constexpr std::size_t kMaxUrlBytes = 2048;

    /// Whether the encoder answers. Called on the registry's own thread; may block for seconds.
    using Alive = std::function<bool(const std::string& url)>;
    /// Tells the engine that an encoder is there, or is not any more. On the same thread.
    using Tell = std::function<void(const std::string& url, bool there)>;
    /// Asks each at its /health every `ask_every`; `alive` null: over HTTP. `tell` null: nobody.
    explicit EncoderRegistry(std::chrono::milliseconds ask_every = std::chrono::seconds(5),
                             Alive alive = {}, Tell tell = {});
    ~EncoderRegistry();
    EncoderRegistry(const EncoderRegistry&) = delete;
    EncoderRegistry& operator=(const EncoderRegistry&) = delete;

    /// kInvalidArgument: no http or https URL; kOverloaded: there are too many. Again is no error.
    [[nodiscard]] Result<void> add(std::string url);
    void remove(std::string_view url);
    /// Of those that answer, in the order in which they came.
    [[nodiscard]] std::vector<std::string> urls() const;

    /// Answers a request for one of its routes; false: it is none of them.
    bool answer(net::HttpExchange& exchange);

  private:
    struct Encoder {
        std::string url;
        std::uint32_t failures = 0;
    };
    void watch();
    void note(const std::string& url, bool well);

    const std::chrono::milliseconds ask_every_;
    const Alive alive_;
    const Tell tell_;
    mutable std::mutex mutex_;
    std::condition_variable wake_;
    std::vector<Encoder> encoders_;
    std::vector<std::string> gone_;  ///< of which the engine is to be told
    bool due_ = false;               ///< a new one is to be told of
    bool stopping_ = false;
    std::thread thread_;
};

/// Tells the SGLang server at `url`, by its own routes.
[[nodiscard]] EncoderRegistry::Tell tell_engine(const net::HttpUrl& url, const std::string& key);

}  // namespace stator::cli
