#include "stator/cli/fleet_front.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <random>
#include <utility>

#include "stator/base/log.h"
#include "stator/cli/curve_keys.h"
#include "stator/cli/text_file.h"
#include "stator/cli/transfer_setup.h"
#include "stator/cli/worker_processes.h"
#include "stator/config/suggest.h"
#include "stator/config/value.h"
#include "stator/discovery/source.h"
#include "stator/events/demand_payload.h"
#include "stator/frontend/pools/pool_roles.h"
#include "stator/model/artifacts.h"

namespace stator::cli {
namespace {

using Pair = std::pair<std::string, std::string>;

/// "a=b" to its two sides, neither empty.
Result<Pair> split_pair(std::string_view flag, std::string_view form, const std::string& text) {
    const auto equals = text.find('=');
    if (equals == std::string::npos || equals == 0 || equals + 1 == text.size()) {
        return error(ErrorCode::kInvalidArgument, "{} must be written {}, not {}.", flag, form,
                     config::in_quotes(text));
    }
    return Pair{text.substr(0, equals), text.substr(equals + 1)};
}

Result<std::vector<Pair>> read_aliases(const config::FleetSettings& s) {
    std::vector<Pair> out;
    for (const std::string& text : s.aliases) {
        auto pair = split_pair("--alias", "ALIAS=MODEL", text);
        if (!pair) return tl::unexpected(pair.error());
        out.push_back(std::move(*pair));
    }
    return out;
}

Result<frontend::ShareRules> read_shares(const config::FleetSettings& s) {
    frontend::ShareRules rules;
    rules.new_pool_percent = s.new_pool_share;
    for (const std::string& text : s.pool_shares) {
        auto pair = split_pair("--pool-share", "POOL=PERCENT", text);
        if (!pair) return tl::unexpected(pair.error());
        double percent = -1.0;
        const char* end = pair->second.data() + pair->second.size();
        const auto read = std::from_chars(pair->second.data(), end, percent);
        if (read.ec != std::errc{} || read.ptr != end || percent < 0.0 || percent > 100.0) {
            return error(ErrorCode::kInvalidArgument,
                         "--pool-share must give a percentage from 0 to 100, not {}.",
                         config::in_quotes(text));
        }
        rules.pool_percent[pair->first] = percent;
    }
    return rules;
}

std::string artifact_folder(const config::FleetSettings& s) {
    if (!s.artifact_folder.empty()) return s.artifact_folder;
    const auto variable = [](const char* name) {
        const char* value = std::getenv(name);
        return std::string(value == nullptr ? "" : value);
    };
    if (const std::string cache = variable("STATOR_CACHE"); !cache.empty())
        return cache + "/artifacts";
    if (const std::string cache = variable("XDG_CACHE_HOME"); !cache.empty())
        return cache + "/stator/artifacts";
    if (const std::string home = variable("HOME"); !home.empty())
        return home + "/.cache/stator/artifacts";
    return "";
}

frontend::SamplingDefaults sampling_of(const config::SamplingSettings& ours,
                                       const protocol::RecommendedSampling& cards) {
    const frontend::SamplingDefaults usual;
    const auto pick = [](const std::optional<double>& first, const std::optional<float>& second,
                         float otherwise) {
        return first ? static_cast<float>(*first) : second.value_or(otherwise);
    };
    frontend::SamplingDefaults d;
    d.temperature = pick(ours.temperature, cards.temperature, usual.temperature);
    d.top_p = pick(ours.top_p, cards.top_p, usual.top_p);
    d.min_p = pick(ours.min_p, cards.min_p, usual.min_p);
    d.top_k = ours.top_k.value_or(cards.top_k.value_or(usual.top_k));
    return d;
}

std::uint64_t random_number() {
    std::random_device device;
    return (std::uint64_t{device()} << 32U) | device();
}

Result<routing::PoolRouterOptions> router_options(const config::RouterSettings& s) {
    routing::PoolRouterOptions o;
    const auto policy = router::find_policy(s.policy);
    if (!policy) {
        std::vector<std::string_view> names;
        for (const router::Policy p : router::all_policies()) names.push_back(router::to_string(p));
        return error(ErrorCode::kInvalidArgument, "--router-policy is {}; it must be one of {}.{}",
                     config::in_quotes(s.policy), fmt::join(names, ", "),
                     config::did_you_mean(s.policy, names));
    }
    o.policy.policy = *policy;
    o.policy.work_weight = s.work_weight;
    o.policy.queue_weight = s.queue_weight;
    o.policy.itl_weight = s.itl_weight;
    o.policy.split_itl_weight = s.split_itl_weight;
    o.policy.occupancy_weight = s.occupancy_weight;
    o.policy.preference_s = s.preference_weight;
    o.policy.error_band = s.error_band;
    o.policy.overlap_weight = s.overlap_weight;
    o.policy.temperature = s.temperature;
    o.policy.prefix_blocks = s.prefix_blocks;
    const auto disaggregation = router::find_disaggregation(s.disaggregation);
    if (!disaggregation) {
        return error(ErrorCode::kInvalidArgument,
                     "--router-disaggregation is {}; it must be conditional, always or never.",
                     config::in_quotes(s.disaggregation));
    }
    o.policy.disaggregation = *disaggregation;
    o.policy.session_slack_s = to_seconds(s.session_slack);
    o.policy.session_ttl_s = to_seconds(s.session_ttl);
    if (auto ok = router::validate(o.policy); !ok) return tl::unexpected(ok.error());
    o.predict_ttl = s.predict_ttl;
    o.index.max_bytes = s.index_size.bytes;
    constexpr double kAll = 100;
    if (s.index_tenant_share < kAll) {
        o.index.max_predicted_per_tenant = std::max<std::size_t>(
            1, static_cast<std::size_t>(static_cast<double>(index::expected_capacity(o.index)) *
                                        s.index_tenant_share / kAll));
    }
    o.seed = random_number();
    return o;
}

Result<engine::PoolQueueOptions> queue_options(const config::RouterSettings& s) {
    engine::PoolQueueOptions o;
    o.most_requests = s.queue;
    o.most_per_tenant = s.queue_per_tenant;
    o.hold.queue_s = to_seconds(s.hold);
    o.promote_after_s = to_seconds(s.promote_after);
    for (const std::string& text : s.tenants) {
        auto pair = split_pair("--router-tenant", "NAME=WEIGHT", text);
        if (!pair) return tl::unexpected(pair.error());
        const auto weight = read_tenant_weight(pair->second);
        if (!weight) {
            return error(ErrorCode::kInvalidArgument,
                         "--router-tenant must give a weight from 0.001 to 1000, not {}.",
                         config::in_quotes(text));
        }
        o.weights.emplace_back(pair->first, *weight);
    }
    return o;
}

/// With the key file's weights; what the settings say counts for more.
engine::PoolQueueOptions with_weights(engine::PoolQueueOptions queue,
                                      const std::vector<std::pair<std::string, double>>& key_file) {
    queue.weights.insert(queue.weights.begin(), key_file.begin(), key_file.end());
    return queue;
}

/// The shared router that is asked; none where this process chooses alone.
Result<std::optional<routing::RemoteRouterOptions>> remote_options(
    const config::RouterSettings& s) {
    if (s.remote.empty()) return std::nullopt;
    auto url = net::parse_http_url(s.remote);
    if (!url) {
        return error(ErrorCode::kInvalidArgument, "--router-remote: {}", url.error().message);
    }
    routing::RemoteRouterOptions o;
    o.url = std::move(*url);
    o.timeout = s.remote_timeout;
    auto key = read_key_line("--router-remote-key-file", s.remote_key_file);
    if (!key) return tl::unexpected(key.error());
    o.key = *std::move(key);
    return o;
}

/// The receiver of the workers' KV events; none where it can't be had, which costs hits alone.
Result<std::shared_ptr<routing::KvFeed>> kv_feed(const config::Settings& settings) {
    if (!settings.router.kv_events) return nullptr;
    auto options = subscriber_options(settings);
    if (!options) return tl::unexpected(options.error());
    constexpr std::size_t kExpectedWorkers = 256;
    auto feed = routing::KvFeed::start(std::move(*options), kExpectedWorkers);
    if (feed) return std::move(*feed);
    log_warn("KV events can't be followed; prefixes are guessed.",
             {{"reason", feed.error().message}});
    return nullptr;
}

frontend::PoolModelsOptions models_options(const config::Settings& settings) {
    frontend::PoolModelsOptions o;
    o.aliases = read_aliases(settings.fleet).value_or(std::vector<Pair>{});
    o.shares = read_shares(settings.fleet).value_or(frontend::ShareRules{});
    o.max_migrations = settings.fleet.max_migrations;
    o.wait_for_worker = settings.fleet.wait_for_worker;
    o.defaults = [ours = settings.sampling](const protocol::RecommendedSampling& cards) {
        return sampling_of(ours, cards);
    };
    const std::string folder = artifact_folder(settings.fleet);
    const auto cache =
        std::make_shared<model::ArtifactCache>(folder, settings.fleet.artifact_size.bytes);
    o.find = [cache](const protocol::Artifact& a) { return cache->find(a); };
    o.keep = [cache](const protocol::Artifact& a, std::string_view bytes) {
        return cache->put(a, bytes);
    };
    o.load = [folder](const protocol::ModelCard& card, std::string_view tokenizer,
                      std::string_view chat_template) -> Result<frontend::PoolText> {
        auto text = model::load_text_model(card, tokenizer, chat_template, folder);
        if (!text) return tl::unexpected(text.error());
        return frontend::PoolText{std::move(text->tokenizer), std::move(text->chat_template)};
    };
    return o;
}

/// Makes and takes no handoffs: it only tells those who do.
Result<std::shared_ptr<transfer::TransferPlane>> releasing_plane(
    const config::Settings& settings, const std::shared_ptr<LinkSecurity>& security,
    metrics::Registry& registry) {
    config::Settings ours = settings;
    ours.transfer.methods = {"shm", "tcp"};
    ours.transfer.listen = "127.0.0.1:0";
    auto options = transfer_options(ours, {}, security);
    if (!options) return tl::unexpected(options.error());
    options->takes_only = true;
    auto plane = transfer::start_transfer(std::move(*options), registry);
    if (!plane) return tl::unexpected(plane.error());
    return std::shared_ptr<transfer::TransferPlane>(std::move(*plane));
}

}  // namespace

Result<events::SubscriberHostOptions> subscriber_options(const config::Settings& settings) {
    events::SubscriberHostOptions o;
    if (settings.worker.events_key_file.empty()) return o;
    auto keys = read_curve_keys(settings.worker.events_key_file);
    if (!keys) return tl::unexpected(keys.error());
    o.curve = std::move(*keys);
    return o;
}

Result<void> check_router_settings(const config::RouterSettings& settings) {
    if (const auto options = router_options(settings); !options) {
        return tl::unexpected(options.error());
    }
    if (auto ok = queue_options(settings); !ok) return tl::unexpected(ok.error());
    for (const std::string& source : settings.peers) {
        if (auto ok = discovery::check_source(source); !ok) return ok;
    }
    if (auto remote = remote_options(settings); !remote) return tl::unexpected(remote.error());
    if (!trust_of(settings.hints)) {
        return error(ErrorCode::kInvalidArgument,
                     "--router-hints is {}; it must be nobody, local or everybody",
                     config::in_quotes(settings.hints));
    }
    return {};
}

std::optional<frontend::TrustHints> trust_of(std::string_view hints) {
    if (hints == "nobody") return frontend::TrustHints::kNobody;
    if (hints == "local") return frontend::TrustHints::kLocal;
    if (hints == "everybody") return frontend::TrustHints::kEverybody;
    return std::nullopt;
}

Result<void> check_fleet_settings(const config::FleetSettings& settings) {
    for (const std::string& source : settings.discover) {
        if (auto ok = discovery::check_source(source); !ok) return ok;
    }
    if (auto ok = read_aliases(settings); !ok) return tl::unexpected(ok.error());
    if (auto ok = read_shares(settings); !ok) return tl::unexpected(ok.error());
    return {};
}

kube::AccessOptions kube_access_of(const config::KubeSettings& settings) {
    return {.api = settings.api, .token_file = settings.token_file, .ca_file = settings.ca_file};
}

Result<fleet::FleetOptions> fleet_options_of(const config::Settings& settings,
                                             std::vector<std::string> sources,
                                             const std::shared_ptr<LinkSecurity>& security,
                                             std::string_view role) {
    fleet::FleetOptions o;
    o.sources = std::move(sources);
    o.sources.insert(o.sources.end(), settings.fleet.discover.begin(),
                     settings.fleet.discover.end());
    if (o.sources.empty() && settings.fleet.upstreams.empty()) {
        auto folder = run_time_folder();
        if (!folder) return tl::unexpected(folder.error());
        o.sources.push_back("dir:" + *folder);
    }
    o.kube = kube_access_of(settings.kube);
    o.link.name = fmt::format("{}-{}", role, ::getpid());
    o.link.incarnation = protocol::Incarnation(random_number());
    o.link.silent_after = settings.link.silent_after;
    o.link.lost_after = settings.link.lost_after;
    o.secret = [security] { return security->secret(); };
    o.tls = [security] { return security->tls(); };
    o.canary_after = settings.fleet.canary_after;
    o.canary_within = settings.fleet.canary_within;
    o.random_seed = random_number();
    return o;
}

Result<std::unique_ptr<FleetFront>> FleetFront::start(
    const config::Settings& settings, std::vector<std::string> sources,
    std::shared_ptr<LinkSecurity> security, HttpDoor& door, metrics::Registry& registry,
    std::function<void(const protocol::ModelCard&)> served) {
    auto options_of_fleet = fleet_options_of(settings, std::move(sources), security, "frontend");
    if (!options_of_fleet) return tl::unexpected(options_of_fleet.error());
    auto routing = router_options(settings.router);
    if (!routing) return tl::unexpected(routing.error());
    auto remote = remote_options(settings.router);
    if (!remote) return tl::unexpected(remote.error());
    auto feed = kv_feed(settings);
    if (!feed) return tl::unexpected(feed.error());
    auto replicas = ReplicaFront::start(settings, door.port(), options_of_fleet->link.incarnation,
                                        door.loops().at(0), registry);
    if (!replicas) return tl::unexpected(replicas.error());
    auto transfer = releasing_plane(settings, security, registry);
    if (!transfer) return tl::unexpected(transfer.error());
    auto fleet = fleet::start_fleet(std::move(*options_of_fleet), door.loops(), registry);
    if (!fleet) {
        if (*replicas) (*replicas)->stop();
        return tl::unexpected(fleet.error());
    }
    std::unique_ptr<FleetFront> made(new FleetFront);
    made->replicas_ = std::move(*replicas);
    made->fleet_ = std::move(*fleet);
    frontend::PoolModelsOptions options = models_options(settings);
    options.served = std::move(served);
    made->transfer_ = std::move(*transfer);
    options.release = [plane = made->transfer_](std::shared_ptr<const protocol::Handoff> what) {
        plane->release(std::move(what));
    };
    options.router = std::move(*routing);
    options.feed = std::move(*feed);
    auto queue = queue_options(settings.router);
    if (!queue) return tl::unexpected(queue.error());
    made->key_weights_ = door.tenant_weights();
    options.queue = with_weights(std::move(*queue), made->key_weights_);
    if (made->replicas_) {
        options.replicas = made->replicas_->plane();
        options.replicas->tell("demand", [&frontend = door.frontend()] {
            return events::encode_demand(frontend.demand());
        });
    }
    if (remote->has_value()) {
        made->shared_router_ =
            std::make_shared<routing::RemoteRouter>(**std::move(remote), door.loops(), registry);
        options.shared_router = made->shared_router_;
    }
    made->models_ = std::make_unique<frontend::PoolModels>(std::move(options), *made->fleet_,
                                                           door.frontend(), door.loops(), registry);
    made->router_api_ = std::make_unique<frontend::RouterApi>(
        [models = made->models_.get()] { return models->routers(); }, Clock::real());
    door.frontend().observe_router(
        [models = made->models_.get()](codec::JsonWriter& w) {
            frontend::append_routers_json(w, models->routers());
        },
        [api = made->router_api_.get()](std::string_view action, std::string_view body,
                                        bool trusted) { return api->act(action, body, trusted); });
    door.frontend().observe_fleet(
        [&fleet = *made->fleet_, models = made->models_.get()](codec::JsonWriter& w) {
            frontend::append_fleet_json(w, *fleet.view(), models->routers());
        },
        [&fleet = *made->fleet_, models = made->models_.get()] {
            const auto view = fleet.view();
            std::vector<std::string> concerns = frontend::pools_without_answer(*view);
            for (const auto& [source, reason] : view->failing_sources) {
                if (!source.starts_with("kubernetes:")) continue;
                concerns.push_back(fmt::format(
                    "The workers known last are used as they were: {} fails: {}", source, reason));
            }
            for (const auto& served : models->routers()) {
                for (std::string& concern : served.router->concerns()) {
                    concerns.push_back(std::move(concern));
                }
            }
            return concerns;
        });
    return made;
}

Result<void> FleetFront::set_router(const config::RouterSettings& settings) {
    const auto options = router_options(settings);
    if (!options) return tl::unexpected(options.error());
    auto queue = queue_options(settings);
    if (!queue) return tl::unexpected(queue.error());
    if (auto set = models_->set_policy(options->policy); !set) return set;
    models_->set_queue(with_weights(std::move(*queue), key_weights_));
    return {};
}

double FleetFront::queued() const {
    double waiting = 0;
    for (const auto& served : models_->routers()) {
        const auto state = served.router->state();
        if (!state.queue) continue;
        for (const std::size_t n : state.queue->waiting) waiting += static_cast<double>(n);
    }
    return waiting;
}

std::shared_ptr<routing::PoolRouter> FleetFront::router_of(std::string_view pool) const {
    for (auto& served : models_->routers()) {
        if (served.pool == pool) return std::move(served.router);
    }
    return nullptr;
}

void FleetFront::stop(Deadline deadline) {
    models_->stop(deadline);
    transfer_->stop();
    if (replicas_) replicas_->stop();
    if (shared_router_) shared_router_->stop();
    fleet_->stop();
}

}  // namespace stator::cli
