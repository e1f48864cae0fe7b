#include "stator/loadgen/load_run.h"

#include <fmt/format.h>

#include <algorithm>
#include <boost/asio/steady_timer.hpp>
#include <condition_variable>
#include <map>
#include <mutex>
#include <optional>
#include <unordered_map>
#include <utility>
#include <vector>

#include "stator/base/check.h"
#include "stator/loadgen/exchange.h"
#include "stator/loadgen/schedule.h"
#include "stator/runtime/asio.h"

namespace stator::loadgen {
namespace {

using std::chrono::nanoseconds;

constexpr std::chrono::milliseconds kProgressPeriod{250};
// Between two looks at the sockets: what has come must not wait until a burst is sent.
constexpr int kStartsPerTurn = 16;
constexpr std::size_t kMaxExplained = 8;
constexpr double kBusy = 0.9;

}  // namespace

struct LoadRun::Impl : std::enable_shared_from_this<LoadRun::Impl> {
    Impl(runtime::Loop& the_loop, const Server& the_server,
         std::unique_ptr<workload::Workload> the_workload, RunOptions the_options,
         const Clock& the_clock)
        : loop(the_loop),
          server(the_server),
          options(std::move(the_options)),
          clock(the_clock),
          workload(std::move(the_workload)),
          collector(std::move(options.report)),
          start_timer(runtime::asio_context(loop)),
          progress_timer(runtime::asio_context(loop)) {}

    void begin();
    void pump();
    void pump_later();
    void arm();
    void send(Start start);
    void prepare_ahead();
    [[nodiscard]] Result<std::string> body_of(const workload::RequestSpec& spec);
    void on_ended(Exchange& exchange);
    void keep_output(Exchange& exchange);
    void count(const Exchange& exchange);
    void stop(RunEnd how, std::string sentence);
    void finish_if_done();
    void add_warnings();
    void tick();
    void publish();
    [[nodiscard]] nanoseconds elapsed() const { return clock.now() - begin_at; }

    runtime::Loop& loop;
    const Server server;
    RunOptions options;
    const Clock& clock;
    std::unique_ptr<workload::Workload> workload;

    // Of the loop until the end.
    report::Collector collector;
    std::optional<Schedule> schedule;
    std::unique_ptr<net::HttpPool> pool;
    codec::JsonDocument json;
    boost::asio::steady_timer start_timer;
    boost::asio::steady_timer progress_timer;
    std::unordered_map<std::uint64_t, std::shared_ptr<Exchange>> running;
    std::unordered_map<std::uint64_t, std::map<std::uint64_t, Output>> outputs;  ///< by session
    std::optional<std::pair<std::uint64_t, std::string>> prepared;               ///< index, body
    std::vector<float> gaps;
    std::map<std::string, std::pair<std::string, std::uint64_t>> explained;
    TimePoint begin_at;
    double cpu_begin = 0;
    double cpu_used = 0;
    std::uint64_t started = 0;
    std::uint64_t pieces = 0;
    std::uint64_t shorter = 0;  ///< answers of fewer tokens than asked
    std::uint64_t without_usage = 0;
    std::uint64_t sent_again = 0;
    std::uint32_t failures_in_a_row = 0;
    std::optional<TimePoint> all_started;
    bool pumping_later = false;
    bool stopping = false;
    bool cut_off = false;  ///< the drain's time ran out
    RunEnd how = RunEnd::kDone;
    std::string sentence;
    double seconds = 0;

