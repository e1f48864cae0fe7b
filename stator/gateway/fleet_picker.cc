#include "stator/gateway/fleet_picker.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>
#include <utility>

#include "stator/codec/json.h"
#include "stator/frontend/route_hints.h"
#include "stator/gateway/model_field.h"

namespace stator::gateway {
namespace {

constexpr std::uint32_t kMaxChoices = 128;
constexpr std::size_t kKeptDocumentBytes = 8 * 1024 * 1024;

/// The path's end says which API it is; gateways put their own before it.
std::optional<frontend::Api> api_of(std::string_view path) {
    path = path.substr(0, path.find('?'));
    if (path.ends_with("/chat/completions")) return frontend::Api::kChat;
    if (path.ends_with("/completions")) return frontend::Api::kCompletion;
    return std::nullopt;
}

/// The value of the first of two headers that there is.
std::string_view either(const std::vector<Header>& headers, std::string_view name,
                        std::string_view older) {
    const std::string_view value = header_of(headers, name);
    return value.empty() ? header_of(headers, older) : value;
}

bool in_subset(const std::vector<std::string>* subset, const std::string& endpoint) {
    return subset == nullptr || std::ranges::find(*subset, endpoint) != subset->end();
}

tl::unexpected<Error> nobody(bool has_subset) {
    return error(ErrorCode::kUnavailable, "{}",
                 has_subset ? "no endpoint among those that the gateway allows is ready"
                            : "no endpoint is ready");
}

/// A request that a router has booked.
class RouterBooking final : public Booking {
  public:
    RouterBooking(std::shared_ptr<routing::PoolRouter> router, routing::Route route, TimePoint at,
                  std::shared_ptr<const Endpoints> endpoints, protocol::GenerateRequest request)
        : router_(std::move(router)),
          route_(std::move(route)),
          at_(at),
          endpoints_(std::move(endpoints)),
          request_(std::move(request)) {}
    ~RouterBooking() override { end(); }
    RouterBooking(const RouterBooking&) = delete;
    RouterBooking& operator=(const RouterBooking&) = delete;

    /// The account goes to who has the request.
    void served_by(std::string_view endpoint) override {
        if (!route_) return;
        std::uint32_t rank = 0;
        const auto booked = router_->worker(route_->rank, rank);
        if (booked && endpoints_->of(*booked) == endpoint) return;
        end();
        for (const auto& worker : router_->workers()) {
            if (!worker || endpoints_->of(*worker) != endpoint) continue;
            auto hints = std::make_shared<protocol::RouteHints>();
            hints->worker = worker->info()->name;
            request_.hints = std::move(hints);
            if (auto route = router_->choose(request_, {})) route_ = std::move(*route);
            return;
        }
    }
    void first_token() override {
        if (route_ && !std::exchange(first_, true)) {
            router_->first_token(*route_, std::nullopt, at_);
        }
    }
    void cached_told(std::uint32_t tokens) override {
        // Of an answer at once it is not known when its prompt was computed, and from a wrong time
        // the router would learn a wrong speed.
        if (route_ && first_) router_->cached_told(*route_, tokens);
    }

  private:
    void end() {
        if (!route_) return;
        router_->ended(route_->booking);
        route_.reset();
    }

