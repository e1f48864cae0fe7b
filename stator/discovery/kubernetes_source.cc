#include <fmt/format.h>
#include <algorithm>
#include <boost/asio/steady_timer.hpp>
#include <charconv>
#include <random>
#include <utility>

#include "stator/base/log.h"
#include "stator/discovery/sources.h"
#include "stator/kube/watcher.h"
#include "stator/runtime/asio.h"

namespace stator::discovery {
namespace {

constexpr std::size_t kMaxSelector = 1024;
constexpr std::chrono::seconds kLookForFilesAgain{5};

bool is_dns_label(std::string_view text, std::size_t most) {
    return !text.empty() && text.size() <= most && text.front() != '-' && text.back() != '-' &&
           std::ranges::all_of(text, [](char c) {
               return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-';
           });
}

tl::unexpected<Error> wrong(std::string_view what) {
    return error(ErrorCode::kInvalidArgument, "{}", what);
}

Result<kube::PortChoice> parse_port(std::string_view text) {
    kube::PortChoice port;
    const bool digits =
        !text.empty() && std::ranges::all_of(text, [](char c) { return c >= '0' && c <= '9'; });
    if (digits) {
        const auto [end, ec] = std::from_chars(text.begin(), text.end(), port.number);
        if (ec != std::errc{} || port.number == 0) return wrong("its port is not 1 to 65535");
        return port;
    }
    if (!is_dns_label(text, 15)) {
        return wrong("its port is neither a number nor a port's name (at most 15 of a-z, 0-9, -)");
    }
    port.name = text;
    return port;
}

/// The ready endpoints of EndpointSlices, as they change.
class KubernetesSource final : public SourceBase {
  public:
    KubernetesSource(std::string name, KubernetesSelection selection, kube::Access access,
                     runtime::Loop& loop, Changes changes)
        : SourceBase(std::move(name), loop, std::move(changes)),
          selection_(std::move(selection)),
          access_(std::move(access)),
          set_(selection_.port),
          timer_(runtime::asio_context(loop)) {}

    void start() override {
        if (stopped()) return;
        auto client = kube::Client::create(loop_, access_, Clock::real());
        if (!client) {
            // A file that is not there yet may still come.
            failed(client.error().message);
            timer_.expires_after(kLookForFilesAgain);
            timer_.async_wait([weak = weak_from_this()](const boost::system::error_code& ec) {
                const auto self = weak.lock();
                if (!ec && self) std::static_pointer_cast<KubernetesSource>(self)->start();
            });
            return;
        }
        client_ = *std::move(client);
        kube::ReflectorOptions options;
        options.collection = fmt::format(
            "/apis/discovery.k8s.io/v1/namespaces/{}/endpointslices",
            selection_.in_namespace == "." ? access_.own_namespace : selection_.in_namespace);
        options.label_selector = selection_.selector;
        options.random_seed = std::random_device{}();
        watcher_ = kube::make_watcher(client_, std::move(options), set_, [weak = weak_from_this()] {
            if (const auto self = weak.lock()) {
                std::static_pointer_cast<KubernetesSource>(self)->turn();
            }
        });
        watcher_->start();
    }

  private:
    void turn() {
        const std::string& trouble = watcher_->reflector().trouble();
        if (!trouble.empty()) {
            failed(trouble);
        } else if (!set_.complaint().empty()) {
            failed(std::string(set_.complaint()));
        } else if (set_.listed()) {
            succeeded();
        }
        // A first list that is not whole yet would look like a small fleet.
        if (!set_.listed()) return;
        auto changes = set_.take_changes();
        Difference difference;
        difference.gone = std::move(changes.gone);
        difference.put.reserve(changes.put.size());
        for (auto& e : changes.put) {
            Candidate c{std::move(e.address), {}};
            if (!e.pod.empty()) c.labels.emplace("pod", std::move(e.pod));
            if (!e.node.empty()) c.labels.emplace("node", std::move(e.node));
            if (!e.zone.empty()) c.labels.emplace("zone", std::move(e.zone));
            difference.put.push_back(std::move(c));
        }
        tell(std::move(difference));
    }

    void on_stop() override {
        timer_.cancel();
        if (watcher_) watcher_->stop();
        if (client_) client_->stop();
    }

    const KubernetesSelection selection_;
    const kube::Access access_;
    kube::EndpointSet set_;
    boost::asio::steady_timer timer_;
    std::shared_ptr<kube::Client> client_;
    std::shared_ptr<kube::Watcher> watcher_;  ///< stopped before set_ goes
};

}  // namespace

Result<KubernetesSelection> parse_kubernetes(std::string_view text) {
    KubernetesSelection out;
    if (const auto question = text.rfind('?'); question != std::string_view::npos) {
        const std::string_view option = text.substr(question + 1);
        if (!option.starts_with("port=")) return wrong("behind its '?' only port= may stand");
        auto port = parse_port(option.substr(5));
        if (!port) return tl::unexpected(std::move(port.error()));
        out.port = *std::move(port);
        text = text.substr(0, question);
    }
    const auto slash = text.find('/');
    if (slash == std::string_view::npos) {
        return wrong(
            "it has no '/' between namespace and selector; '.' stands for the pod's own namespace");
    }
    out.in_namespace = text.substr(0, slash);
    const std::string_view selector = text.substr(slash + 1);
    if (out.in_namespace != "." && !is_dns_label(out.in_namespace, 63)) {
        return wrong("its namespace is no name: at most 63 of a-z, 0-9 and -, or '.'");
    }
    if (selector.empty() || selector.size() > kMaxSelector ||
        !std::ranges::all_of(selector, [](char c) { return c >= ' ' && c < 0x7f; })) {
        return wrong("it has no Service's name or label selector behind the '/'");
    }
    if (selector.find_first_of("=!,&() ") == std::string_view::npos) {
        if (!is_dns_label(selector, 63))
            return wrong("what it has behind the '/' is no Service's name");
        out.selector = fmt::format("kubernetes.io/service-name={}", selector);
    } else {
        out.selector = selector;
        // On a command line a comma ends one source and begins the next.
        std::ranges::replace(out.selector, '&', ',');
    }
    return out;
}

std::shared_ptr<SourceBase> make_kubernetes_source(std::string name, KubernetesSelection selection,
                                                   kube::Access access, runtime::Loop& loop,
                                                   Source::Changes changes) {
    return std::make_shared<KubernetesSource>(std::move(name), std::move(selection),
                                              std::move(access), loop, std::move(changes));
}

}  // namespace stator::discovery
