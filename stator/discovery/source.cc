#include "stator/discovery/source.h"

#include <algorithm>
#include <tuple>
#include <utility>

#include "stator/base/log.h"
#include "stator/discovery/sources.h"

namespace stator::discovery {
namespace {

constexpr std::chrono::seconds kAskAgain{5};
constexpr std::size_t kMaxText = 1024 * 1024;
constexpr std::string_view kForms =
    R"(a source is an address ("tcp://host:port", "host:port", "unix:/path"), "static:A,B,C", )"
    R"("dir:/path", "dns:name:port" or "kubernetes:namespace/service?port=name")";

struct Parsed {
    enum class Kind : std::uint8_t { kStatic, kDirectory, kDns, kKubernetes };
    Kind kind = Kind::kStatic;
    std::vector<net::SocketAddress> addresses;  ///< DNS: one, whose host is the name
    std::string folder;
    KubernetesSelection selection;
};

tl::unexpected<Error> bad(const std::string& text, std::string_view what) {
    return error(ErrorCode::kInvalidArgument, "'{}' is no source: {}; {}", text.substr(0, 128),
                 what, kForms);
}

Result<Parsed> parse_list(const std::string& text, std::string_view list) {
    Parsed parsed;
    while (true) {
        const std::size_t comma = std::min(list.find(','), list.size());
        auto address = net::parse_socket_address(list.substr(0, comma));
        if (!address) return bad(text, address.error().message);
        if (parsed.addresses.size() == kMaxCandidates)
            return bad(text, "it has too many addresses");
        parsed.addresses.push_back(*std::move(address));
        if (comma == list.size()) return parsed;
        list.remove_prefix(comma + 1);
    }
}

Result<Parsed> parse_source(const std::string& text) {
    const std::string_view view = text;
    if (text.size() > kMaxText) return bad(text, "it is too long");
    if (view.starts_with("static:")) return parse_list(text, view.substr(7));
    Parsed parsed;
    if (view.starts_with("dir:")) {
        parsed.kind = Parsed::Kind::kDirectory;
        parsed.folder = view.substr(4);
        if (!parsed.folder.starts_with('/')) return bad(text, "the folder must begin with /");
        if (parsed.folder.contains('\0')) return bad(text, "the folder has a zero byte");
        return parsed;
    }
    if (view.starts_with("kubernetes:")) {
        parsed.kind = Parsed::Kind::kKubernetes;
        auto selection = parse_kubernetes(view.substr(11));
        if (!selection) return bad(text, selection.error().message);
        parsed.selection = *std::move(selection);
        return parsed;
    }
    const bool dns = view.starts_with("dns:");
    auto address = net::parse_socket_address(dns ? view.substr(4) : view);
    if (!address) return bad(text, address.error().message);
    if (dns) {
        parsed.kind = Parsed::Kind::kDns;
        if (address->kind != net::SocketAddress::Kind::kTcp) return bad(text, "it needs a name");
        if (address->port == 0) return bad(text, "port 0 can't be connected to");
    }
    parsed.addresses.push_back(*std::move(address));
    return parsed;
}

class StaticSource final : public SourceBase {
  public:
    StaticSource(std::string name, std::vector<net::SocketAddress> addresses, runtime::Loop& loop,
                 Changes changes)
        : SourceBase(std::move(name), loop, std::move(changes)), addresses_(std::move(addresses)) {}

    void start() override {
        std::vector<Candidate> candidates;
        for (const auto& address : addresses_) candidates.push_back({address, {}});
        tell(std::move(candidates));
    }

