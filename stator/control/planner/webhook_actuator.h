#pragma once

#include <chrono>
#include <string>
#include <string_view>

#include "stator/control/planner/actuator.h"

namespace stator::control {

struct WebhookOptions {
    std::string url;  ///< http://HOST[:PORT]/PATH
    std::string key;  ///< sent as "Authorization: Bearer …"; empty: none
    std::chrono::milliseconds timeout{5'000};
};

/// Hands orders to a program of somebody else's: one POST for each, with a JSON object
///
///     {"id": 7, "kind": "start", "role": "decode", "count": 2,
///      "expects": "…", "because": "…", "deadline_s": 120.0}
///
/// "kind" is "start", "drain" or "move"; "worker" names whom the last two mean, "to" the role that
/// one moves to. Any 2xx status acknowledges the order, unless its body is {"accepted": false,
/// "reason": "…"}; everything else refuses it. An order is sent once: whether it was done is seen
/// in the fleet. Blocks, as long as the timeout says.
class WebhookActuator final : public Actuator {
  public:
    WebhookActuator(WebhookOptions options, const Clock& clock);
    [[nodiscard]] std::string_view name() const override { return "the webhook"; }
    [[nodiscard]] Result<void> carry_out(const planner::Action& action) override;

  private:
    const WebhookOptions options_;
    const Clock& clock_;
};

/// The body of the POST.
[[nodiscard]] std::string webhook_body(const planner::Action& action, TimePoint now);
/// What an answer means.
[[nodiscard]] Result<void> read_webhook_answer(int status, std::string_view body);

}  // namespace stator::control
