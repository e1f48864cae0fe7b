#include "stator/cli/planner_front.h"

#include <utility>

#include "stator/base/log.h"
#include "stator/cli/planner_setup.h"
#include "stator/control/planner/supervisor_actuator.h"
#include "stator/runtime/loop.h"

namespace stator::cli {
namespace {

constexpr std::size_t kExpectedWorkers = 256;
/// This process's own frontend, among those that tell what they are asked for.
constexpr std::uint64_t kOwnFrontend = ~std::uint64_t{0};

}  // namespace

void PlannerWindow::show(std::shared_ptr<const control::PlannerService> service) {
    const std::lock_guard lock(mutex_);
    service_.swap(service);
}

std::shared_ptr<const control::PlannerService> PlannerWindow::service() const {
    const std::lock_guard lock(mutex_);
    return service_;
}

Result<std::string> PlannerWindow::ask(std::string_view target) const {
    if (const auto s = service()) return s->show(target);
    return error(ErrorCode::kUnavailable, "the planner is not running yet");
}

std::vector<std::string> PlannerWindow::concerns() const {
    const auto s = service();
    return s ? s->concerns() : std::vector<std::string>{};
}

Result<planner::PlannerOptions> PlannerFront::check(const config::Settings& settings,
                                                    const std::vector<WorkerKind>& kinds) {
    auto options = planner_options(settings.planner);
    if (!options) return options;
    config::Settings ours = settings;
    std::vector<WorkerKind> known = kinds;
    if (options->advisory) {
        // Nothing is started: how it would be does not matter.
        ours.worker.count = 1;
        for (WorkerKind& kind : known) kind.attached = false;
    }
    auto roles = managed_roles(known, ours, runtime::usable_cores());
    if (!roles) return tl::unexpected(roles.error());
    if (roles->empty()) {
        return error(ErrorCode::kInvalidArgument,
                     "--planner needs worker processes to size: --workers N, or --topology FILE.");
    }
    options->roles = std::move(*roles);
    if (auto ok = planner::Planner::make(*options); !ok) return tl::unexpected(ok.error());
    if (auto ok = scrape_targets(settings.planner); !ok) return tl::unexpected(ok.error());
    return options;
}

Result<std::unique_ptr<PlannerFront>> PlannerFront::start(
    planner::PlannerOptions options, const config::Settings& settings,
    const WorkerCommands& commands, control::Supervisor& supervisor, FleetFront& front,
    HttpDoor& door, PlannerWindow& window, metrics::Registry& registry) {
    auto host_options = subscriber_options(settings);
    if (!host_options) return tl::unexpected(host_options.error());
    auto host = events::start_subscribers(std::move(*host_options), kExpectedWorkers);
    if (!host) {
        log_warn("What workers' forward passes do can't be followed; the planner learns less.",
                 {{"reason", host.error().message}});
    }
    auto targets = scrape_targets(settings.planner);
    if (!targets) return tl::unexpected(targets.error());

    std::unique_ptr<PlannerFront> made(new PlannerFront);
    made->window_ = &window;
    made->watch_ =
        std::make_unique<control::FleetWatch>(host ? std::move(*host) : nullptr, Clock::real());
    std::vector<control::WorkerGroup> groups;
    for (std::size_t kind = 0; kind < commands.kinds().size(); ++kind) {
        const WorkerKind& k = commands.kinds()[kind];
        for (const planner::RoleOptions& role : options.roles) {
            if (k.roles.empty() || to_string(role.role) != k.roles.front()) continue;
            groups.push_back(
                {.role = role.role, .name = k.name, .child = [&commands, kind](std::uint32_t i) {
                     return commands.child(kind, i);
                 }});
        }
    }
    control::PlannerServiceOptions o;
    std::shared_ptr<control::Actuator> actuator;
    if (!options.advisory) {
        actuator = std::make_shared<control::SupervisorActuator>(supervisor, std::move(groups));
    }
    o.planner = std::move(options);
    o.model = settings.planner.model;
    o.lease_file = settings.planner.lease;
    o.view = [&front] { return front.fleet().view(); };
    o.queued = [&front] { return front.queued(); };
    o.ask_demand.push_back([&door](control::DemandFeed& feed, TimePoint now) {
        feed.tell(kOwnFrontend, door.frontend().demand(), now, true);
    });
    if (!targets->empty()) {
        made->scrape_ = std::make_unique<control::DemandScrape>(std::move(*targets));
        o.ask_demand.push_back(
            [scrape = made->scrape_.get()](control::DemandFeed& feed, TimePoint now) {
                scrape->ask(feed, now);
            });
    }
    auto service = control::PlannerService::start(std::move(o), *made->watch_, made->feed_,
                                                  std::move(actuator), registry);
    if (!service) return tl::unexpected(service.error());
    made->service_ = std::move(*service);
    window.show(made->service_);
    return made;
}

PlannerFront::~PlannerFront() { stop(); }

void PlannerFront::stop() {
    if (window_ != nullptr) window_->show(nullptr);
    if (service_) service_->stop();
}

}  // namespace stator::cli