  private:
    void on_stop() override {}
    std::vector<net::SocketAddress> addresses_;
};

}  // namespace

bool SourceBase::healthy(std::string& reason) const {
    const std::scoped_lock lock(mutex_);
    reason = reason_;
    return reason_.empty();
}

void SourceBase::stop() {
    if (std::exchange(stopped_, true)) return;
    on_stop();
}

void SourceBase::tell(std::vector<Candidate> candidates) {
    if (stopped_) return;
    std::ranges::sort(candidates, {},
                      [](const Candidate& c) { return std::tie(c.address, c.labels); });
    // One address is one candidate, however many names it is known by.
    const auto same = std::ranges::unique(candidates, {}, &Candidate::address);
    candidates.erase(same.begin(), same.end());
    if (candidates.size() > kMaxCandidates) {
        if (!std::exchange(said_too_many_, true)) {
            log_warn("A discovery source has more candidates than are taken; the rest is left out.",
                     {{"source", name_}, {"found", candidates.size()}, {"taken", kMaxCandidates}});
        }
        candidates.resize(kMaxCandidates);
    }
    Difference difference;
    auto was = last_.begin();
    auto is = candidates.begin();
    while (was != last_.end() || is != candidates.end()) {
        if (is == candidates.end() || (was != last_.end() && was->address < is->address)) {
            difference.gone.push_back((was++)->address);
        } else if (was == last_.end() || is->address < was->address) {
            difference.put.push_back(*is++);
        } else {
            if (was->labels != is->labels) difference.put.push_back(*is);
            ++was;
            ++is;
        }
    }
    last_ = std::move(candidates);
    tell(std::move(difference));
}

void SourceBase::tell(Difference difference) {
    if (stopped_) return;
    if (std::exchange(told_, true) && difference.put.empty() && difference.gone.empty()) return;
    changes_(std::move(difference));
}

void SourceBase::succeeded() {
    bool was_bad = false;
    {
        const std::scoped_lock lock(mutex_);
        was_bad = !reason_.empty();
        reason_.clear();
    }
    if (was_bad) log_info("A discovery source works again.", {{"source", name_}});
}

void SourceBase::failed(const std::string& reason) {
    bool was_good = false;
    {
        const std::scoped_lock lock(mutex_);
        was_good = reason_.empty();
        reason_ = reason;
    }
    if (was_good) {
        log_warn("A discovery source fails; what it knew last is kept.",
                 {{"source", name_}, {"reason", reason}});
    }
}

std::shared_ptr<SourceBase> make_static_source(std::string name,
                                               std::vector<net::SocketAddress> addresses,
                                               runtime::Loop& loop, Source::Changes changes) {
    return std::make_shared<StaticSource>(std::move(name), std::move(addresses), loop,
                                          std::move(changes));
}

Source::Changes whole_sets(Source::Changed changed) {
    auto set = std::make_shared<std::map<net::SocketAddress, std::map<std::string, std::string>>>();
    return [set, changed = std::move(changed)](Difference difference) {
        for (const auto& address : difference.gone) set->erase(address);
        for (auto& c : difference.put) set->insert_or_assign(c.address, std::move(c.labels));
        std::vector<Candidate> whole;
        whole.reserve(set->size());
        for (const auto& [address, labels] : *set) whole.push_back({address, labels});
        changed(std::move(whole));
    };
}

Result<void> check_source(const std::string& text) {
    const auto parsed = parse_source(text);
    if (!parsed) return tl::unexpected<Error>(parsed.error());
    return {};
}

Result<std::shared_ptr<Source>> make_source(const std::string& text, runtime::Loop& loop,
                                            Source::Changes changes, const SourceOptions& options) {
    auto parsed = parse_source(text);
    if (!parsed) return tl::unexpected<Error>(std::move(parsed.error()));
    std::shared_ptr<SourceBase> source;
    switch (parsed->kind) {
        case Parsed::Kind::kStatic:
            source =
                make_static_source(text, std::move(parsed->addresses), loop, std::move(changes));
            break;
        case Parsed::Kind::kDirectory:
            source = make_directory_source(std::move(parsed->folder), options.of, loop,
                                           std::move(changes));
            break;
        case Parsed::Kind::kDns:
            source = make_dns_source(parsed->addresses[0].host, parsed->addresses[0].port,
                                     kAskAgain, system_resolver(loop), loop, std::move(changes));
            break;
        case Parsed::Kind::kKubernetes: {
            auto access = kube::find_access(options.kube);
            if (!access) {
                return error(ErrorCode::kInvalidArgument, "the source '{}' can't be used: {}",
                             text.substr(0, 128), access.error().message);
            }
            source = make_kubernetes_source(text, std::move(parsed->selection), *std::move(access),
                                            loop, std::move(changes));
            break;
        }
    }
    if (!loop.post([source] { source->start(); })) {
        return error(ErrorCode::kUnavailable, "the source '{}' can't start: its loop has ended",
                     text.substr(0, 128));
    }
    return source;
}

Result<std::shared_ptr<Source>> make_source(const std::string& text, runtime::Loop& loop,
                                            Source::Changed changed, const SourceOptions& options) {
    return make_source(text, loop, whole_sets(std::move(changed)), options);
}

}  // namespace stator::discovery
