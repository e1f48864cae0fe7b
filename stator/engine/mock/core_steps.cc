#include <algorithm>
#include <cmath>
#include <numbers>

#include "stator/base/check.h"
#include "stator/engine/mock/core_impl.h"
#include "stator/tokens/hash.h"

namespace stator::engine::mock {
namespace {

using protocol::FinishReason;

/// Sum of the lengths before each of `tokens` tokens that follow `before` others.
std::uint64_t context_sum(std::uint64_t before, std::uint64_t tokens) {
    return before * tokens + tokens * (tokens - 1) / 2;
}

/// A factor around 1 with this standard deviation, never so small that time stands still.
double noisy_factor(double deviation, std::minstd_rand& random) {
    // Box and Muller's method.
    constexpr double kRange = std::minstd_rand::max();
    const double u = random() / kRange;
    const double v = random() / kRange;
    const double normal = std::sqrt(-2.0 * std::log(u)) * std::cos(2.0 * std::numbers::pi * v);
    return std::max(0.1, 1.0 + deviation * normal);
}

}  // namespace

std::optional<StepPlan> Core::Impl::begin_step(Nanos at) {
    STATOR_CHECK(!in_step, "the step before has ended");
    now = at;
    end_cancelled();
    if (copying > 0) finish_copies();
    planned.clear();
    encoded.clear();
    shape = {};
    extra = Nanos{0};
    preempted = false;
    std::uint32_t budget = options.step_tokens;
    plan_running(budget);
    // Who has just lost its blocks would only take them back, unless nobody else runs.
    if (!waiting.empty() && (!preempted || planned.empty())) plan_waiting(budget);
    if (planned.empty() && encoded.empty()) return std::nullopt;
    in_step = true;
    StepPlan plan{options.step_time.of(shape) + extra, shape};
    if (options.noise > 0) {
        const double factor = noisy_factor(options.noise, noise);
        plan.duration = Nanos(std::llround(static_cast<double>(plan.duration.count()) * factor));
    }
    ++totals.steps;
    totals.model_seconds += to_seconds(plan.duration);
    return plan;
}

void Core::Impl::finish_copies() {
    for (const Slot slot : waiting) {
        Sequence& s = sequences[slot];
        if (s.state != Sequence::State::kCopying || s.ready > now) continue;
        s.state = Sequence::State::kWaiting;
        --copying;
        const std::uint32_t before = s.computed;
        s.computed = s.copied;
        publish_blocks(s, before);
    }
}

void Core::Impl::plan_running(std::uint32_t& budget) {
    // Preemption shortens the list while it is gone through.
    for (std::size_t i = 0; i < running.size() && budget > 0; ++i) {
        const Slot slot = running[i];
        Sequence& s = sequences[slot];
        const std::uint32_t tokens = std::min(s.known - s.computed, budget);
        while (!grow(s, tokens)) {
            if (!make_room(slot)) return;
        }
        plan(slot, tokens, budget);
    }
}

/// Blocks for `tokens` more tokens; false, and nothing taken, where there are too few.
bool Core::Impl::grow(Sequence& s, std::uint32_t tokens) {
    const std::uint32_t needed = blocks_for(s.computed + tokens);
    if (needed <= s.blocks.size()) return true;
    if (needed - s.blocks.size() > memory.device().available()) return false;
    while (s.blocks.size() < needed) s.blocks.push_back(memory.allocate(now));
    return true;
}

/// Takes the blocks of the running request that matters least, the last one among equals, of those
/// that this step has not planned. False: it was `slot` itself.
bool Core::Impl::make_room(Slot slot) {
    std::size_t victim = running.size();
    for (std::size_t i = planned.size(); i < running.size(); ++i) {
        if (victim == running.size() ||
            sequences[running[i]].request.priority <= sequences[running[victim]].request.priority) {
            victim = i;
        }
    }
    STATOR_ASSERT(victim < running.size());
    const Slot chosen = running[victim];
    preempt(chosen);
    return chosen != slot;
}

void Core::Impl::preempt(Slot slot) {
    Sequence& s = sequences[slot];
    std::erase(running, slot);
    free_blocks(s);
    enqueue(slot, true);
    preempted = true;
    ++totals.preemptions;
}

void Core::Impl::plan_waiting(std::uint32_t& budget) {
    for (std::size_t i = 0; i < waiting.size() && budget > 0;) {
        const Slot slot = waiting[i];
        if (sequences[slot].request.leg == Leg::kEncode) {
            waiting.erase(waiting.begin() + static_cast<std::ptrdiff_t>(i));
            plan_encoding(slot);
            continue;
        }
        if (running.size() >= options.max_running) {
            ++i;  // somebody behind may only want images encoded
            continue;
        }
        switch (admit(slot, budget)) {
            case Admission::kRuns:
                waiting.erase(waiting.begin() + static_cast<std::ptrdiff_t>(i));
                break;
            case Admission::kCopies:
            case Admission::kPassedOver:
                ++i;
                break;
            case Admission::kNoRoom:
                // Blocks held by those who wait too must not stop everybody.
                if (!planned.empty() || !strip_a_waiting_one(slot)) return;
                break;
        }
    }
}

Core::Impl::Admission Core::Impl::admit(Slot slot, std::uint32_t& budget) {
    Sequence& s = sequences[slot];
    if (s.state == Sequence::State::kCopying) return Admission::kPassedOver;
    if (s.request.adapter != 0 && !adapter_fits(s.request.adapter)) return Admission::kPassedOver;
    if (s.blocks.empty()) {
        if (!bring_prefix(s)) return Admission::kNoRoom;
        if (s.state == Sequence::State::kCopying) return Admission::kCopies;
    }
    if (s.request.leg == Leg::kDecode && !s.handed_off) {
        if (!receive_handoff(s)) return Admission::kNoRoom;
        if (s.state == Sequence::State::kCopying) return Admission::kCopies;
    }
    std::uint32_t tokens = s.known - s.computed;
    if (tokens > budget) {
        if (options.chunked_prefill) {
            tokens = budget;
        } else if (!planned.empty()) {
            return Admission::kNoRoom;
        }
    }
    if (!grow(s, tokens)) {
        // A prefix is not kept from others by who can't run; what was copied for it is.
        if (s.copied == 0) free_blocks(s);
        return Admission::kNoRoom;
    }
    settle_cached(s);
    waiting_tokens -= s.known;
    s.state = Sequence::State::kRunning;
    running.push_back(slot);
    plan(slot, tokens, budget);
    return Admission::kRuns;
}

/// Uses the blocks that are here; starts the copy of those that lie behind (kCopying). False: no
/// room for that copy; then nothing is taken.
bool Core::Impl::bring_prefix(Sequence& s) {
    // At least one token is computed, for there must be something to draw the next one from.
    const std::uint32_t most = (s.known - 1) / options.block_tokens;
    const std::span<const SequenceHash> names(s.names.data(),
                                              std::min<std::size_t>(most, s.names.size()));
    Memory::Found found;
    if (s.cacheable) found = memory.find(names);
    for (std::uint32_t i = 0; i < found.device; ++i) {
        s.blocks.push_back(memory.device().find(names[i]));
        memory.device().share(s.blocks.back());
    }
    s.computed = found.device * options.block_tokens;
    if (found.slow > memory.device().available()) {
        free_blocks(s);
        return false;
    }
    if (!s.looked_up) s.cached = (found.device + found.slow) * options.block_tokens;
    restore_prefix(s);
    if (found.slow == 0) return true;
    settle_cached(s);
    const auto slow = names.subspan(found.device, found.slow);
    s.ready = memory.read(slow, now);
    s.copied = s.computed + found.slow * options.block_tokens;
    for (std::uint32_t i = 0; i < found.slow; ++i) s.blocks.push_back(memory.allocate(now));
    s.state = Sequence::State::kCopying;
    ++copying;
    return true;
}

/// What the first start found is what counts, whatever a preemption loses later.
void Core::Impl::settle_cached(Sequence& s) {
    if (s.looked_up) return;
    s.looked_up = true;
    totals.cached_tokens += s.cached;
}

/// A decode leg gets the KV of all but the prompt's last token, less what is here already.
bool Core::Impl::receive_handoff(Sequence& s) {
    const std::uint32_t upto = s.prompt_tokens - 1;
    const std::uint32_t missing = upto > s.computed ? upto - s.computed : 0;
    if (!grow(s, missing)) return false;
    s.handed_off = true;
    if (!s.looked_up) s.cached = upto;
    settle_cached(s);
    const double bytes = static_cast<double>(options.kv_bytes_per_token) * missing;
    const double ns = options.handoff_gb_per_s > 0 ? bytes / options.handoff_gb_per_s : 0.0;
    s.ready = now + options.handoff_latency + Nanos(std::llround(ns));
    s.copied = std::max(s.computed, upto);
    s.state = Sequence::State::kCopying;
    ++copying;
    return true;
}

/// Takes back the blocks of somebody else who waits, the last one first.
bool Core::Impl::strip_a_waiting_one(Slot but) {
    if (!running.empty()) return false;
    for (std::size_t i = waiting.size(); i-- > 0;) {
        Sequence& s = sequences[waiting[i]];
        if (waiting[i] == but || s.state != Sequence::State::kWaiting || s.blocks.empty()) continue;
        free_blocks(s);
        s.handed_off = false;
        return true;
    }
    return false;
}

bool Core::Impl::adapter_fits(std::uint32_t adapter) const {
    std::vector<std::uint32_t> others;
    for (const Slot slot : running) {
        const std::uint32_t a = sequences[slot].request.adapter;
        if (a == adapter) return true;
        if (a != 0 && std::ranges::find(others, a) == others.end()) others.push_back(a);
    }
    return others.size() < options.max_adapters;
}

void Core::Impl::plan(Slot slot, std::uint32_t tokens, std::uint32_t& budget) {
    const Sequence& s = sequences[slot];
    planned.push_back({slot, tokens});
    budget -= std::min(budget, tokens);
    if (s.request.adapter != 0 && !adapters.use(s.request.adapter, 1)) {
        extra += options.adapter_load;
    }
    if (s.decoding()) {
        ++shape.decode_sequences;
        shape.decode_context += s.known;
    } else {
        shape.prefill_tokens += tokens;
        ++shape.prefill_sequences;
        shape.prefill_context += context_sum(s.computed, tokens);
        if (!s.request.images.empty()) plan_images(s, tokens);
    }
}

/// An image is encoded with the first chunk that reaches it, unless its encoding is kept.
void Core::Impl::plan_images(const Sequence& s, std::uint32_t tokens) {
    for (const CoreImage& image : s.request.images) {
        if (image.position + image.tokens <= s.computed) continue;
        if (image.position >= s.computed + tokens) break;
        if (encoder_cache.use(image.content, image.tokens)) continue;
        ++shape.images;
        shape.image_tokens += image.tokens;
    }
}

void Core::Impl::plan_encoding(Slot slot) {
    Sequence& s = sequences[slot];
    waiting_tokens -= s.known;
    s.state = Sequence::State::kRunning;
    encoded.push_back(slot);
    for (const CoreImage& image : s.request.images) {
        if (encoder_cache.use(image.content, image.tokens)) continue;
        ++shape.images;
        shape.image_tokens += image.tokens;
    }
}

void Core::Impl::end_step(std::vector<CoreOutput>& outputs) {
    STATOR_CHECK(in_step, "a step has begun");
    in_step = false;
    for (const Planned& done : planned) complete(done);
    for (const Slot slot : encoded) {
        if (!sequences[slot].cancelled) end(slot, FinishReason::kStop, std::nullopt);
    }
    end_cancelled();
    outputs.insert(outputs.end(), out.begin(), out.end());
    out.clear();
}

void Core::Impl::complete(const Planned& done) {
    Sequence& s = sequences[done.slot];
    if (s.decoding()) {
        ++totals.decode_tokens;
    } else {
        totals.prefill_tokens += done.tokens;
    }
    const std::uint32_t before = s.computed;
    s.computed += done.tokens;
    publish_blocks(s, before);
    if (s.cancelled || s.computed < s.known) return;
    if (s.request.leg == Leg::kPrefill) {
        CoreOutput o;
        o.id = s.request.id;
        o.first = true;
        o.finish = FinishReason::kLength;
        o.prompt_tokens = s.prompt_tokens;
        o.cached_tokens = s.cached;
        out.push_back(o);
        std::erase(running, done.slot);
        s.state = Sequence::State::kHeld;
        return;
    }
    produce(done.slot);
}

/// The blocks that became whole since `before` tokens were computed.
void Core::Impl::publish_blocks(Sequence& s, std::uint32_t before) {
    const std::uint32_t first = before / options.block_tokens;
    const std::uint32_t last = s.computed / options.block_tokens;
    for (std::uint32_t i = first; i < last; ++i) {
        memory.device().set_content(s.blocks[i], content_of(s, i));
        if (s.cacheable) memory.publish(s.blocks[i], s.names, i, s.request.id);
    }
    if (first != last) restore_prefix(s);
}

/// What the model computes for block i, given the KV before it: the block's own name if that KV is
/// of the prefix it should be, something else if not.
SequenceHash Core::Impl::content_of(const Sequence& s, std::uint32_t block) const {
    const SequenceHash name = s.names[block];
    if (block == 0) return name;
    const SequenceHash before = memory.device().content(s.blocks[block - 1]);
    if (before == s.names[block - 1]) return name;
    return tokens::sequence_hash(before, tokens::BlockHash(name.value));
}

/// Reads the prefix's state back from the last whole block's KV.
void Core::Impl::restore_prefix(Sequence& s) {
    const std::size_t whole = s.names.size();
    // Nothing is drawn before all of it is computed.
    if (s.computed / options.block_tokens < whole) return;
    s.prefix = whole == 0 ? PrefixState{s.request.hash_seed}
                          : PrefixState::after(memory.device().content(s.blocks[whole - 1]));
    for (const TokenId token : s.partial) s.prefix.push(token);
}

void Core::Impl::produce(Slot slot) {
    Sequence& s = sequences[slot];
    const CoreRequest& r = s.request;
    const bool may_end = s.produced >= r.min_tokens;
    const TokenId token = source.next(s.prefix, s.known, r.token_seed, may_end && !r.ignore_eos);
    ++s.produced;
    const bool stops =
        may_end && ((!r.ignore_eos && options.mean_output_tokens != 0 && token == source.eos()) ||
                    std::ranges::find(r.stop_tokens, token) != r.stop_tokens.end());
    if (stops) return end(slot, FinishReason::kStop, token);
    if (s.produced == r.max_tokens) return end(slot, FinishReason::kLength, token);
    CoreOutput o;
    o.id = r.id;
    o.token = token;
    o.has_token = true;
    o.first = !s.mentioned;
    if (o.first) {
        o.prompt_tokens = s.prompt_tokens;
        o.cached_tokens = s.cached;
    }
    out.push_back(o);
    s.mentioned = true;
    learn_token(s, token);
}

void Core::Impl::learn_token(Sequence& s, TokenId token) {
    s.partial.push_back(token);
    s.prefix.push(token);
    ++s.known;
    if (s.partial.size() < options.block_tokens) return;
    const tokens::BlockHash block = tokens::block_hash(s.partial, s.request.hash_seed);
    s.names.push_back(s.names.empty() ? tokens::sequence_hash(block)
                                      : tokens::sequence_hash(s.names.back(), block));
    s.partial.clear();
}

}  // namespace stator::engine::mock
