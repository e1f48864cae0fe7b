#pragma once

#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "stator/discovery/source.h"
#include "stator/protocol/worker_info.h"

namespace stator::cli {

/// A publisher's ZeroMQ address as files in a folder have it.
[[nodiscard]] std::string publisher_in_file(const std::string& address);

/// Labels of a frontend's file: that it has a publisher, and its key where it encrypts.
inline constexpr std::string_view kPublisherLabel = "events";
inline constexpr std::string_view kPublisherKeyLabel = "events_key";

/// Where what a discovery source has found of a frontend publishes. `own_key`: for those that no
/// file tells the key of.
[[nodiscard]] protocol::EventEndpoint publisher_of(const discovery::Candidate& candidate,
                                                   const std::string& own_key);

}  // namespace stator::cli
