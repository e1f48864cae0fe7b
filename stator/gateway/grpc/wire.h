#pragma once

#if STATOR_HAVE_GRPC

#include <ext_proc.pb.h>

#include "stator/gateway/messages.h"

namespace stator::gateway {

/// ext_proc's messages to ours and back. Bytes are moved where they can be.
[[nodiscard]] FromProxy from_wire(envoy::service::ext_proc::v3::ProcessingRequest& request);
void to_wire(ToProxy& message, envoy::service::ext_proc::v3::ProcessingResponse& out);

}  // namespace stator::gateway

#endif
