#include "stator/workload/generators.h"

#include <cmath>
#include <deque>
#include <utility>

#include "stator/workload/arrival_times.h"
#include "stator/workload/content.h"
#include "stator/workload/draws.h"

namespace stator::workload {
namespace {

enum Content : std::uint64_t { kGroup = 16, kTraceBlock = 17, kSystem = 18 };

/// Numbers requests and ends the run where the options say so.
class Counter {
  public:
    explicit Counter(const WorkloadOptions& o)
        : most_(o.requests), last_start_(std::llround(o.duration_s * 1e9)) {}

    [[nodiscard]] bool full() const { return most_ != 0 && given_ >= most_; }
    [[nodiscard]] bool too_late(std::chrono::nanoseconds start) const {
        return last_start_ != 0 && start.count() >= last_start_;
    }
    void number(RequestSpec& request) { request.index = given_++; }
    [[nodiscard]] std::uint64_t given() const { return given_; }

  private:
    std::uint64_t most_;
    std::int64_t last_start_;
    std::uint64_t given_ = 0;
};

/// Fixed lengths and shared prefixes.
class SingleRequests final : public Workload {
  public:
    SingleRequests(const WorkloadOptions& o, std::uint64_t seed)
        : options_(o), times_(o, seed), draws_(o, seed), counter_(o) {}

    std::optional<RequestSpec> next() override {
        if (counter_.full()) return std::nullopt;
        RequestSpec r;
        r.start = times_.next();
        if (counter_.too_late(r.start)) return std::nullopt;
        counter_.number(r);
        r.session = r.index;
        std::uint32_t own = draws_.input();
        if (options_.kind == Kind::kSharedPrefix) {
            const std::uint32_t shared = std::min(options_.prefix, own - 1);
            if (shared > 0) {
                r.prompt.push_back({content_id(kGroup, draws_.group()), shared, std::nullopt});
            }
            own -= shared;
        }
        r.prompt.push_back({draws_.fresh_content(), own, std::nullopt});
        r.output_tokens = draws_.output();
        draws_.decorate(r);
        return r;
    }

  private:
    WorkloadOptions options_;
    ArrivalTimes times_;
    Draws draws_;
    Counter counter_;
};

/// Chats: turn k repeats all before it. Agents: bursts of calls over what is common so far, which
/// grows by the calls' results.
class Sessions final : public Workload {
  public:
    Sessions(const WorkloadOptions& o, std::uint64_t seed)
        : options_(o), times_(o, seed), draws_(o, seed), counter_(o) {}

    std::optional<RequestSpec> next() override {
        if (counter_.full()) return std::nullopt;
        if (waiting_.empty()) {
            const auto start = times_.next();
            if (counter_.too_late(start)) return std::nullopt;
            if (options_.kind == Kind::kChat) {
                chat(start);
            } else {
                agent(start);
            }
            ++session_;
        }
        RequestSpec r = std::move(waiting_.front());
        waiting_.pop_front();
        counter_.number(r);
        return r;
    }

  private:
    /// The next request to be made will have this index: those before it are given or wait.
    [[nodiscard]] std::uint64_t next_index() const { return counter_.given() + waiting_.size(); }

    RequestSpec request(const std::vector<Segment>& history) {
        RequestSpec r;
        r.session = session_;
        r.prompt = history;
        r.prompt.push_back({draws_.fresh_content(), draws_.input(), std::nullopt});
        r.output_tokens = draws_.output();
        draws_.decorate(r);
        return r;
    }

    std::vector<Segment> beginning() {
        if (options_.system == 0) return {};
        return {{content_id(kSystem, draws_.group()), options_.system, std::nullopt}};
    }

    void chat(std::chrono::nanoseconds start) {
        std::vector<Segment> history = beginning();
        for (std::uint32_t turn = 0; turn < options_.turns; ++turn) {
            RequestSpec r = request(history);
            r.start = turn == 0 ? start : draws_.think();
            const std::uint64_t index = next_index();
            if (turn > 0) r.after = index - 1;
            history = r.prompt;
            history.push_back({content_id(0, index), r.output_tokens, index});
            waiting_.push_back(std::move(r));
        }
    }

