#include "stator/fleet/canary.h"

#include <algorithm>

namespace stator::fleet {
namespace {

using protocol::Role;

std::shared_ptr<const protocol::MediaContent> dark_picture() {
    constexpr std::uint32_t kSide = 32;
    auto out = std::make_shared<protocol::MediaContent>();
    out->width = kSide;
    out->height = kSide;
    out->pixels.assign(std::size_t{kSide} * kSide * 3, '\0');
    return out;
}

}  // namespace

std::shared_ptr<protocol::GenerateRequest> canary_request(const protocol::WorkerInfo& worker) {
    const auto has = [&](Role role) {
        return std::ranges::find(worker.roles, role) != worker.roles.end();
    };
    auto out = std::make_shared<protocol::GenerateRequest>();
    const tokens::TokenId token = worker.card.vocab_size > 1 ? 1U : 0U;
    out->prompt = {token};
    out->max_tokens = 1;
    out->sampling.temperature = 0;
    if (has(Role::kAggregated) || has(Role::kDecode)) return out;
    if (has(Role::kPrefill)) {
        out->leg = protocol::Leg::kPrefill;
        out->prompt.push_back(token);
    } else if (has(Role::kEncode)) {
        out->leg = protocol::Leg::kEncode;
        out->prompt.clear();
        out->media.push_back({.content = dark_picture()});
    }
    return out;
}

bool is_back(const protocol::StepEvent& event) {
    return event.count > 0 || event.finish == protocol::FinishReason::kHandoff;
}

}  // namespace stator::fleet
