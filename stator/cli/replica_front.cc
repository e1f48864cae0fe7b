#include "stator/cli/replica_front.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <future>
#include <map>
#include <utility>

#include "stator/base/log.h"
#include "stator/cli/curve_keys.h"
#include "stator/cli/frontend_peers.h"
#include "stator/cli/worker_processes.h"
#include "stator/net/socket_address.h"

namespace stator::cli {
namespace {

constexpr std::string_view kFolder = "dir:";
constexpr std::size_t kMostWritten = 1000;

/// A frontend that starts again has the same, and replaces the file that a killed one left.
std::string file_name(std::uint16_t port) {
    std::array<char, 256> host{};
    (void)::gethostname(host.data(), host.size() - 1);
    std::string name = fmt::format("frontend-{:.100}-{}", host.data(), port);
    for (char& c : name) {
        const bool fits = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
                          (c >= '0' && c <= '9') || c == '-' || c == '.';
        if (!fits) c = '_';
    }
    return name;
}

Result<routing::ReplicaPlaneOptions> plane_options(const config::Settings& settings,
                                                   protocol::Incarnation incarnation) {
    routing::ReplicaPlaneOptions o;
    o.incarnation = incarnation;
    const config::WorkerSettings& s = settings.worker;
    if (!s.events_key_file.empty()) {
        auto keys = read_curve_keys(s.events_key_file);
        if (!keys) return tl::unexpected(keys.error());
        o.publisher.curve = *keys;
        o.subscriber.curve = std::move(*keys);
    }
    if (!s.events_allow_file.empty()) {
        auto allowed = read_allowed_curve_keys(s.events_allow_file);
        if (!allowed) return tl::unexpected(allowed.error());
        o.publisher.allowed_clients = std::move(*allowed);
    }
    return o;
}

}  // namespace

Result<std::shared_ptr<ReplicaFront>> ReplicaFront::start(const config::Settings& settings,
                                                          std::uint16_t port,
                                                          protocol::Incarnation incarnation,
                                                          runtime::Loop& loop,
                                                          metrics::Registry& registry) {
    const config::RouterSettings& s = settings.router;
    if (!s.replica_sync) return nullptr;
    std::vector<std::string> sources = s.peers;
    for (const std::string& source : settings.fleet.discover) {
        if (source.starts_with(kFolder)) sources.push_back(source);
    }
    auto options = plane_options(settings, incarnation);
    if (!options) return tl::unexpected(options.error());
    if (settings.fleet.discover.empty()) {
        const auto folder = run_time_folder();
        if (!folder) return tl::unexpected(folder.error());
        sources.push_back(std::string(kFolder) + *folder);
        if (s.peers.empty())
            options->bind = fmt::format("ipc://{}/frontend-{}.router", *folder, port);
    }
    if (sources.empty()) return nullptr;
    if (!s.events.empty()) options->bind = s.events;
    const std::string own_key = options->publisher.curve.public_key;
    auto plane = routing::ReplicaPlane::start(std::move(*options), loop, registry);
    if (!plane) {
        log_warn("Bookings can't be shared with other frontends.",
                 {{"reason", plane.error().message}});
        return nullptr;
    }
    std::shared_ptr<ReplicaFront> made(new ReplicaFront(file_name(port), own_key, loop));
    made->plane_ = std::move(*plane);
    const std::string address = publisher_in_file(
        s.events_advertise.empty() ? made->plane_->endpoint().address : s.events_advertise);
    auto parsed = net::parse_socket_address(address);
    if (!parsed) return tl::unexpected(parsed.error());
    made->own_.address = std::move(*parsed);
    made->own_.labels[std::string(kPublisherLabel)] = "router";
    if (!own_key.empty()) made->own_.labels[std::string(kPublisherKeyLabel)] = own_key;
    made->places_.resize(sources.size());
    for (std::size_t i = 0; i < sources.size(); ++i) {
        if (sources[i].starts_with(kFolder)) {
            made->places_[i].folder = sources[i].substr(kFolder.size());
        }
        auto source = discovery::make_source(
            sources[i], loop,
            [weak = made->weak_from_this(), i](std::vector<discovery::Candidate> candidates) {
                if (const auto self = weak.lock()) self->on_candidates(i, std::move(candidates));
            },
            discovery::FileKind::kFrontend);
        if (!source) {
            made->stop();
            return tl::unexpected(source.error());
        }
        (void)loop.post(
            [made, i, source = std::move(*source)] { made->places_[i].source = source; });
    }
    return made;
}

/// Who is there, of all places; a folder that does not have us, gets us.
void ReplicaFront::on_candidates(std::size_t place, std::vector<discovery::Candidate> candidates) {
    if (!plane_) return;
    places_[place].candidates = std::move(candidates);
    if (!places_[place].folder.empty()) announce(places_[place]);
    std::map<net::SocketAddress, protocol::EventEndpoint> found;
    for (const Place& p : places_) {
        for (const discovery::Candidate& c : p.candidates) {
            if (c.address == own_.address) continue;
            found.emplace(c.address, publisher_of(c, own_key_));
        }
    }
    std::vector<protocol::EventEndpoint> peers;
    for (auto& [address, endpoint] : found) peers.push_back(std::move(endpoint));
    plane_->set_peers(std::move(peers));
}

void ReplicaFront::announce(Place& place) {
    if (std::ranges::find(place.candidates, own_.address, &discovery::Candidate::address) !=
        place.candidates.end()) {
        return;
    }
    // Two of one name, who take turns in replacing each other's file, end here.
    if (++place.written > kMostWritten) return;
    auto written =
        discovery::Announcement::write(place.folder, name_, own_, discovery::FileKind::kFrontend);
    if (written) {
        place.announcement = std::move(*written);
    } else if (!std::exchange(place.failed, true)) {
        log_warn("Other frontends can't find this one: its file can't be written.",
                 {{"folder", place.folder}, {"reason", written.error().message}});
    }
}

void ReplicaFront::stop() {
    auto done = std::make_shared<std::promise<void>>();
    const bool posted = loop_.post([self = shared_from_this(), done] {
        for (Place& p : self->places_) {
            if (p.source) p.source->stop();
            p.announcement.reset();
        }
        done->set_value();
    });
    if (posted) done->get_future().wait();
    if (plane_) plane_->stop();
}

}  // namespace stator::cli
