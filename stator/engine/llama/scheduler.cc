#include "stator/engine/llama/scheduler.h"

#include <algorithm>
#include <utility>

#include "stator/base/check.h"
#include "stator/tokens/hash.h"

namespace stator::engine::llama {

using protocol::FinishReason;

namespace {

std::uint32_t size_of(const Sequence& s) { return static_cast<std::uint32_t>(s.tokens.size()); }
/// Positions whose KV is wanted: a prefill leg leaves the prompt's last token to who goes on.
std::uint32_t wanted_of(const Sequence& s) {
    return size_of(s) - (s.request.leg == protocol::Leg::kPrefill ? 1 : 0);
}
std::uint32_t left_of(const Sequence& s) { return wanted_of(s) - s.computed - s.planned; }

/// The parts of a decode leg's KV that go on from position `from` without a gap, and how far.
struct Arrived {
    std::size_t first_part = 0;
    std::size_t last_part = 0;
    std::uint32_t begin = 0;  ///< of the first part: at most `from`
    std::uint32_t end = 0;    ///< `from` if there is nothing
};
Arrived arrived_from(const Sequence& s, std::uint32_t from) {
    Arrived out{.end = from};
    const auto& kv = s.request.kv;
    if (!kv || s.request.leg != protocol::Leg::kDecode) return out;
    const auto& parts = kv->what->parts;
    const std::uint32_t limit = size_of(s) - 1;
    for (std::size_t i = 0; i < std::min(parts.size(), kv->parts.size()); ++i) {
        const std::uint64_t end = std::uint64_t{parts[i].first} + parts[i].tokens;
        if (end <= out.end) continue;
        if (parts[i].first > out.end || end > limit || kv->parts[i].empty()) break;
        if (out.last_part == 0) {
            out.first_part = i;
            out.begin = parts[i].first;
        }
        out.last_part = i + 1;
        out.end = static_cast<std::uint32_t>(end);
    }
    return out;
}

}  // namespace

std::uint64_t seed_of(std::uint64_t salt) {
    return salt == 0 ? tokens::hash_seed() : tokens::hash_seed({}, std::to_string(salt));
}

Scheduler::Scheduler(SchedulerOptions options)
    : options_(options),
      cache_(options.block_tokens, options.max_running,
             options.parked_tokens / options.block_tokens, options.prefix_cache) {
    STATOR_CHECK(options.max_running >= 1 && options.max_running < kMaxSequences,
                 "a sequence for each running request, and one to spare");
    STATOR_CHECK(options.step_tokens >= options.max_running, "a step has room for all that decode");
    STATOR_CHECK(options.max_sequence_tokens <= options.kv_tokens, "one request fits the KV cache");
}

Result<void> Scheduler::add(protocol::GenerateRequest request) {
    if (request.prompt.empty()) {
        return param_error("prompt", "The prompt has no tokens; it needs at least one.");
    }
    if (request.leg == protocol::Leg::kPrefill && request.prompt.size() < 2) {
        return param_error("prompt", "A prompt of one token leaves a prefill leg nothing to do.");
    }
    if (request.resumed_tokens >= request.prompt.size()) {
        return param_error("resumed_tokens",
                           "{} resumed tokens leave nothing of a prompt of {} tokens.",
                           request.resumed_tokens, request.prompt.size());
    }
    const std::uint64_t total = request.prompt.size() + std::uint64_t{request.max_tokens};
    if (request.max_tokens == 0 || total > options_.max_sequence_tokens) {
        return param_error(
            "max_tokens",
            "Prompt ({} tokens) and max_tokens ({}) must fit the context of {} tokens.",
            request.prompt.size(), request.max_tokens, options_.max_sequence_tokens);
    }
    if (waiting_.size() >= std::size_t{options_.max_waiting} + options_.max_running) {
        return error(ErrorCode::kOverloaded, "The engine's queue of {} requests is full.",
                     options_.max_waiting);
    }
    auto sequence = std::make_unique<Sequence>(Sequence{
        .request = {},
        .tokens = tokens::TokenSequence(options_.block_tokens, seed_of(request.cache_salt)),
        .prompt_tokens = static_cast<std::uint32_t>(request.prompt.size())});
    sequence->tokens.append(request.prompt);
    sequence->media = MediaRows(request);
    request.prompt = {};
    sequence->request = std::move(request);
    waiting_.push_back(std::move(sequence));
    return {};
}

bool Scheduler::cancel(RequestId id) {
    const auto is_it = [id](const SequencePtr& s) { return s->request.id == id; };
    if (const auto it = std::ranges::find_if(running_, is_it); it != running_.end()) {
        leave(**it);
        running_.erase(it);
        return true;
    }
    if (const auto it = std::ranges::find_if(waiting_, is_it); it != waiting_.end()) {
        waiting_.erase(it);
        return true;
    }
    return false;
}

void Scheduler::expired(TimePoint now, std::vector<RequestId>& out) const {
    for (const auto& s : running_) {
        if (s->request.deadline.reached(now)) out.push_back(s->request.id);
    }
    for (const auto& s : waiting_) {
        if (s->request.deadline.reached(now)) out.push_back(s->request.id);
    }
}

StepPlan Scheduler::plan() {
    StepPlan plan;
    plan_decodes(plan);
    plan_prefills(plan);
    plan_admissions(plan);
    plan.ops = cache_.take_ops();
    outputs_ = plan.outputs;
    return plan;
}

void Scheduler::plan_decodes(StepPlan& plan) {
    for (std::size_t i = 0; i < running_.size(); ++i) {
        Sequence& s = *running_[i];
        if (left_of(s) != 1) continue;
        while (free_cells() < 1 && i + 1 < running_.size()) preempt_last();
        if (free_cells() >= 1) put(s, 1, plan);  // else: it waits for those before it
    }
}

void Scheduler::plan_prefills(StepPlan& plan) {
    for (std::size_t i = 0; i < running_.size() && budget(plan) > 0; ++i) {
        Sequence& s = *running_[i];
        if (left_of(s) <= 1) continue;
        const std::uint32_t want = std::min(left_of(s), budget(plan));
        if (plan.batch.empty()) {  // nothing else can go on: this one must
            while (free_cells() < want && i + 1 < running_.size()) preempt_last();
        }
        const std::uint32_t count = std::min(want, free_cells());
        if (count > 0) put(s, count, plan);
    }
}

void Scheduler::plan_admissions(StepPlan& plan) {
    std::size_t i = 0;
    while (i < waiting_.size() && budget(plan) > 0 && running_.size() < options_.max_running &&
           cache_.can_open()) {
        const Sequence& s = *waiting_[i];
        const std::uint32_t whole = (size_of(s) - 1) / options_.block_tokens;
        const PrefixMatch match = cache_.match(s.tokens.tokens(), s.tokens.sequence_hashes(),
                                               s.request.cache_salt, whole);
        const std::size_t next = match.blocks.size();
        const auto cached = static_cast<std::uint32_t>(next) * options_.block_tokens;
        const bool arrived = arrived_from(s, cached).end > cached;
        if (!arrived && next < whole && claimed_.contains(s.tokens.sequence_hashes()[next])) {
            ++i;  // another request computes that very block now; it is cheaper to wait
            continue;
        }
        if (!admit(i, plan)) return;
    }
}

bool Scheduler::admit(std::size_t waiting_index, StepPlan& plan) {
    Sequence& s = *waiting_[waiting_index];
    const std::uint32_t block = options_.block_tokens;
    const std::uint32_t whole = (size_of(s) - 1) / block;
    PrefixMatch match =
        cache_.match(s.tokens.tokens(), s.tokens.sequence_hashes(), s.request.cache_salt, whole);
    const auto need = [&] {
        const auto cached = static_cast<std::uint32_t>(match.blocks.size()) * block;
        const Arrived arrived = arrived_from(s, cached);
        const std::uint32_t import_slack = arrived.last_part > 0 ? cached - arrived.begin : 0;
        return size_of(s) - cached +
               std::max((match.parked_blocks + match.slack_blocks) * block,
                        match.parked_blocks * block + import_slack);
    };
    // One block in hand for each running request, so that starting one does not preempt another at
    // once.
    const auto reserve = static_cast<std::uint32_t>(running_.size()) * block;
    if (need() + reserve > free_cells()) {
        if (!running_.empty()) return false;
        match = {};  // alone and still too tight to take parked blocks back: compute it all
    }
    s.kv = cache_.open(match, s.request.cache_salt);
    s.computed = static_cast<std::uint32_t>(match.blocks.size()) * block;
    s.planned = 0;
    if (!s.started) {
        s.started = true;
        s.cached_tokens = s.computed;
        plan.cached_tokens += s.computed;
    }
    running_.push_back(std::move(waiting_[waiting_index]));
    waiting_.erase(waiting_.begin() + static_cast<std::ptrdiff_t>(waiting_index));
    claim_blocks(s);
    plan_import(s, plan);
    const std::uint32_t count = std::min({left_of(s), budget(plan), free_cells()});
    if (count > 0) put(s, count, plan);
    return true;
}

void Scheduler::plan_import(Sequence& s, StepPlan& plan) {
    const Arrived arrived = arrived_from(s, s.computed);
    if (arrived.last_part > 0) {
        plan.imports.push_back({.id = s.request.id,
                                .sequence = s.kv,
                                .from = s.request.kv,
                                .first_part = arrived.first_part,
                                .last_part = arrived.last_part,
                                .begin = s.computed,
                                .end = arrived.end});
        s.planned = arrived.end - s.computed;
    }
    s.request.kv.reset();
}

void Scheduler::imported(StepPlan& plan, const KvImport& import, std::uint32_t until) {
    const auto it = std::ranges::find_if(
        running_, [&](const SequencePtr& s) { return s->request.id == import.id; });
    STATOR_CHECK(it != running_.end() && until >= import.begin && until <= import.end,
                 "an import of this plan");
    Sequence& s = **it;
    std::uint32_t rest = s.planned - (import.end - import.begin);
    if (until < import.end) {
        take_out(s, plan);
        rest = 0;
    }
    s.planned = until - import.begin;
    commit_blocks(s);
    s.planned = rest;
}

/// The sequence's tokens leave the batch; its plan is not changed otherwise.
void Scheduler::take_out(const Sequence& s, StepPlan& plan) {
    std::vector<BatchToken> batch;
    std::vector<std::uint32_t> where(plan.batch.size());
    for (std::size_t i = 0; i < plan.batch.size(); ++i) {
        where[i] = static_cast<std::uint32_t>(batch.size());
        if (plan.batch[i].sequence != s.kv) batch.push_back(plan.batch[i]);
    }
    plan.prefill_tokens -= static_cast<std::uint32_t>(plan.batch.size() - batch.size());
    plan.batch = std::move(batch);
    std::erase_if(plan.outputs, [&](const OutputRow& row) { return row.id == s.request.id; });
    for (OutputRow& row : plan.outputs) row.index = where[row.index];
    outputs_ = plan.outputs;
}

RequestId Scheduler::withdraw(StepPlan& plan, SeqId sequence) {
    const auto it =
        std::ranges::find_if(running_, [&](const SequencePtr& s) { return s->kv == sequence; });
    STATOR_CHECK(it != running_.end(), "a sequence of the plan runs");
    const RequestId id = (*it)->request.id;
    take_out(**it, plan);
    (*it)->planned = 0;
    leave(**it);
    running_.erase(it);
    return id;
}

void Scheduler::ready(std::vector<RequestId>& out) const {
    for (const auto& s : running_) {
        const bool prefill = s->request.leg == protocol::Leg::kPrefill;
        if (prefill && s->planned == 0 && left_of(*s) == 0) out.push_back(s->request.id);
    }
}

Progress Scheduler::hand_over(RequestId id) {
    const auto it =
        std::ranges::find_if(running_, [&](const SequencePtr& s) { return s->request.id == id; });
    STATOR_CHECK(it != running_.end(), "a ready request is still running");
    const Progress progress = progress_of(**it, FinishReason::kHandoff);
    leave(**it);
    running_.erase(it);
    return progress;
}

void Scheduler::put(Sequence& s, std::uint32_t count, StepPlan& plan) {
    const auto tokens = s.tokens.tokens();
    const bool last = left_of(s) == count && s.request.leg != protocol::Leg::kPrefill;
    const std::uint32_t begin = s.computed + s.planned;
    for (std::uint32_t i = 0; i < count; ++i) {
        const bool media = tokens[begin + i] >= tokens::kFirstMediaToken;
        plan.batch.push_back({tokens[begin + i], begin + i, s.kv, last && i + 1 == count,
                              media ? s.media.at(begin + i) : nullptr});
    }
    s.planned += count;
    if (last) {
        plan.outputs.push_back({s.request.id, static_cast<std::uint32_t>(plan.batch.size() - 1)});
    }
    // The first output token's position comes after the prompt: before that it is prefill (again,
    // if preempted).
    if (count == 1 && begin >= s.prompt_tokens) {
        plan.decode_tokens += 1;
    } else {
        plan.prefill_tokens += count;
    }
}

std::uint32_t Scheduler::budget(const StepPlan& plan) const {
    return options_.step_tokens - static_cast<std::uint32_t>(plan.batch.size());
}

std::uint32_t Scheduler::used_cells() const {
    std::uint32_t used = cache_.open_blocks() * options_.block_tokens;
    for (const auto& s : running_) {
        used += s->computed + s->planned - cache_.held_blocks(s->kv) * options_.block_tokens;
    }
    return used;
}

std::uint32_t Scheduler::free_cells() const {
    const std::uint32_t used = used_cells();
    STATOR_ASSERT(used <= options_.kv_tokens);
    return options_.kv_tokens - used;
}

void Scheduler::preempt_last() {
    Sequence& s = *running_.back();
    STATOR_ASSERT(s.planned == 0);
    leave(s);
    ++preemptions_;
    waiting_.push_front(std::move(running_.back()));
    running_.pop_back();
}

void Scheduler::leave(Sequence& s) {
    release_claims(s);
    cache_.close(s.kv);
    s.kv = -1;
    s.computed = 0;
    s.planned = 0;
}

void Scheduler::claim_blocks(const Sequence& s) {
    if (!options_.prefix_cache) return;
    const auto hashes = s.tokens.sequence_hashes();
    for (std::size_t i = s.computed / options_.block_tokens; i < hashes.size(); ++i) {
        claimed_.try_emplace(hashes[i], s.request.id);
    }
}

void Scheduler::release_claims(const Sequence& s) {
    if (!options_.prefix_cache) return;
    const auto hashes = s.tokens.sequence_hashes();
    for (std::size_t i = s.computed / options_.block_tokens; i < hashes.size(); ++i) {
        const auto it = claimed_.find(hashes[i]);
        if (it != claimed_.end() && it->second == s.request.id) claimed_.erase(it);
    }
}

void Scheduler::commit_blocks(Sequence& s) {
    const std::uint32_t block = options_.block_tokens;
    const std::uint32_t before = s.computed / block;
    s.computed += s.planned;
    s.planned = 0;
    const auto tokens = s.tokens.tokens();
    for (std::uint32_t i = before; i < s.computed / block; ++i) {
        const auto hash = s.tokens.sequence_hashes()[i];
        const auto claim = claimed_.find(hash);
        if (claim != claimed_.end() && claim->second == s.request.id) claimed_.erase(claim);
        cache_.commit(s.kv, tokens.subspan(std::size_t{i} * block, block),
                      s.tokens.block_hashes()[i], hash);
    }
}

void Scheduler::complete(std::span<const SampledToken> sampled, std::vector<Progress>& progress) {
    STATOR_CHECK(sampled.size() == outputs_.size(), "one token for each output row");
    for (const auto& s : running_) {
        if (s->planned > 0) commit_blocks(*s);
    }
    for (const SampledToken& token : sampled) {
        const auto it = std::ranges::find_if(
            running_, [&](const SequencePtr& s) { return s->request.id == token.id; });
        STATOR_CHECK(it != running_.end(), "a planned request is still running");
        Sequence& s = **it;
        s.tokens.push(token.token);
        ++s.generated;
        const Progress& p = progress.emplace_back(progress_of(s, verdict(s, token)));
        if (p.finish) {
            leave(s);
            running_.erase(it);
        }
    }
    outputs_.clear();
}

Progress Scheduler::progress_of(const Sequence& s, std::optional<FinishReason> finish) {
    const std::uint32_t prompt = s.prompt_tokens - s.request.resumed_tokens;
    return {s.request.id, finish, prompt, std::min(s.cached_tokens, prompt)};
}

std::optional<FinishReason> Scheduler::verdict(const Sequence& s, const SampledToken& token) const {
    if (token.ends) return FinishReason::kStop;
    const auto& r = s.request;
    const bool may_stop = s.generated >= r.min_tokens;
    if (may_stop && token.is_end && !r.ignore_eos) return FinishReason::kStop;
    if (may_stop && std::ranges::find(r.stop_token_ids, token.token) != r.stop_token_ids.end()) {
        return FinishReason::kStop;
    }
    if (s.generated >= r.max_tokens || size_of(s) >= options_.max_sequence_tokens) {
        return FinishReason::kLength;
    }
    return std::nullopt;
}

void Scheduler::abandon(std::vector<RequestId>& lost) {
    std::vector<SequencePtr> again;
    for (auto& s : running_) {
        if (s->planned > 0) {
            lost.push_back(s->request.id);
        } else {
            again.push_back(std::move(s));
        }
    }
    running_.clear();
    claimed_.clear();
    outputs_.clear();
    cache_.reset();
    for (auto it = again.rbegin(); it != again.rend(); ++it) {
        (*it)->kv = -1;
        (*it)->computed = (*it)->planned = 0;
        waiting_.push_front(std::move(*it));
    }
}

void Scheduler::no_room(std::vector<RequestId>& lost) {
    for (const auto& s : running_) s->planned = 0;
    outputs_.clear();
    if (running_.size() == 1) {
        lost.push_back(running_.back()->request.id);
        leave(*running_.back());
        running_.pop_back();
        return;
    }
    preempt_last();
}

const Sequence* Scheduler::find(RequestId id) const {
    for (const auto& s : running_) {
        if (s->request.id == id) return s.get();
    }
    for (const auto& s : waiting_) {
        if (s->request.id == id) return s.get();
    }
    return nullptr;
}

protocol::LoadReport Scheduler::load() const {
    protocol::LoadReport report;
    report.running = static_cast<std::uint32_t>(running_.size());
    report.waiting = static_cast<std::uint32_t>(waiting_.size());
    report.running_limit = options_.max_running;
    report.waiting_limit = options_.max_waiting;
    for (const auto& s : waiting_) report.waiting_tokens += size_of(*s);
    report.kv_total_tokens = options_.kv_tokens;
    report.kv_cached_tokens = std::uint64_t{cache_.idle_blocks()} * options_.block_tokens;
    report.kv_used_tokens = used_cells();
    return report;
}

}  // namespace stator::engine::llama
