#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "stator/base/clock.h"
#include "stator/base/error.h"
#include "stator/kube/access.h"
#include "stator/kube/token_file.h"
#include "stator/net/http_pool.h"
#include "stator/runtime/loop.h"

namespace stator::kube {

struct Request {
    std::string method = "GET";
    std::string path;          ///< with the query
    std::string content_type;  ///< of the body
    std::string body;
};

struct Answer {
    int status = 0;
    std::string body;
};

/// The API server, spoken to over HTTP/1.1 with TLS. Everything on one loop. It shows the token of
/// Access and reads it again as it is renewed; where a connection can't be made and the file of
/// authorities has changed, the new one is used.
class Client : public std::enable_shared_from_this<Client> {
  public:
    static constexpr std::size_t kMaxAnswerBytes = 4 * 1024 * 1024;
    static constexpr std::chrono::seconds kCallWithin{15};

    /// On the loop. kNotFound, kInvalidArgument: the files that `access` names.
    [[nodiscard]] static Result<std::shared_ptr<Client>> create(runtime::Loop& loop, Access access,
                                                                const Clock& clock);
    ~Client();
    Client(const Client&) = delete;
    Client& operator=(const Client&) = delete;

    /// One call. `done` is told once, in a later turn, and not after stop(): the answer, whatever
    /// its status is, or why there is none. 401: the token is read again and it is sent once more;
    /// 429 and 503 with a Retry-After of at most 5 s: once more after that.
    void call(Request request, std::function<void(Result<Answer>)> done);

    /// A GET whose answer comes piece by piece; never answered again by itself. Null where there is
    /// no token (`why` says so).
    [[nodiscard]] std::shared_ptr<net::HttpCall> stream(
        const std::string& path, std::shared_ptr<net::HttpCallHandler> handler, std::string& why);
    void token_refused() { token_.refused(); }
    /// A connection could not be made: the authorities may have been replaced.
    void not_connected();
    /// Calls in flight are not told of any more.
    void stop();

    [[nodiscard]] const Access& access() const { return access_; }
    [[nodiscard]] const Clock& clock() const { return clock_; }
    [[nodiscard]] runtime::Loop& loop() { return loop_; }
    [[nodiscard]] bool stopped() const { return stopped_; }

  private:
    friend class ClientCall;
    Client(runtime::Loop& loop, Access access, const Clock& clock);
    [[nodiscard]] Result<void> connect();
    [[nodiscard]] Result<net::HttpCallRequest> with_token(Request request);

    runtime::Loop& loop_;
    const Access access_;
    const Clock& clock_;
    TokenFile token_;
    std::string authorities_;  ///< the file's text as it was read last
    std::unique_ptr<net::HttpPool> pool_;
    bool stopped_ = false;
};

}  // namespace stator::kube
