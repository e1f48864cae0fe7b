#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "stator/kube/reflector.h"
#include "stator/net/socket_address.h"

namespace stator::kube {

/// Which port of an endpoint is meant. All empty: the only one there is, or the one named "stator".
struct PortChoice {
    std::string name;
    std::uint16_t number = 0;  ///< taken whatever the slice says; 0: as the slice says
};

struct Endpoint {
    net::SocketAddress address;
    std::string pod;   ///< its name; empty where the slice does not say
    std::string node;  ///< as well
    std::string zone;  ///< as well
    bool operator==(const Endpoint&) const = default;
};

/// The endpoints that may take new requests, of all EndpointSlices (discovery.k8s.io/v1) together.
///
/// Ready (or nothing said about it) and not terminating: in. An endpoint that several slices name,
/// as happens while it moves between them, is one, known by the pod's uid and its port; it is out
/// as soon as one of them says that it is terminating, because that is never taken back. A pod that
/// has addresses of both families is one endpoint, at its IPv4 address. An address that two pods
/// claim stays as long as one of them is in.
///
/// A change costs what its slice costs, however many others there are. Not thread-safe.
class EndpointSet final : public ObjectSink {
  public:
    struct Changes {
        std::vector<Endpoint> put;  ///< new, or with other words beside its address
        std::vector<net::SocketAddress> gone;
    };
    struct Counts {
        std::uint64_t bad_endpoints = 0;  ///< without a usable address
        std::uint64_t bad_slices = 0;     ///< without a port that could be meant
        std::uint64_t left_out = 0;       ///< over kMaxEndpoints
    };
    static constexpr std::size_t kMaxEndpoints = 65'536;  ///< of all slices together

    explicit EndpointSet(PortChoice port) : port_(std::move(port)) {}

    void on_put(std::string_view key, codec::JsonView slice) override;
    void on_gone(std::string_view key) override;
    void on_listed() override { listed_ = true; }

    /// What has changed since the last call.
    [[nodiscard]] Changes take_changes();
    [[nodiscard]] bool listed() const { return listed_; }
    [[nodiscard]] std::size_t size() const { return named_.size(); }  ///< addresses that are in
    [[nodiscard]] const Counts& counts() const { return counts_; }
    /// Why slices can't be used, for people; empty while all can.
    [[nodiscard]] std::string_view complaint() const {
        return unusable_ > 0 ? std::string_view(complaint_) : std::string_view();
    }

  private:
    /// What one slice says about one endpoint.
    struct Part {
        std::string id;
        Endpoint endpoint;
        bool ready = false;
        bool terminating = false;
        bool v6 = false;
        bool operator==(const Part&) const = default;
    };
    struct Slice {
        std::vector<Part> parts;  ///< by id, each once
        bool usable = true;
    };
    struct Member {
        std::vector<const Slice*> in;
        std::optional<net::SocketAddress> told;
    };
    struct Named {
        std::size_t by = 0;  ///< members that are at this address
        Endpoint endpoint;
        std::optional<Endpoint> told;
    };

    [[nodiscard]] bool read(codec::JsonView slice, std::vector<Part>& out);
    [[nodiscard]] std::uint16_t port_of(codec::JsonView slice);
    void replace(Slice& slice, std::vector<Part> parts);
    void join(const std::string& id, const Slice* slice);
    void leave(const std::string& id, const Slice* slice);
    [[nodiscard]] const Part* best_of(const std::string& id, const Member& member) const;
    void settle(const std::string& id);
    static const Part* find(const Slice& slice, std::string_view id);

    const PortChoice port_;
    bool listed_ = false;
    std::size_t parts_ = 0;
    std::unordered_map<std::string, Slice> slices_;  ///< nodes stay where they are
    std::unordered_map<std::string, Member> members_;
    std::map<net::SocketAddress, Named> named_;
    std::unordered_set<std::string> dirty_;  ///< ids
    std::set<net::SocketAddress> touched_;   ///< to tell about, perhaps
    Counts counts_;
    std::ptrdiff_t unusable_ = 0;
    std::string complaint_;
};

}  // namespace stator::kube
