#pragma once

#include <string>
#include <string_view>

#include "stator/base/error.h"
#include "stator/replicas/messages.h"

namespace stator::replicas {

/// A message and the pool that it is about. docs/event-plane.md, topic "router", is the format.
struct PoolMessage {
    std::string_view pool;  ///< protocol::pool_id(); a view into the bytes
    Message message;
};

/// Appends the payload. Times travel as ages: how long before `now` something was.
void encode(std::string_view pool, const Message& message, Nanos now, std::string& out);

/// Reads untrusted bytes; times are counted back from `now`. kInvalidArgument says what is wrong;
/// kNotFound: a kind of message that this reader does not know, to be passed over.
[[nodiscard]] Result<PoolMessage> decode(std::string_view payload, Nanos now);

}  // namespace stator::replicas
