#pragma once

#include <memory>
#include <vector>

#include "stator/base/error.h"
#include "stator/cli/link_security.h"
#include "stator/config/settings.h"
#include "stator/metrics/registry.h"
#include "stator/net/socket_address.h"
#include "stator/protocol/worker_info.h"
#include "stator/transfer/transfer.h"

namespace stator::cli {

/// The roles of --role; kInvalidArgument names the one that there is not. An aggregated worker with
/// an encoder encodes, too; one that should encode and has none is refused.
[[nodiscard]] Result<std::vector<protocol::Role>> roles_of(const config::Settings& settings);

enum class Encoding : unsigned char { kNone, kToo, kAlone };
/// Whether a worker with these settings encodes images, and does nothing else.
[[nodiscard]] Encoding encoding_of(const config::Settings& settings);

enum class Handoffs : unsigned char {
    kNone,
    kTaken,  ///< of pictures that others have encoded, perhaps
    kMade,   ///< and taken
};
/// What a worker with these settings has to do with handoffs.
[[nodiscard]] Handoffs handoffs_of(const config::Settings& settings);

/// What --transfer… say. `beside`: where the worker listens for links; handoffs over TCP are
/// fetched at the same host. kInvalidArgument: an unknown method, an address that is none, or one
/// that others could reach while nothing is asked of them.
[[nodiscard]] Result<transfer::TransferOptions> transfer_options(
    const config::Settings& settings, const net::SocketAddress& beside,
    const std::shared_ptr<LinkSecurity>& security);

}  // namespace stator::cli