    void agent(std::chrono::nanoseconds start) {
        std::vector<Segment> context = beginning();
        for (std::uint32_t burst = 0; burst < options_.turns; ++burst) {
            const std::uint64_t first = next_index();
            for (std::uint32_t call = 0; call < options_.calls; ++call) {
                RequestSpec r = request(context);
                r.start = start;
                // Whoever acts on the results waits for the last call of the burst before.
                if (burst > 0) r.after = first - 1;
                waiting_.push_back(std::move(r));
            }
            for (std::uint32_t call = 0; call < options_.calls; ++call) {
                const RequestSpec& r = waiting_[waiting_.size() - options_.calls + call];
                context.push_back({content_id(0, first + call), r.output_tokens, first + call});
            }
            start = draws_.think();
        }
    }

    WorkloadOptions options_;
    ArrivalTimes times_;
    Draws draws_;
    Counter counter_;
    std::uint64_t session_ = 0;
    std::deque<RequestSpec> waiting_;
};

class TraceReplay final : public Workload {
  public:
    TraceReplay(const WorkloadOptions& o, Trace trace, std::uint64_t seed)
        : options_(o),
          trace_(std::move(trace)),
          times_(o, seed),
          draws_(o, seed),
          counter_(o),
          at_(o.skip) {
        if (o.spread_ties) spread_ties();
        if (at_ < trace_.requests.size()) begin_s_ = trace_.requests[at_].start_s;
    }

    std::optional<RequestSpec> next() override {
        while (at_ < trace_.requests.size() && options_.max_isl != 0 &&
               trace_.requests[at_].input_tokens > options_.max_isl) {
            ++at_;
        }
        if (counter_.full() || at_ >= trace_.requests.size()) return std::nullopt;
        const Trace::Request& t = trace_.requests[at_++];
        RequestSpec r;
        r.start = options_.effective_arrivals() == Arrivals::kTrace
                      ? whole_ns((t.start_s - begin_s_) / options_.speed)
                      : times_.next();
        if (counter_.too_late(r.start)) return std::nullopt;
        counter_.number(r);
        r.session = r.index;
        r.output_tokens = options_.osl.value_or(t.output_tokens);
        std::uint32_t left = t.input_tokens;
        for (std::uint32_t i = 0; i < t.block_count; ++i) {
            const std::uint32_t n = std::min(left, kMooncakeBlockTokens);
            r.prompt.push_back(
                {content_id(kTraceBlock, trace_.blocks[t.first_block + i]), n, std::nullopt});
            left -= n;
        }
        if (left > 0) r.prompt.push_back({draws_.fresh_content(), left, std::nullopt});
        draws_.decorate(r);
        return r;
    }

  private:
    /// A trace played very slowly goes on for longer than can be counted: then never.
    static std::chrono::nanoseconds whole_ns(double seconds) {
        constexpr double kLongest_s = 9e9;
        return std::chrono::nanoseconds(std::llround(std::min(seconds, kLongest_s) * 1e9));
    }
    /// The last requests go on at the pace of those before them.
    void spread_ties() {
        std::vector<Trace::Request>& all = trace_.requests;
        double gap = 0;
        for (std::size_t first = 0; first < all.size();) {
            const double start = all[first].start_s;
            std::size_t end = first + 1;
            while (end < all.size() && all[end].start_s == start) ++end;
            if (end < all.size()) gap = all[end].start_s - start;
            const double step = gap / static_cast<double>(end - first);
            for (std::size_t i = first; i < end; ++i) {
                all[i].start_s = start + static_cast<double>(i - first) * step;
            }
            first = end;
        }
    }

    WorkloadOptions options_;
    Trace trace_;
    ArrivalTimes times_;
    Draws draws_;
    Counter counter_;
    std::uint64_t at_;
    double begin_s_ = 0;
};

class PromptReplay final : public Workload {
  public:
    PromptReplay(const WorkloadOptions& o, std::vector<Prompt> prompts, std::uint64_t seed)
        : options_(o),
          prompts_(std::move(prompts)),
          times_(o, seed),
          draws_(o, seed),
          counter_(o) {}