    const std::shared_ptr<routing::PoolRouter> router_;
    std::optional<routing::Route> route_;
    const TimePoint at_;
    const std::shared_ptr<const Endpoints> endpoints_;
    protocol::GenerateRequest request_;
    bool first_ = false;
};

}  // namespace

FleetPicker::FleetPicker(FleetPickerOptions options, Sources sources, metrics::Registry& registry,
                         const Clock& clock)
    : options_(std::move(options)),
      sources_(std::move(sources)),
      clock_(clock),
      pick_seconds_(
          registry.histogram("stator_gateway_pick_seconds",
                             "From a whole request to its endpoint: reading, template, "
                             "tokens, decision.",
                             {1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 0.01, 0.02, 0.05, 0.1})),
      by_prompt_(registry.counter("stator_gateway_picks_total", "Endpoints picked, by what.",
                                  {{"by", "prompt"}})),
      by_load_(registry.counter("stator_gateway_picks_total", "Endpoints picked, by what.",
                                {{"by", "load"}})),
      refused_(registry.counter("stator_gateway_refusals_total",
                                "Requests that the picker answered itself, with an error.")) {}

void FleetPicker::set_endpoints(std::shared_ptr<const Endpoints> endpoints) {
    const std::scoped_lock lock(mutex_);
    endpoints_ = std::move(endpoints);
}

std::shared_ptr<const Endpoints> FleetPicker::endpoints() const {
    const std::scoped_lock lock(mutex_);
    return endpoints_;
}

bool FleetPicker::ready() const {
    return !endpoints()->ready().empty() && !sources_.models()->entries().empty();
}

Result<Pick> FleetPicker::pick(const PickRequest& request) {
    const TimePoint begin = clock_.now();
    const auto api = api_of(header_of(request.headers, ":path"));
    Result<Pick> picked;
    if (!api || request.body.empty()) {
        picked = pick_by_load({}, request.subset);
    } else {
        std::optional<std::string> renamed;
        const std::string_view name =
            either(request.headers, "x-llm-d-model-name-rewrite", "x-gateway-model-name-rewrite");
        if (!name.empty()) renamed = with_model(request.body, name);
        const std::string_view body = renamed ? std::string_view(*renamed) : request.body;
        // Kept, as fresh memory costs more than reading: but for that of the longest bodies.
        static thread_local codec::JsonDocument document;
        std::shared_ptr<const frontend::ModelEntry> entry;
        auto prepared = frontend::prepare_request(*api, body, document, *sources_.models(),
                                                  kMaxChoices, clock_.unix_seconds(), &entry);
        if (document.capacity_bytes() > kKeptDocumentBytes) document.shrink();
        if (prepared) {
            picked = pick_for(request, body, std::move(*prepared));
        } else if (entry || prepared.error().code == ErrorCode::kInvalidArgument) {
            // Its pod may take what a frontend would not, and says else what is wrong.
            picked = pick_by_load(entry ? entry->model.pool : std::string(), request.subset);
        } else {
            picked = tl::unexpected(std::move(prepared.error()));
        }
        if (picked && renamed && !picked->body) picked->body = std::move(renamed);
        if (picked && !name.empty() && picked->body) {
            const auto root = document.parse(request.body);
            const auto asked = root ? root->find("model").as_string() : std::nullopt;
            if (picked->served_model.empty()) picked->served_model = name;
            picked->asked_model = asked.value_or(name);
        }
    }
    pick_seconds_.observe(to_seconds(clock_.now() - begin));
    if (!picked) refused_.add();
    return picked;
}

Result<protocol::GenerateRequest> FleetPicker::route_request(
    const PickRequest& request, frontend::PreparedRequest& prepared) const {
    net::HttpRequest http;
    http.headers.reserve(request.headers.size());
    for (const Header& h : request.headers) http.headers.push_back({h.name, h.value});
    auto hints = frontend::read_route_hints(http, prepared.fields.hints, options_.trust_hints);
    if (!hints) return tl::unexpected(std::move(hints.error()));
    protocol::GenerateRequest r;
    r.prompt = std::move(prepared.prompts.front().tokens);
    r.max_tokens = prepared.prompts.front().max_tokens;
    r.hints = std::move(hints->hints);
    r.priority = hints->priority;
    r.tenant = std::move(hints->tenant);
    r.cache_salt = hints->cache_salt;
    const auto objective = options_.objectives.find(
        either(request.headers, "x-llm-d-inference-objective", "x-gateway-inference-objective"));
    if (objective != options_.objectives.end()) r.priority = objective->second;
    if (r.tenant.empty()) {
        r.tenant = either(request.headers, "x-llm-d-inference-fairness-id",
                          "x-gateway-inference-fairness-id");
    }
    return r;
}

/// Ranks whose pods may not be picked.
std::vector<router::RankIndex> FleetPicker::excluded(const routing::PoolRouter& router,
                                                     const Endpoints& endpoints, Subset subset) {
    std::vector<router::RankIndex> out;
    if (subset == nullptr && endpoints.complete()) return out;
    const auto workers = router.workers();
    for (std::size_t rank = 0; rank < workers.size(); ++rank) {
        if (!workers[rank]) continue;
        const std::string& endpoint = endpoints.of(*workers[rank]);
        if (endpoint.empty() || !in_subset(subset, endpoint)) {
            out.push_back(static_cast<router::RankIndex>(rank));
        }
    }
    return out;
}

Result<Pick> FleetPicker::pick_for(const PickRequest& request, std::string_view body,
                                   frontend::PreparedRequest prepared) {
    const auto here = endpoints();
    const auto& entry = *prepared.entry;
    const auto router = sources_.router(entry.model.pool);
    if (!router) return nobody(false);
    // The router would take one whose every rank is left out for a full one.
    const bool somebody = std::ranges::any_of(here->ready(), [&](const Endpoints::Ready& r) {
        return r.pool == entry.model.pool && in_subset(request.subset, r.endpoint);
    });
    if (!somebody) return nobody(request.subset != nullptr);
    auto wanted = route_request(request, prepared);
    if (!wanted) return tl::unexpected(std::move(wanted.error()));
    const auto not_these = excluded(*router, *here, request.subset);
    const bool sheddable = wanted->priority < 0;
    const TimePoint now = clock_.now();
    auto route = router->choose(*wanted, not_these,
                                sheddable ? std::optional(options_.sheddable) : std::nullopt);
    if (!route) {
        if (route.error().code == ErrorCode::kUnavailable) {
            return nobody(request.subset != nullptr);
        }
        return tl::unexpected(std::move(route.error()));
    }
    if (route->booking.value == 0) {
        return error(ErrorCode::kOverloaded,
                     "every endpoint is busy, and the request's priority is below 0");
    }
    Pick out;
    std::vector<router::RankIndex> ranks{route->rank};
    ranks.insert(ranks.end(), route->fallbacks.begin(), route->fallbacks.end());
    for (const router::RankIndex rank : ranks) {
        if (out.endpoints.size() > options_.fallbacks) break;
        std::uint32_t of_worker = 0;
        const auto worker = router->worker(rank, of_worker);
        if (!worker) continue;
        const std::string& endpoint = here->of(*worker);
        if (endpoint.empty() || !in_subset(request.subset, endpoint)) continue;
        if (std::ranges::find(out.endpoints, endpoint) == out.endpoints.end()) {
            out.endpoints.push_back(endpoint);
        }
    }
    add_hints(*router, *route, out);
    out.booking =
        std::make_unique<RouterBooking>(router, std::move(*route), now, here, std::move(*wanted));
    // It went, or its worker came without an endpoint, between one look and the next.
    if (out.endpoints.empty()) return nobody(request.subset != nullptr);
    if (prepared.fields.model != entry.model.id) {
        out.body = with_model(body, entry.model.id);
        if (out.body) {
            out.asked_model = prepared.fields.model;
            out.served_model = entry.model.id;
        }
    }
    by_prompt_.add();
    return out;
}

void FleetPicker::add_hints(const routing::PoolRouter& router, const routing::Route& route,
                            Pick& pick) const {
    std::uint32_t rank = 0;
    const auto worker = router.worker(route.rank, rank);
    if (!worker) return;
    const auto info = worker->info();
    const std::string number = fmt::format("{}", rank);
    // vLLM's and SGLang's name for it: their pods have one port for all ranks.
    if (info->ranks.size() > 1) pick.set.push_back({"x-data-parallel-rank", number});
    if (options_.stator_hints) {
        pick.set.push_back({"x-stator-worker", info->name});
        pick.set.push_back({"x-stator-rank", number});
        pick.set.push_back({"x-stator-advice", "1"});
    }
    if (options_.dynamo_hints) {
        pick.set.push_back(
            {"x-dynamo-worker-instance-id", fmt::format("{}", info->incarnation.value)});
        pick.set.push_back({"x-dynamo-dp-rank", number});
        pick.set.push_back({"x-dynamo-routing-mode", "aggregated"});
    }
}

/// The least loaded of a pool, or of all: those in work and waiting, in turn where they are equal.
Result<Pick> FleetPicker::pick_by_load(std::string_view pool, Subset subset) {
    const auto here = endpoints();
    struct Candidate {
        std::uint64_t load = 0;
        std::size_t order = 0;
        const std::string* endpoint = nullptr;
    };
    std::vector<Candidate> candidates;
    const std::size_t n = here->ready().size();
    const std::size_t turn =
        n == 0 ? 0 : static_cast<std::size_t>(turn_.fetch_add(1, std::memory_order_relaxed) % n);
    for (std::size_t i = 0; i < n; ++i) {
        const Endpoints::Ready& r = here->ready()[i];
        if ((!pool.empty() && r.pool != pool) || !in_subset(subset, r.endpoint)) continue;
        Candidate c;
        const auto info = r.worker->info();
        for (const protocol::RankInfo& rank : info->ranks) {
            const auto load = r.worker->load(rank.rank);
            c.load += load.running + load.waiting;
        }
        c.order = (i + n - turn) % n;
        c.endpoint = &r.endpoint;
        candidates.push_back(c);
    }
    if (candidates.empty()) return nobody(subset != nullptr);
    const std::size_t some = std::min<std::size_t>(candidates.size(), 1 + options_.fallbacks);
    std::partial_sort(candidates.begin(), candidates.begin() + static_cast<std::ptrdiff_t>(some),
                      candidates.end(), [](const Candidate& a, const Candidate& b) {
                          return std::pair(a.load, a.order) < std::pair(b.load, b.order);
                      });
    Pick out;
    for (std::size_t i = 0; i < some; ++i) {
        const std::string& endpoint = *candidates[i].endpoint;
        if (std::ranges::find(out.endpoints, endpoint) == out.endpoints.end()) {
            out.endpoints.push_back(endpoint);
        }
    }
    by_load_.add();
    return out;
}

}  // namespace stator::gateway
