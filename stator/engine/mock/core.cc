#include "stator/engine/mock/core.h"

#include <algorithm>
#include <utility>

#include "stator/base/check.h"
#include "stator/engine/mock/core_impl.h"

namespace stator::engine::mock {

using protocol::FinishReason;

Core::Impl::Impl(CoreOptions o)
    : options(std::move(o)),
      memory(options),
      source({options.alphabet, options.vocab_size, options.eos, options.mean_output_tokens}),
      encoder_cache(options.encoder_cache_tokens),
      adapters(options.max_adapters),
      noise(static_cast<std::minstd_rand::result_type>(options.seed * 2'654'435'761U + 1)) {
    STATOR_CHECK(options.block_tokens > 0 && options.step_tokens > 0 && options.max_running > 0,
                 "a core can compute something");
}

Result<void> Core::Impl::check(const CoreRequest& r) const {
    if (by_id.contains(r.id.value)) {
        return error(ErrorCode::kInvalidArgument, "request {} is here already", r.id.value);
    }
    if (r.leg == Leg::kEncode) {
        if (r.images.empty()) {
            return error(ErrorCode::kInvalidArgument, "there is no image to encode");
        }
        return {};
    }
    const std::uint64_t prompt =
        r.blocks.size() * std::uint64_t{options.block_tokens} + r.tail.size();
    if (prompt == 0 || r.max_tokens == 0 || r.tail.size() >= options.block_tokens) {
        return error(ErrorCode::kInvalidArgument,
                     "a request needs a prompt, cut into blocks of {} tokens, and one token to "
                     "generate; it has {} blocks, {} further tokens and asks for {}",
                     options.block_tokens, r.blocks.size(), r.tail.size(), r.max_tokens);
    }
    if (prompt + r.max_tokens > options.context_tokens) {
        return error(ErrorCode::kInvalidArgument,
                     "{} prompt tokens and {} to generate do not fit the context of {} tokens",
                     prompt, r.max_tokens, options.context_tokens);
    }
    // The last token's KV is never needed.
    const std::uint64_t needed = r.leg == Leg::kPrefill ? prompt : prompt + r.max_tokens - 1;
    const std::uint64_t memory_tokens = std::uint64_t{options.blocks} * options.block_tokens;
    if (needed > memory_tokens) {
        return error(ErrorCode::kInvalidArgument,
                     "{} prompt tokens and {} to generate do not fit the KV memory of {} blocks of "
                     "{} tokens",
                     prompt, r.max_tokens, options.blocks, options.block_tokens);
    }
    return {};
}

Result<void> Core::Impl::submit(CoreRequest request) {
    if (auto ok = check(request); !ok) return ok;
    if (waiting.size() + running.size() >= std::size_t{options.max_waiting} + options.max_running) {
        auto full =
            error(ErrorCode::kOverloaded, "the engine's queue is full: {} requests run and {} wait",
                  running.size(), waiting.size());
        full.value().retryable = true;
        full.value().retry_after_ms = 1000;
        return full;
    }
    if (free_slots.empty()) {
        free_slots.push_back(static_cast<Slot>(sequences.size()));
        sequences.emplace_back();
    }
    const Slot slot = free_slots.back();
    free_slots.pop_back();
    Sequence& s = sequences[slot];
    s.request = std::move(request);
    s.names = std::move(s.request.blocks);
    s.partial = std::move(s.request.tail);
    s.known = static_cast<std::uint32_t>(s.names.size() * options.block_tokens + s.partial.size());
    s.prompt_tokens = s.known;
    s.arrival = arrivals++;
    by_id.emplace(s.request.id.value, slot);
    enqueue(slot, false);
    return {};
}

void Core::Impl::enqueue(Slot slot, bool first_of_its_priority) {
    Sequence& s = sequences[slot];
    s.state = Sequence::State::kWaiting;
    waiting_tokens += s.known;
    const std::int32_t priority = s.request.priority;
    const auto place = std::ranges::find_if(waiting, [&](Slot other) {
        const std::int32_t theirs = sequences[other].request.priority;
        return first_of_its_priority ? theirs <= priority : theirs < priority;
    });
    waiting.insert(place, slot);
}

void Core::Impl::free_blocks(Sequence& s) {
    // The end of a prefix goes first when room is needed: what is left of it is still of use.
    for (std::size_t i = s.blocks.size(); i-- > 0;) memory.device().release(s.blocks[i]);
    s.blocks.clear();
    s.computed = 0;
    s.copied = 0;
}

void Core::Impl::end(Slot slot, std::optional<FinishReason> reason,
                     std::optional<TokenId> last_token) {
    Sequence& s = sequences[slot];
    if (reason) {
        CoreOutput o;
        o.id = s.request.id;
        o.token = last_token.value_or(0);
        o.has_token = last_token.has_value();
        o.first = !s.mentioned;
        o.finish = reason;
        o.prompt_tokens = s.prompt_tokens;
        o.cached_tokens = s.cached;
        out.push_back(o);
    }
    switch (s.state) {
        case Sequence::State::kWaiting:
        case Sequence::State::kCopying:
            waiting_tokens -= s.known;
            if (s.state == Sequence::State::kCopying) --copying;
            std::erase(waiting, slot);
            break;
        case Sequence::State::kRunning:
            std::erase(running, slot);
            break;
        case Sequence::State::kHeld:
            break;
        case Sequence::State::kFree:
            STATOR_BUG("a sequence ends once");
            return;
    }
    free_blocks(s);
    free_slot(slot);
}

void Core::Impl::free_slot(Slot slot) {
    by_id.erase(sequences[slot].request.id.value);
    // Keeps the vectors' memory for the next request.
    Sequence& s = sequences[slot];
    Sequence fresh;
    fresh.blocks = std::move(s.blocks);
    fresh.names = std::move(s.names);
    fresh.partial = std::move(s.partial);
    fresh.blocks.clear();
    fresh.names.clear();
    fresh.partial.clear();
    s = std::move(fresh);
    free_slots.push_back(slot);
}

void Core::Impl::end_cancelled() {
    for (const Slot slot : cancelled) end(slot, FinishReason::kCancelled, std::nullopt);
    cancelled.clear();
}

Core::Core(CoreOptions options) : impl_(std::make_unique<Impl>(std::move(options))) {}
Core::Core(Core&&) noexcept = default;
Core& Core::operator=(Core&&) noexcept = default;
Core::~Core() = default;

const CoreOptions& Core::options() const { return impl_->options; }

Result<void> Core::submit(CoreRequest request) { return impl_->submit(std::move(request)); }

void Core::cancel(RequestId id) {
    const auto found = impl_->by_id.find(id.value);
    if (found == impl_->by_id.end()) return;
    Sequence& s = impl_->sequences[found->second];
    if (s.state == Sequence::State::kHeld) return release(id);
    if (s.cancelled) return;
    s.cancelled = true;
    impl_->cancelled.push_back(found->second);
}

void Core::release(RequestId id) {
    const auto found = impl_->by_id.find(id.value);
    if (found == impl_->by_id.end()) return;
    if (impl_->sequences[found->second].state != Sequence::State::kHeld) return;
    impl_->end(found->second, std::nullopt, std::nullopt);
}

void Core::clear_cache() {
    impl_->memory.clear();
    impl_->encoder_cache.clear();
    // What a request computed before is gone, so that its later blocks would hang in the air.
    for (Sequence& s : impl_->sequences) {
        if (!s.blocks.empty()) s.cacheable = false;
    }
}

std::optional<StepPlan> Core::begin_step(Nanos now) { return impl_->begin_step(now); }
void Core::end_step(std::vector<CoreOutput>& outputs) { impl_->end_step(outputs); }

void Core::drain_ended(std::vector<CoreOutput>& outputs) {
    if (!impl_->in_step) impl_->end_cancelled();
    outputs.insert(outputs.end(), impl_->out.begin(), impl_->out.end());
    impl_->out.clear();
}

std::optional<Nanos> Core::next_ready() const {
    std::optional<Nanos> next;
    if (impl_->copying == 0) return next;
    for (const Impl::Slot slot : impl_->waiting) {
        const Sequence& s = impl_->sequences[slot];
        if (s.state == Sequence::State::kCopying && (!next || s.ready < *next)) next = s.ready;
    }
    return next;
}

void Core::take_changes(std::vector<KvChange>& changes) { impl_->memory.take_changes(changes); }

Core::CachedPrefix Core::cached_prefix(std::span<const SequenceHash> blocks) const {
    const Memory::Found found = impl_->memory.find(blocks);
    return {found.device, found.slow};
}

protocol::LoadReport Core::load() const {
    const BlockPool& device = impl_->memory.device();
    const std::uint64_t block = impl_->options.block_tokens;
    protocol::LoadReport load;
    load.running = static_cast<std::uint32_t>(impl_->running.size());
    load.waiting = static_cast<std::uint32_t>(impl_->waiting.size());
    load.running_limit = impl_->options.max_running;
    load.waiting_limit = impl_->options.max_waiting;
    load.waiting_tokens = impl_->waiting_tokens;
    load.kv_used_tokens = device.in_use() * block;
    load.kv_cached_tokens = (device.cached() + impl_->memory.slow_blocks()) * block;
    load.kv_total_tokens = device.capacity() * block;
    return load;
}

protocol::ForwardPassMetrics Core::metrics() const { return impl_->totals; }

bool Core::idle() const { return impl_->by_id.empty() && impl_->out.empty(); }

std::vector<SequenceHash> Core::cached_blocks(KvTier tier) const {
    auto names = impl_->memory.names(tier);
    std::ranges::sort(names);
    return names;
}

}  // namespace stator::engine::mock
