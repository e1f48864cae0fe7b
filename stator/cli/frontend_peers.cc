#include "stator/cli/frontend_peers.h"

#include "stator/net/socket_address.h"

namespace stator::cli {

std::string publisher_in_file(const std::string& address) {
    return address.starts_with("ipc://") ? "unix:" + address.substr(6) : address;
}

protocol::EventEndpoint publisher_of(const discovery::Candidate& candidate,
                                     const std::string& own_key) {
    const std::string text = to_string(candidate.address);
    protocol::EventEndpoint endpoint{text.starts_with("unix:") ? "ipc://" + text.substr(5) : text,
                                     {}};
    const auto key = candidate.labels.find(std::string(kPublisherKeyLabel));
    if (key != candidate.labels.end()) {
        endpoint.curve_public_key = key->second;
    } else if (!candidate.labels.contains(std::string(kPublisherLabel))) {
        endpoint.curve_public_key = own_key;  // no file tells: the same key for all
    }
    return endpoint;
}

}  // namespace stator::cli