    mutable std::mutex mutex;
    std::condition_variable changed;
    bool done = false;
    Progress latest;
};

void LoadRun::Impl::begin() {
    auto pool_options = server.pool;
    const std::size_t most = options.concurrency != 0 ? options.concurrency : options.max_in_flight;
    pool_options.max_connections = most;
    auto made = net::HttpPool::create(loop, server.url, std::move(pool_options), clock);
    cpu_begin = thread_cpu_seconds();
    begin_at = clock.now();
    schedule.emplace(*workload,
                     ScheduleOptions{.most_at_once = most, .closed = options.concurrency != 0});
    if (!made) {
        stop(RunEnd::kBadRequest, made.error().message);
        return;
    }
    pool = std::move(*made);
    tick();
    pump();
}

void LoadRun::Impl::pump() {
    for (int i = 0; i < kStartsPerTurn && !stopping; ++i) {
        auto start = schedule->take(elapsed());
        if (!start) break;
        send(std::move(*start));
        if (i + 1 == kStartsPerTurn) {
            pump_later();
            return;
        }
    }
    prepare_ahead();
    arm();
    finish_if_done();
}

void LoadRun::Impl::pump_later() {
    if (std::exchange(pumping_later, true)) return;
    loop.post([self = shared_from_this()] {
        self->pumping_later = false;
        self->pump();
    });
}

void LoadRun::Impl::arm() {
    const auto next = schedule->next_start();
    if (!next || stopping) return;
    start_timer.expires_after(std::max(*next - elapsed(), nanoseconds(0)));
    start_timer.async_wait([weak = weak_from_this()](const auto& ec) {
        const auto self = weak.lock();
        if (!ec && self) self->pump();
    });
}

Result<std::string> LoadRun::Impl::body_of(const workload::RequestSpec& spec) {
    return request_body(spec, server.dialect, [this, &spec](std::uint64_t index) -> const Output* {
        const auto session = outputs.find(spec.session);
        if (session == outputs.end()) return nullptr;
        const auto output = session->second.find(index);
        return output == session->second.end() ? nullptr : &output->second;
    });
}

/// Writing a long prompt takes its time, better before the request is due than then.
void LoadRun::Impl::prepare_ahead() {
    const workload::RequestSpec* next = stopping ? nullptr : schedule->ahead();
    if (next == nullptr || (prepared && prepared->first == next->index)) return;
    auto body = body_of(*next);
    if (body) prepared.emplace(next->index, std::move(*body));
}

void LoadRun::Impl::send(Start start) {
    const workload::RequestSpec& spec = start.spec;
    Result<std::string> body;
    if (prepared && prepared->first == spec.index) {
        body = std::move(prepared->second);
        prepared.reset();
    } else {
        body = body_of(spec);
    }
    if (!body) {
        schedule->ended(spec, elapsed());
        stop(RunEnd::kBadRequest, body.error().message);
        return;
    }
    const bool keep_text =
        server.dialect.api != Api::kTokens && schedule->session_requests(spec.session) > 1;
    const std::uint64_t index = spec.index;
    auto exchange = std::make_shared<Exchange>(
        std::move(start), clock.now(), json, keep_text,
        [self = shared_from_this()](Exchange& ended) { self->on_ended(ended); });
    exchange->call = pool->start({.method = "POST",
                                  .path = std::string(request_path(server.dialect.api)),
                                  .body = std::move(*body)},
                                 exchange);
    running.emplace(index, std::move(exchange));
    ++started;
}

void LoadRun::Impl::on_ended(Exchange& exchange) {
    const auto node = running.extract(exchange.start().spec.index);
    schedule->ended(exchange.start().spec, elapsed());
    keep_output(exchange);
    count(exchange);
    if (failures_in_a_row >= options.max_connect_failures) {
        stop(RunEnd::kServerGone,
             fmt::format("The server is gone: {} connections in a row failed, the last one because "
                         "{}",
                         failures_in_a_row, exchange.fault()->message));
    }
    // Not at once: what else has come in this turn is read first.
    pump_later();
}

void LoadRun::Impl::keep_output(Exchange& exchange) {
    const workload::RequestSpec& spec = exchange.start().spec;
    if (schedule->session_requests(spec.session) == 0) {
        outputs.erase(spec.session);
    } else if (exchange.answer().output_tokens() > 0) {
        outputs[spec.session][spec.index] = {std::move(exchange.answer().text()),
                                             exchange.answer().output_tokens()};
    }
}

void LoadRun::Impl::count(const Exchange& exchange) {
    gaps.clear();
    const report::RequestRecord record = exchange.record(begin_at, gaps);
    pieces += exchange.answer().pieces().size();
    collector.add(record);
    if (record.outcome == report::Outcome::kConnect) {
        ++failures_in_a_row;
    } else if (exchange.answered()) {
        failures_in_a_row = 0;
    }
    if (record.outcome == report::Outcome::kOk) {
        if (record.output_tokens < exchange.start().spec.output_tokens) ++shorter;
        if (!exchange.answer().usage()) ++without_usage;
    } else if (record.outcome != report::Outcome::kUnfinished &&
               (explained.size() < kMaxExplained || explained.contains(record.reason))) {
        auto& [message, times] = explained[record.reason];
        if (times++ == 0) message = exchange.fault()->message;
    }
}

void LoadRun::Impl::stop(RunEnd the_end, std::string the_sentence) {
    if (std::exchange(stopping, true)) return;
    how = the_end;
    sentence = std::move(the_sentence);
    start_timer.cancel();
    const nanoseconds now = elapsed();
    for (const Start& start : schedule->stop(now)) {
        report::RequestRecord record;
        record.index = start.spec.index;
        record.intended = to_seconds(start.intended);
        record.sent = -1;
        record.end = to_seconds(now);
        record.outcome = report::Outcome::kUnfinished;
        collector.add(record);
    }
    for (const auto& [_, exchange] : running) exchange->call->cancel();
    pump_later();
}

void LoadRun::Impl::finish_if_done() {
    if (!schedule->done() || done) return;
    if (pool) sent_again = pool->counts().stale_retries;
    pool.reset();
    start_timer.cancel();
    progress_timer.cancel();
    cpu_used = thread_cpu_seconds() - cpu_begin;
    seconds = to_seconds(elapsed());
    add_warnings();
    publish();
    const std::scoped_lock lock(mutex);
    done = true;
    changed.notify_all();
}

void LoadRun::Impl::add_warnings() {
    for (const auto& [reason, what] : explained) {
        collector.warn(fmt::format("{} ({} times): {}", reason, what.second, what.first));
    }
    if (shorter > 0) {
        collector.warn(fmt::format(
            "{} answers are shorter than asked: the server does not obey ignore_eos and "
            "min_tokens, or has a limit.",
            shorter));
    }
    if (without_usage > 0) {
        collector.warn(fmt::format("{} answers have no usage: every piece counts as one token.",
                                   without_usage));
    }
    if (sent_again > 0) {
        collector.warn(fmt::format(
            "{} requests were sent again: the server had closed the idle connection they found.",
            sent_again));
    }
    if (cut_off) {
        collector.warn(fmt::format("What still ran {:.0f} s after the last start was cut off.",
                                   to_seconds(options.drain)));
    }
    if (!server.warning.empty()) collector.warn(server.warning);
    if (seconds > 1.0 && cpu_used > kBusy * seconds) {
        collector.warn(fmt::format(
            "The load generator's thread was busy {:.0f} % of the time: the figures may be its "
            "own.",
            100 * cpu_used / seconds));
    }
}

/// Now and then: progress, and the drain's time.
void LoadRun::Impl::tick() {
    publish();
    const bool started_all = schedule->ahead() == nullptr && !schedule->next_start();
    if (!started_all) {
        all_started.reset();
    } else if (!all_started) {
        all_started = clock.now();
    } else if (options.drain.count() > 0 && clock.now() - *all_started >= options.drain &&
               !stopping) {
        cut_off = true;
        stop(RunEnd::kDone, {});
    }
    progress_timer.expires_after(kProgressPeriod);
    progress_timer.async_wait([weak = weak_from_this()](const auto& ec) {
        const auto self = weak.lock();
        if (!ec && self && !self->done) self->tick();
    });
}

void LoadRun::Impl::publish() {
    Progress now{.figures = collector.snapshot(),
                 .seconds = to_seconds(elapsed()),
                 .started = started,
                 .in_flight = running.size(),
                 .stopping = stopping};
    const std::scoped_lock lock(mutex);
    latest = now;
}

LoadRun::LoadRun(runtime::Loop& loop, const Server& server,
                 std::unique_ptr<workload::Workload> workload, RunOptions options,
                 const Clock& clock)
    : impl_(std::make_shared<Impl>(loop, server, std::move(workload), std::move(options), clock)) {}

LoadRun::~LoadRun() {
    stop();
    while (!wait(std::chrono::seconds(1))) {
    }
    // What the loop still holds of it (a timer's last word) must not outlive the loop's turn.
    impl_->loop.post([impl = std::move(impl_)] {});
}

void LoadRun::start() {
    impl_->loop.post([impl = impl_] { impl->begin(); });
}

void LoadRun::stop() {
    impl_->loop.post([impl = impl_] {
        if (!impl->schedule) {  // never started
            const std::scoped_lock lock(impl->mutex);
            impl->done = true;
            impl->changed.notify_all();
            return;
        }
        if (!impl->done) impl->stop(RunEnd::kStopped, "The run was stopped.");
    });
}

bool LoadRun::wait(std::chrono::milliseconds patience) {
    std::unique_lock lock(impl_->mutex);
    return impl_->changed.wait_for(lock, patience, [this] { return impl_->done; });
}

Progress LoadRun::progress() const {
    const std::scoped_lock lock(impl_->mutex);
    return impl_->latest;
}

RunEnd LoadRun::end() const { return impl_->how; }

const std::string& LoadRun::why() const { return impl_->sentence; }

report::Report LoadRun::report() const {
    return impl_->collector.finish(impl_->seconds, impl_->how != RunEnd::kDone);
}

double LoadRun::cpu_seconds() const { return impl_->cpu_used; }

std::uint64_t LoadRun::pieces() const { return impl_->pieces; }

}  // namespace stator::loadgen
