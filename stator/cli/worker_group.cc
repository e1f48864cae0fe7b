#include "stator/cli/worker_group.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "stator/base/clock.h"
#include "stator/base/log.h"
#include "stator/cli/attached_metrics.h"
#include "stator/cli/kv_event_metrics.h"
#include "stator/cli/mock_model.h"
#include "stator/cli/transfer_setup.h"
#include "stator/cli/worker_model.h"

namespace stator::cli {
namespace {

/// For the last batches of all publishers of a process together.
constexpr std::size_t kRingBytes = 512UL * 1024 * 1024;
constexpr std::size_t kLeastRingBytes = 256UL * 1024;

Result<worker::WorkerServices> services_of(const std::vector<worker::WorkerOptions>& options) {
    const worker::WorkerOptions& first = options.front();
    if (first.events_address.empty()) return worker::start_worker_services(std::nullopt);
    events::PublisherHostOptions events = first.events;
    events.ring_bytes = std::clamp(kRingBytes / options.size(), kLeastRingBytes, events.ring_bytes);
    return worker::start_worker_services(std::move(events));
}

}  // namespace

WorkerGroup::WorkerGroup(const config::Settings& settings, runtime::LoopPool& loops,
                         metrics::Registry& registry)
    : settings_(settings), loops_(loops), registry_(registry) {}

WorkerGroup::~WorkerGroup() { stop(); }

void WorkerGroup::attach(FoundAttached attached,
                         std::function<void(const std::string& why)> on_changed) {
    attached.options.on_changed = std::move(on_changed);
    // On the engine's thread: the worker may not be ready yet.
    attached.options.on_usable = [this](bool usable) {
        const std::scoped_lock lock(attached_mutex_);
        available_ = usable;
        if (ready_) members_.front().worker->set_available(usable);
    };
    found_ = std::move(attached);
}

std::vector<std::string> WorkerGroup::concerns() const {
    std::shared_ptr<engine::AttachedEngine> attached;
    {
        const std::scoped_lock lock(attached_mutex_);
        attached = attached_;
    }
    return attached ? attached->concerns() : std::vector<std::string>{};
}

Result<void> WorkerGroup::start(std::vector<worker::WorkerOptions> options,
                                const std::shared_ptr<LinkSecurity>& security) {
    if (options.size() > 1 && settings_.engine.kind != config::EngineKind::kMock) {
        return error(ErrorCode::kInvalidArgument,
                     "--count is for mock engines; others have a process each: stator serve "
                     "--workers {}.",
                     options.size());
    }
    if (const Handoffs handoffs = handoffs_of(settings_); handoffs != Handoffs::kNone) {
        auto how = transfer_options(settings_, options.front().listen, security);
        if (!how) return tl::unexpected(how.error());
        how->takes_only = handoffs == Handoffs::kTaken;
        auto plane = transfer::start_transfer(std::move(*how), registry_);
        if (!plane) return tl::unexpected(plane.error());
        transfer_ = std::move(*plane);
        for (const auto& [method, why] : transfer_->why_off()) {
            log_info("Handoffs do not travel this way.", {{"method", method}, {"reason", why}});
        }
    }
    auto services = services_of(options);
    if (!services) return tl::unexpected(services.error());
    services_ = std::move(*services);
    ranks_ = options.front().ranks;
    if (options.size() > 1) {
        undertaker_ = std::make_unique<runtime::CpuPool>(1, options.size(), "undertaker");
    }
    protocol::ModelCard loading;
    const std::string& name = settings_.model.served_name;
    loading.name = name.empty() ? "loading" : name;
    members_.reserve(options.size());
    for (worker::WorkerOptions& o : options) {
        o.services = services_;
        o.transfer = transfer_;
        auto worker = worker::start_worker(std::move(o), loading, loops_, registry_);
        if (!worker) return tl::unexpected(worker.error());
        members_.push_back({std::move(*worker), {}});
    }
    return {};
}

engine::KvEventSink WorkerGroup::kv_sink(Member& member, std::uint32_t rank) {
    return [publish = member.worker->kv_sink(rank),
            count = count_kv_events(registry_)](const std::vector<protocol::KvEvent>& events) {
        count(events);
        publish(events);
    };
}

std::function<void()> WorkerGroup::crash_of(Member& member) {
    if (!undertaker_) return die_at_once;
    return [this, &member] {
        // Only a second rank's crash can find the queue full.
        static_cast<void>(undertaker_->try_submit([&member] { member.worker->vanish(); }));
    };
}

Result<ServedEngine> WorkerGroup::open_attached() {
    auto served = text_of_attached(settings_, *found_);
    if (!served) return served;
    Member& member = members_.front();
    auto attached = engine::AttachedEngine::open(
        found_->options, found_->found, [&](std::uint32_t rank) { return kv_sink(member, rank); });
    if (!attached) return tl::unexpected(attached.error());
    member.engines = (*attached)->engines();
    served->engine = member.engines.front();
    const std::scoped_lock lock(attached_mutex_);
    attached_ = std::move(*attached);
    if (!attached_->kv_sources().empty()) {
        show_kv_sources(registry_, found_->options.probe.url, found_->found.ranks, attached_);
    }
    return served;
}

Result<ServedEngine> WorkerGroup::open_engines(std::uint32_t engine_threads) {
    if (found_) return open_attached();
    const auto handoffs = handoffs_of(settings_) == Handoffs::kMade ? transfer_ : nullptr;
    if (settings_.engine.kind != config::EngineKind::kMock) {
        auto opened = open_engine(settings_, engine_threads, kv_sink(members_.front(), 0), handoffs,
                                  &registry_);
        if (opened) members_.front().engines.push_back(opened->engine);
        return opened;
    }
    auto model = open_mock_model(settings_);
    if (!model) return tl::unexpected(model.error());
    mock_host_ = model->served.mock_host;
    mock_host_->show(registry_);
    for (std::size_t i = 0; i < members_.size(); ++i) {
        Member& member = members_[i];
        for (std::uint32_t rank = 0; rank < ranks_; ++rank) {
            const MockPlace place{
                .worker = static_cast<std::uint32_t>(i), .rank = rank, .handoffs = handoffs};
            member.engines.push_back(
                make_engine(*model, place, crash_of(member), kv_sink(member, rank)));
        }
    }
    model->served.engine = members_.front().engines.front();
    return std::move(model->served);
}

Result<void> WorkerGroup::load(std::uint32_t engine_threads) {
    auto served = open_engines(engine_threads);
    if (!served) return tl::unexpected(served.error());
    auto model = describe_model(settings_, *served);
    if (!model) return tl::unexpected(model.error());
    model_name_ = model->card.name;
    for (Member& member : members_) {
        std::vector<engine::Engine*> engines;
        for (const auto& engine : member.engines) engines.push_back(engine.get());
        member.worker->set_ready(model->card, model->artifacts, std::move(engines));
    }
    if (found_) {
        const std::scoped_lock lock(attached_mutex_);
        ready_ = true;
        if (!available_) members_.front().worker->set_available(false);
    }
    return {};
}

protocol::WorkerInfo WorkerGroup::info() const {
    protocol::WorkerInfo info = members_.front().worker->info();
    for (std::size_t i = 1; i < members_.size() && !info.loading && !info.draining; ++i) {
        info = members_[i].worker->info();
    }
    return info;
}

void WorkerGroup::drain(Deadline deadline) {
    for (Member& member : members_) member.worker->begin_drain(deadline);
    for (Member& member : members_) member.worker->drain(deadline);
}

void WorkerGroup::stop() {
    if (undertaker_) undertaker_->stop();
    if (attached_) attached_->stop();
    for (Member& member : members_) member.worker->stop();
    for (Member& member : members_) {
        for (const auto& engine : member.engines) {
            engine->stop(Deadline::at(Clock::real().now()));
        }
    }
    if (transfer_) transfer_->stop();
    if (services_.fetches) services_.fetches->stop();
}

}  // namespace stator::cli
