#include "stator/gateway/system_headers.h"

#include <algorithm>
#include <array>

#include "stator/gateway/messages.h"

namespace stator::gateway {
namespace {

constexpr std::array<std::string_view, 20> kNames{
    "x-prefiller-host-port",
    "x-encoder-hosts-ports",
    "x-data-parallel-host-port",
    "x-data-parallel-rank",
    "x-kv-cache-source-host-port",
    "x-stator-worker",
    "x-stator-rank",
    "x-stator-advice",
    "x-worker-instance-id",
    "x-prefill-instance-id",
    "x-dp-rank",
    "x-prefill-dp-rank",
    "x-dynamo-worker-instance-id",
    "x-dynamo-prefill-instance-id",
    "x-dynamo-dp-rank",
    "x-dynamo-prefill-dp-rank",
    "x-dynamo-routing-mode",
    "x-dynamo-epp-booking-id",
    "x-dynamo-token-data",
    "x-dynamo-backend-instance-id",
};

}  // namespace

bool is_system_header(std::string_view name) {
    return name.starts_with(kDestination) || std::ranges::find(kNames, name) != kNames.end();
}

}  // namespace stator::gateway
