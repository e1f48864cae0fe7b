#include "stator/kube/endpoint_set.h"

#include <arpa/inet.h>
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <tuple>
#include <utility>

#include "stator/kube/status.h"

namespace stator::kube {
namespace {

constexpr std::size_t kMaxName = 300;  // of a pod, node, zone, uid or host
constexpr std::string_view kDefaultPortName = "stator";

std::string_view string_of(codec::JsonView v) { return v.as_string().value_or(""); }

std::string short_string_of(codec::JsonView v) {
    const std::string_view s = string_of(v);
    return s.size() <= kMaxName ? std::string(s) : std::string();
}

enum class Family : std::uint8_t { kV4, kV6, kName };

bool is_host_name(std::string_view text) {
    return !text.empty() && text.size() <= 253 && std::ranges::all_of(text, [](char c) {
        return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
               c == '-' || c == '.';
    });
}

bool is_address(std::string_view text, Family family) {
    if (family == Family::kName) return is_host_name(text);
    if (text.empty() || text.size() > INET6_ADDRSTRLEN || text.contains('\0')) return false;
    std::array<char, INET6_ADDRSTRLEN + 1> ended{};
    std::ranges::copy(text, ended.begin());
    std::array<unsigned char, sizeof(in6_addr)> bytes{};
    return ::inet_pton(family == Family::kV6 ? AF_INET6 : AF_INET, ended.data(), bytes.data()) == 1;
}

std::uint16_t port_number(codec::JsonView port) {
    const auto n = port.find("port").as_uint();
    return n && *n > 0 && *n <= 65'535 ? static_cast<std::uint16_t>(*n) : 0;
}

}  // namespace

/// 0 where none can be meant.
std::uint16_t EndpointSet::port_of(codec::JsonView slice) {
    if (port_.number != 0) return port_.number;
    const std::string_view wanted = port_.name.empty() ? kDefaultPortName : port_.name;
    std::uint16_t by_name = 0;
    std::uint16_t any = 0;
    std::size_t count = 0;
    std::string names;
    slice.find("ports").each_element([&](std::size_t i, codec::JsonView port) {
        ++count;
        any = port_number(port);
        const std::string_view name = string_of(port.find("name"));
        if (name == wanted) by_name = any;
        if (i < 8) names += fmt::format("{}'{}'", i == 0 ? "" : ", ", plain(name, 63));
        return by_name == 0;
    });
    if (by_name != 0) return by_name;
    if (port_.name.empty() && count == 1 && any != 0) return any;
    ++counts_.bad_slices;
    complaint_ = fmt::format(
        "the EndpointSlice '{}' has no port named '{}' (it has: {}); say which with ?port=",
        plain(string_of(slice.find("metadata").find("name")), 253), wanted,
        names.empty() ? "none" : names);
    return 0;
}

/// False where it has endpoints, but no port that could be meant.
bool EndpointSet::read(codec::JsonView slice, std::vector<Part>& out) {
    const std::string_view type = string_of(slice.find("addressType"));
    const Family family = type == "IPv6"   ? Family::kV6
                          : type == "FQDN" ? Family::kName
                                           : Family::kV4;
    const codec::JsonView endpoints = slice.find("endpoints");
    if (endpoints.size() == 0) return true;
    const std::uint16_t port = port_of(slice);
    if (port == 0) return false;
    out.reserve(endpoints.size());
    endpoints.each_element([&](std::size_t, codec::JsonView e) {
        std::string_view host;
        // The first alone: they are interchangeable, and a proxy takes the first too.
        e.find("addresses").each_element([&](std::size_t, codec::JsonView a) {
            host = string_of(a);
            return false;
        });
        if (!is_address(host, family)) {
            ++counts_.bad_endpoints;
            return true;
        }
        Part part;
        part.endpoint.address.host = host;
        part.endpoint.address.port = port;
        part.v6 = family == Family::kV6;
        const codec::JsonView conditions = e.find("conditions");
        // Nothing said is taken for yes, as the API has it.
        part.ready = conditions.find("ready").as_bool().value_or(true);
        part.terminating = conditions.find("terminating").as_bool().value_or(false);
        const codec::JsonView target = e.find("targetRef");
        const std::string_view uid = string_of(target.find("uid"));
        if (!uid.empty() && uid.size() <= kMaxName) {
            part.id = fmt::format("{}:{}", uid, port);
        } else {
            part.id = net::to_string(part.endpoint.address);
        }
        if (string_of(target.find("kind")) == "Pod") {
            part.endpoint.pod = short_string_of(target.find("name"));
        }
        part.endpoint.node = short_string_of(e.find("nodeName"));
        part.endpoint.zone = short_string_of(e.find("zone"));
        out.push_back(std::move(part));
        return true;
    });
    return true;
}

void EndpointSet::on_put(std::string_view key, codec::JsonView object) {
    std::vector<Part> parts;
    const bool usable = read(object, parts);
    std::ranges::sort(parts, {}, [](const Part& p) { return std::tie(p.id, p.endpoint.address); });
    // Twice in one slice: one.
    std::size_t kept = 0;
    for (std::size_t i = 0; i < parts.size(); ++i) {
        if (kept > 0 && parts[kept - 1].id == parts[i].id) {
            parts[kept - 1].ready |= parts[i].ready;
            parts[kept - 1].terminating |= parts[i].terminating;
        } else {
            if (kept != i) parts[kept] = std::move(parts[i]);
            ++kept;
        }
    }
    parts.resize(kept);
    Slice& slice = slices_.try_emplace(std::string(key)).first->second;
    if (slice.usable != usable) {
        slice.usable = usable;
        unusable_ += usable ? -1 : 1;
    }
    const std::size_t room = kMaxEndpoints - (parts_ - slice.parts.size());
    if (parts.size() > room) {
        counts_.left_out += parts.size() - room;
        parts.resize(room);
    }
    replace(slice, std::move(parts));
}

void EndpointSet::on_gone(std::string_view key) {
    const auto found = slices_.find(std::string(key));
    if (found == slices_.end()) return;
    replace(found->second, {});
    if (!found->second.usable) --unusable_;
    slices_.erase(found);
}

/// Both are sorted: one walk along them.
void EndpointSet::replace(Slice& slice, std::vector<Part> parts) {
    auto old = std::exchange(slice.parts, std::move(parts));
    parts_ += slice.parts.size();
    parts_ -= old.size();
    auto was = old.begin();
    auto is = slice.parts.begin();
    while (was != old.end() || is != slice.parts.end()) {
        if (is == slice.parts.end() || (was != old.end() && was->id < is->id)) {
            leave(was->id, &slice);
            ++was;
        } else if (was == old.end() || is->id < was->id) {
            join(is->id, &slice);
            ++is;
        } else {
            if (!(*was == *is)) dirty_.insert(is->id);
            ++was;
            ++is;
        }
    }
}

void EndpointSet::join(const std::string& id, const Slice* slice) {
    members_[id].in.push_back(slice);
    dirty_.insert(id);
}

void EndpointSet::leave(const std::string& id, const Slice* slice) {
    std::erase(members_[id].in, slice);
    dirty_.insert(id);
}

const EndpointSet::Part* EndpointSet::find(const Slice& slice, std::string_view id) {
    const auto found = std::ranges::lower_bound(slice.parts, id, {}, &Part::id);
    return found != slice.parts.end() && found->id == id ? &*found : nullptr;
}

/// What stands for it, or null where it is out.
const EndpointSet::Part* EndpointSet::best_of(const std::string& id, const Member& member) const {
    const Part* best = nullptr;
    for (const Slice* slice : member.in) {
        const Part* part = find(*slice, id);
        if (part == nullptr) continue;
        if (part->terminating) return nullptr;
        if (!part->ready) continue;
        if (best == nullptr || std::tie(part->v6, part->endpoint.address) <
                                   std::tie(best->v6, best->endpoint.address)) {
            best = part;
        }
    }
    return best;
}

void EndpointSet::settle(const std::string& id) {
    const auto found = members_.find(id);
    if (found == members_.end()) return;
    Member& member = found->second;
    const Part* best = best_of(id, member);
    if (member.told && (best == nullptr || best->endpoint.address != *member.told)) {
        --named_[*member.told].by;
        touched_.insert(*member.told);
        member.told.reset();
    }
    if (best != nullptr) {
        Named& named = named_[best->endpoint.address];
        if (!member.told) ++named.by;
        named.endpoint = best->endpoint;
        member.told = best->endpoint.address;
        touched_.insert(best->endpoint.address);
    }
    if (member.in.empty()) members_.erase(found);
}

EndpointSet::Changes EndpointSet::take_changes() {
    Changes changes;
    for (const std::string& id : dirty_) settle(id);
    dirty_.clear();
    for (const net::SocketAddress& address : touched_) {
        const auto found = named_.find(address);
        if (found == named_.end()) continue;
        Named& named = found->second;
        if (named.by == 0) {
            if (named.told) changes.gone.push_back(address);
            named_.erase(found);
        } else if (named.told != named.endpoint) {
            named.told = named.endpoint;
            changes.put.push_back(named.endpoint);
        }
    }
    touched_.clear();
    return changes;
}

}  // namespace stator::kube