    /// Over and over where a number or a duration asks for more than the file has.
    std::optional<RequestSpec> next() override {
        const bool again = options_.requests != 0 || options_.duration_s > 0;
        if (counter_.full() || (!again && counter_.given() >= prompts_.size())) return std::nullopt;
        RequestSpec r;
        r.start = times_.next();
        if (counter_.too_late(r.start)) return std::nullopt;
        counter_.number(r);
        r.session = r.index;
        const Prompt& prompt = prompts_[(options_.skip + r.index) % prompts_.size()];
        r.text = prompt.text;
        r.messages = prompt.messages;
        r.output_tokens =
            prompt.output_tokens != 0 && !options_.osl ? prompt.output_tokens : draws_.output();
        draws_.decorate(r);
        return r;
    }

  private:
    WorkloadOptions options_;
    std::vector<Prompt> prompts_;
    ArrivalTimes times_;
    Draws draws_;
    Counter counter_;
};

Result<void> check(const WorkloadOptions& o, std::string_view trace) {
    if (o.needs_file() && trace.empty()) {
        return param_error("trace",
                           "this kind of workload needs the text of a trace or of prompts");
    }
    if (o.arrivals == Arrivals::kTrace && !o.is_trace()) {
        return param_error("arrivals",
                           "only a mooncake or azure workload has times of a trace; the others "
                           "take constant, poisson, gamma or closed");
    }
    if (!o.needs_file() && o.requests == 0 && o.duration_s <= 0) {
        return param_error("requests", "the run has no end: give requests or duration");
    }
    if (o.effective_arrivals() == Arrivals::kClosed && !o.needs_file() && o.requests == 0) {
        return param_error("requests",
                           "closed arrivals need a number of requests: they have no times");
    }
    if (o.rate_end > 0 && o.duration_s <= 0) {
        return param_error("rate-end", "a rate that changes needs a duration to change over");
    }
    if (o.kind == Kind::kSharedPrefix && o.prefix >= o.isl) {
        return param_error("prefix",
                           "a shared prefix of {} tokens leaves nothing of prompts of {} tokens",
                           o.prefix, o.isl);
    }
    return {};
}

}  // namespace

std::unique_ptr<Workload> make_single_requests(const WorkloadOptions& o, std::uint64_t seed) {
    return std::make_unique<SingleRequests>(o, seed);
}
std::unique_ptr<Workload> make_sessions(const WorkloadOptions& o, std::uint64_t seed) {
    return std::make_unique<Sessions>(o, seed);
}
std::unique_ptr<Workload> make_trace_replay(const WorkloadOptions& o, Trace trace,
                                            std::uint64_t seed) {
    return std::make_unique<TraceReplay>(o, std::move(trace), seed);
}
std::unique_ptr<Workload> make_prompt_replay(const WorkloadOptions& o, std::vector<Prompt> prompts,
                                             std::uint64_t seed) {
    return std::make_unique<PromptReplay>(o, std::move(prompts), seed);
}

Result<std::unique_ptr<Workload>> make_workload(const WorkloadOptions& o, std::string_view text,
                                                std::uint64_t seed, SkippedLines* skipped) {
    if (auto ok = check(o, text); !ok) return tl::unexpected(ok.error());
    BadLines bad{o.skip_bad, {}};
    std::unique_ptr<Workload> made;
    switch (o.kind) {
        case Kind::kFixed:
        case Kind::kSharedPrefix:
            made = make_single_requests(o, seed);
            break;
        case Kind::kChat:
        case Kind::kAgent:
            made = make_sessions(o, seed);
            break;
        case Kind::kMooncake:
        case Kind::kAzure: {
            auto trace =
                o.kind == Kind::kMooncake ? read_mooncake(text, bad) : read_azure(text, bad);
            if (!trace) return tl::unexpected(trace.error());
            if (o.skip >= trace->requests.size()) {
                return param_error("skip", "the trace has {} requests; {} can't be left out",
                                   trace->requests.size(), o.skip);
            }
            made = make_trace_replay(o, std::move(*trace), seed);
            break;
        }
        case Kind::kPrompts: {
            auto prompts = read_prompts(text, bad);
            if (!prompts) return tl::unexpected(prompts.error());
            made = make_prompt_replay(o, std::move(*prompts), seed);
            break;
        }
    }
    if (skipped != nullptr) *skipped = std::move(bad.skipped);
    return made;
}

}  // namespace stator::workload
