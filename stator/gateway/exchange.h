#pragma once

#include <cstddef>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "stator/base/error.h"
#include "stator/gateway/body_budget.h"
#include "stator/gateway/messages.h"
#include "stator/gateway/model_field.h"
#include "stator/gateway/picker.h"
#include "stator/gateway/usage_tail.h"

namespace stator::gateway {

struct ExchangeOptions {
    std::size_t max_body_bytes = std::size_t{64} * 1024 * 1024;
    /// Pieces in which a body goes on: proxies take at most 64 KiB at once.
    std::size_t piece_bytes = 62'000;
    /// Of proxies that do not say theirs.
    FromProxy::Modes modes;
};

/// One HTTP request as a proxy tells of it: the protocol of an endpoint picker (Gateway API
/// Inference Extension, proposal 004, v1.0) on Envoy's ext_proc, messages in, messages out. The
/// headers are answered once the body is there, since the pick needs the prompt; where the proxy
/// sends no body, or has sent the headers on by then, the pick goes by load alone. Destroying it
/// ends its booking. Not thread-safe.
class Exchange {
  public:
    Exchange(const ExchangeOptions& options, Picker& picker, BodyBudget& budget);
    ~Exchange();
    Exchange(const Exchange&) = delete;
    Exchange& operator=(const Exchange&) = delete;

    /// Appends what is to be answered, in order. kInvalidArgument: the proxy breaks the protocol;
    /// its stream is to be ended with that.
    [[nodiscard]] Result<void> take(FromProxy message, std::vector<ToProxy>& out);
    /// The client was answered in the server's place: the stream is over.
    [[nodiscard]] bool answered() const { return answered_; }

  private:
    enum class Side : std::uint8_t { kBefore, kHeaders, kBody, kDone };

    [[nodiscard]] Result<void> take_request(FromProxy& message, std::vector<ToProxy>& out);
    [[nodiscard]] Result<void> take_response(FromProxy& message, std::vector<ToProxy>& out);
    void begin(FromProxy& message, std::vector<ToProxy>& out);
    void take_body(FromProxy& message, std::vector<ToProxy>& out);
    [[nodiscard]] bool keep(std::string_view piece, std::vector<ToProxy>& out);
    [[nodiscard]] bool pick(std::vector<ToProxy>& out);
    void headers_on(ToProxy::Kind kind, std::vector<ToProxy>& out);
    void pieces_on(bool end_of_stream, std::vector<ToProxy>& out);
    void refuse(const Error& why, std::vector<ToProxy>& out);
    void refuse(int status, std::string_view reason, const Error& why, std::vector<ToProxy>& out);
    void answer_headers(const FromProxy& message, std::vector<ToProxy>& out);
    void answer_body(FromProxy& message, std::vector<ToProxy>& out);
    void look_at(std::string_view piece, bool last);
    void forget_body();

    const ExchangeOptions& options_;
    Picker& picker_;
    BodyBudget& budget_;

    FromProxy::Modes modes_;
    bool only_observed_ = false;
    bool answered_ = false;
    Side request_ = Side::kBefore;
    Side response_ = Side::kBefore;
    std::vector<Header> headers_;
    std::optional<std::vector<std::string>> subset_;
    std::string body_;
    std::size_t counted_ = 0;  ///< of the budget
    std::optional<Pick> pick_;
    bool streamed_ = false;  ///< the answer comes as events
    bool first_seen_ = false;
    UsageTail tail_;
    std::optional<ModelRenamer> renamer_;
};

}  // namespace stator::gateway
