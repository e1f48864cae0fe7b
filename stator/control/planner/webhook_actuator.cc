#include "stator/control/planner/webhook_actuator.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "stator/codec/json.h"
#include "stator/codec/json_writer.h"
#include "stator/net/http_client.h"

namespace stator::control {
namespace {

constexpr std::size_t kMaxAnswerBytes = 64 * 1024;
constexpr std::size_t kMaxReasonBytes = 200;

}  // namespace

std::string webhook_body(const planner::Action& action, TimePoint now) {
    using Kind = planner::Action::Kind;
    std::string out;
    codec::JsonWriter w(out);
    w.begin_object().key("id").number(action.id).key("kind").string(to_string(action.kind));
    w.key("role").string(to_string(action.role));
    if (action.kind == Kind::kStart) w.key("count").number(action.count);
    if (action.kind != Kind::kStart) w.key("worker").string(action.worker);
    if (action.kind == Kind::kMove) w.key("to").string(to_string(action.to));
    w.key("expects").string(action.expects).key("because").string(action.because);
    // Whole milliseconds.
    const double left_s = std::max(0.0, to_seconds(action.deadline - now));
    w.key("deadline_s").number(std::round(left_s * 1e3) / 1e3);
    w.end_object();
    return out;
}

Result<void> read_webhook_answer(int status, std::string_view body) {
    if (status < 200 || status > 299) {
        return error(ErrorCode::kUnavailable, "the webhook answered with status {}", status);
    }
    codec::JsonDocument document;
    const auto root = document.parse(body);
    if (!root || root->find("accepted").as_bool().value_or(true)) return {};
    const auto reason = root->find("reason").as_string().value_or("it gave no reason");
    return error(ErrorCode::kUnavailable, "the webhook refused: {}",
                 reason.substr(0, kMaxReasonBytes));
}

WebhookActuator::WebhookActuator(WebhookOptions options, const Clock& clock)
    : options_(std::move(options)), clock_(clock) {}

Result<void> WebhookActuator::carry_out(const planner::Action& action) {
    net::HttpClientRequest request;
    request.method = "POST";
    request.url = options_.url;
    request.headers = {{"Content-Type", "application/json"}};
    if (!options_.key.empty()) {
        request.headers.emplace_back("Authorization", "Bearer " + options_.key);
    }
    request.body = webhook_body(action, clock_.now());
    request.connect_timeout = request.read_timeout = options_.timeout;
    request.max_response_bytes = kMaxAnswerBytes;
    const auto answer = net::http_request(request);
    if (!answer) return tl::unexpected(answer.error());
    return read_webhook_answer(answer->status, answer->body);
}

}  // namespace stator::control
