#include <chrono>
#include <cmath>
#include <cstring>
#include <memory>
#include <string>

#include "stator/codec/msgpack.h"
#include "stator/protocol/worker_info.h"
#include "stator/requests/fields.h"
#include "stator/requests/leg_fields.h"
#include "stator/requests/messages.h"

namespace stator::requests {
namespace {

using codec::MsgpackReader;
using codec::MsgpackWriter;
using protocol::GenerateRequest;
using protocol::OutputConstraint;
using protocol::SamplingParams;

constexpr std::size_t kBiasBytes = 8;
constexpr std::int32_t kMaxTopLogprobs = 1024;
using Micros = std::chrono::duration<std::uint64_t, std::micro>;

void write_sampling(MsgpackWriter& w, const SamplingParams& s) {
    w.map(7 + (s.seed ? 1U : 0U) + (s.logit_bias.empty() ? 0U : 1U));
    w.string("t").real32(s.temperature);
    w.string("p").real32(s.top_p);
    w.string("k").integer(s.top_k);
    w.string("mp").real32(s.min_p);
    w.string("fp").real32(s.frequency_penalty);
    w.string("pp").real32(s.presence_penalty);
    w.string("rp").real32(s.repetition_penalty);
    if (s.seed) w.string("seed").number(*s.seed);
    if (s.logit_bias.empty()) return;
    std::string bias;
    for (const auto& [token, value] : s.logit_bias) {
        std::array<char, kBiasBytes> pair{};
        std::memcpy(pair.data(), &token, 4);
        std::memcpy(pair.data() + 4, &value, 4);
        bias.append(pair.data(), pair.size());
    }
    w.string("bias").binary(bias);
}

Result<void> read_bias(MsgpackReader& r, SamplingParams& s) {
    auto bytes = r.binary();
    if (!bytes) return tl::unexpected(std::move(bytes.error()));
    if (bytes->size() % kBiasBytes != 0) {
        return error(ErrorCode::kInvalidArgument, "{} bytes, no multiple of {}", bytes->size(),
                     kBiasBytes);
    }
    s.logit_bias.resize(bytes->size() / kBiasBytes);
    for (std::size_t i = 0; i < s.logit_bias.size(); ++i) {
        std::memcpy(&s.logit_bias[i].first, bytes->data() + i * kBiasBytes, 4);
        std::memcpy(&s.logit_bias[i].second, bytes->data() + i * kBiasBytes + 4, 4);
        if (!std::isfinite(s.logit_bias[i].second)) {
            return error(ErrorCode::kInvalidArgument, "a bias that is no finite number");
        }
    }
    return {};
}

Result<void> read_sampling(MsgpackReader& r, SamplingParams& s) {
    return each_field(r, [&](std::string_view key, MsgpackReader&) -> Field {
        if (key == "t") return read_value(r, s.temperature);
        if (key == "p") return read_value(r, s.top_p);
        if (key == "k") return read_value(r, s.top_k);
        if (key == "mp") return read_value(r, s.min_p);
        if (key == "fp") return read_value(r, s.frequency_penalty);
        if (key == "pp") return read_value(r, s.presence_penalty);
        if (key == "rp") return read_value(r, s.repetition_penalty);
        if (key == "seed") return read_value(r, s.seed.emplace());
        if (key == "bias") return read_bias(r, s);
        return Field::unknown();
    });
}

Result<void> read_stop_ids(MsgpackReader& r, GenerateRequest& request) {
    auto ids = codec::read_u32_binary(r);
    if (!ids) return tl::unexpected(std::move(ids.error()));
    request.stop_token_ids = std::move(*ids);
    return {};
}

void write_constraint(MsgpackWriter& w, const OutputConstraint& c, std::uint32_t bytes_behind) {
    w.map(1 + (c.text.empty() ? 0U : 1U) + (bytes_behind == 0 ? 0U : 1U) +
          (c.after.empty() ? 0U : 1U));
    w.string("k").number(static_cast<std::uint64_t>(c.kind));
    if (!c.text.empty()) w.string("t").binary(c.text);
    if (bytes_behind != 0) w.string("n").number(bytes_behind);
    if (!c.after.empty()) w.string("after").binary(c.after);
}

Result<void> read_bytes(MsgpackReader& r, std::string& to, std::size_t limit) {
    auto bytes = r.binary();
    if (!bytes) return tl::unexpected(std::move(bytes.error()));
    if (bytes->size() > limit) {
        return error(ErrorCode::kTooLarge, "{} bytes, at most {}", bytes->size(), limit);
    }
    to.assign(*bytes);
    return {};
}

Result<void> read_constraint(MsgpackReader& r, OpenHead& head) {
    auto c = std::make_shared<OutputConstraint>();
    std::uint64_t kind = 0;
    auto read = each_field(r, [&](std::string_view key, MsgpackReader&) -> Field {
        if (key == "k") return read_value(r, kind);
        if (key == "t") return read_bytes(r, c->text, protocol::kMaxConstraintBytes);
        if (key == "n") return read_value(r, head.behind.constraint);
        if (key == "after") return read_bytes(r, c->after, protocol::kMaxAfterBytes);
        return Field::unknown();
    });
    if (!read) return read;
    if (kind < 1 || kind > static_cast<std::uint64_t>(OutputConstraint::Kind::kLark)) {
        return error(ErrorCode::kUnsupported, "kind {} of constraint is not known here", kind);
    }
    if (head.behind.constraint > protocol::kMaxConstraintBytes) {
        return error(ErrorCode::kTooLarge, "{} bytes of a constraint, at most {}",
                     head.behind.constraint, protocol::kMaxConstraintBytes);
    }
    if (head.behind.constraint != 0 && !c->text.empty()) {
        return error(ErrorCode::kInvalidArgument, "a constraint in two places");
    }
    c->kind = static_cast<OutputConstraint::Kind>(kind);
    head.request.constraint = std::move(c);
    return {};
}

Result<void> read_behind(MsgpackReader& r, BehindPrompt& behind) {
    if (auto ok = each_field(r,
                             [&](std::string_view key, MsgpackReader&) -> Field {
                                 if (key == "legs") return read_value(r, behind.legs);
                                 if (key == "pix") return read_value(r, behind.pixels);
                                 return Field::unknown();
                             });
        !ok) {
        return ok;
    }
    if (behind.legs <= kMaxLegBytes) return {};
    return error(ErrorCode::kTooLarge, "{} bytes of handoffs and media, at most {}", behind.legs,
                 kMaxLegBytes);
}

/// Of what can be said before the rest is there.
Result<void> check_leg_of(const OpenHead& head, std::uint64_t prompt_tokens) {
    if (head.behind.legs == 0) return check_legs(head.request, prompt_tokens, head.behind.pixels);
    if (leg_keys(head.request) == 0) return {};
    return error(ErrorCode::kInvalidArgument, "handoffs or media in two places");
}

/// What is not in [low, high], NaN too, is an error.
struct Range {
    std::string_view field;
    double value;
    double low;
    double high;
};

/// The worker's engine relies on these, whoever the client is.
Result<void> check_open(const OpenHead& head) {
    const GenerateRequest& q = head.request;
    const SamplingParams& s = q.sampling;
    for (const Range& range :
         {Range{"t", s.temperature, 0, 2}, Range{"p", s.top_p, 1e-38, 1},
          Range{"mp", s.min_p, 0, 1}, Range{"fp", s.frequency_penalty, -2, 2},
          Range{"pp", s.presence_penalty, -2, 2}, Range{"rp", s.repetition_penalty, 1e-38, 2},
          Range{"k", static_cast<double>(s.top_k), 0, 1e9},
          Range{"top", static_cast<double>(q.top_logprobs), -1,
                static_cast<double>(kMaxTopLogprobs)}}) {
        if (range.value >= range.low && range.value <= range.high) continue;
        return error(ErrorCode::kInvalidArgument, "field \"{}\": {} is not in [{}, {}]",
                     range.field, range.value, range.low, range.high);
    }
    const std::uint64_t behind = head.behind.words();
    if (head.prompt_tokens < behind ||
        (head.prompt_tokens == behind && q.leg != protocol::Leg::kEncode)) {
        return error(ErrorCode::kInvalidArgument, "an empty prompt");
    }
    const std::uint64_t prompt_tokens = head.prompt_tokens - behind;
    if (q.max_tokens == 0) return error(ErrorCode::kInvalidArgument, "no token is asked for");
    if (q.resumed_tokens != 0 && q.resumed_tokens >= prompt_tokens) {
        return error(ErrorCode::kInvalidArgument, "{} resumed tokens in a prompt of {}",
                     q.resumed_tokens, prompt_tokens);
    }
    return check_leg_of(head, prompt_tokens);
}

}  // namespace

void append_open(std::string& out, const OpenHead& head, TimePoint now) {
    const GenerateRequest& q = head.request;
    const bool deadline = !q.deadline.is_never();
    const bool leg = q.leg != protocol::Leg::kWhole;
    const bool behind = head.behind.legs != 0 || head.behind.pixels != 0;
    MsgpackWriter w(out);
    w.map(8 + (q.ignore_eos ? 1U : 0U) + (q.min_tokens > 0 ? 1U : 0U) +
          (q.stop_token_ids.empty() ? 0U : 1U) + (q.cache_salt != 0 ? 1U : 0U) +
          (q.resumed_tokens != 0 ? 1U : 0U) + (q.tenant.empty() ? 0U : 1U) +
          (q.traceparent.empty() ? 0U : 1U) + (deadline ? 1U : 0U) + (q.constraint ? 1U : 0U) +
          (leg ? 1U : 0U) + leg_keys(q) + (behind ? 1U : 0U) + (q.adapter.empty() ? 0U : 1U));
    w.string("book").number(head.booking);
    w.string("rank").number(head.rank);
    w.string("cred").number(head.credit);
    w.string("n").number(head.prompt_tokens);
    w.string("max").number(q.max_tokens);
    w.string("top").integer(q.top_logprobs);
    w.string("prio").integer(q.priority);
    w.string("s");
    write_sampling(w, q.sampling);
    if (q.ignore_eos) w.string("noeos").boolean(true);
    if (q.min_tokens > 0) w.string("min").number(q.min_tokens);
    if (!q.stop_token_ids.empty()) {
        w.string("stop");
        codec::append_u32_binary(w, q.stop_token_ids);
    }
    if (q.cache_salt != 0) w.string("salt").number(q.cache_salt);
    if (q.resumed_tokens != 0) w.string("resumed").number(q.resumed_tokens);
    if (!q.tenant.empty()) {
        w.string("tenant");
        write_text(w, q.tenant, kMaxNameBytes);
    }
    if (!q.traceparent.empty()) {
        w.string("trace");
        write_text(w, q.traceparent, kMaxNameBytes);
    }
    if (deadline) {
        w.string("left").number(std::chrono::duration_cast<Micros>(q.deadline.left(now)).count());
    }
    if (q.constraint) {
        // A worker that does not know the key must not generate free text instead.
        w.string("!guide");
        write_constraint(w, *q.constraint, head.behind.constraint);
    }
    if (!q.adapter.empty()) {
        // Nor the model without it.
        w.string("!lora");
        write_text(w, q.adapter, protocol::kMaxAdapterBytes);
    }
    // Nor compute something else than this leg.
    if (leg) w.string("!leg").number(static_cast<std::uint64_t>(q.leg));
    write_leg_keys(w, q, now);
    if (!behind) return;
    w.string("!behind").map(2);
    w.string("legs").number(head.behind.legs);
    w.string("pix").number(head.behind.pixels);
}

Result<OpenHead> read_open(std::string_view payload, TimePoint now, std::string_view& rest) {
    OpenHead head;
    GenerateRequest& q = head.request;
    MsgpackReader reader(payload);
    auto read = each_field(reader, [&](std::string_view key, MsgpackReader& r) -> Field {
        if (key == "book") return read_value(r, head.booking);
        if (key == "rank") return read_value(r, head.rank);
        if (key == "cred") return read_value(r, head.credit);
        if (key == "n") return read_value(r, head.prompt_tokens);
        if (key == "max") return read_value(r, q.max_tokens);
        if (key == "top") return read_value(r, q.top_logprobs);
        if (key == "prio") return read_value(r, q.priority);
        if (key == "s") return read_sampling(r, q.sampling);
        if (key == "noeos") return read_value(r, q.ignore_eos);
        if (key == "min") return read_value(r, q.min_tokens);
        if (key == "stop") return read_stop_ids(r, q);
        if (key == "salt") return read_value(r, q.cache_salt);
        if (key == "resumed") return read_value(r, q.resumed_tokens);
        if (key == "tenant") return read_text(r, q.tenant, kMaxNameBytes);
        if (key == "trace") return read_text(r, q.traceparent, kMaxNameBytes);
        if (key == "left") {
            std::uint64_t left = 0;
            auto ok = read_value(r, left);
            // Beyond a century is as good as never.
            constexpr std::uint64_t kCentury = 100ULL * 365 * 24 * 3600 * 1'000'000;
            if (ok && left < kCentury) {
                q.deadline = Deadline::after(now, std::chrono::microseconds(left));
            }
            return ok;
        }
        if (key == "!guide") return read_constraint(r, head);
        if (key == "!lora") return read_text(r, q.adapter, protocol::kMaxAdapterBytes);
        if (key == "!leg") {
            return read_enum(r, q.leg, protocol::Leg::kWhole, protocol::Leg::kEncode);
        }
        if (key == "!handoff") return read_handoff_field(r, q.handoff, now);
        if (key == "!media") return read_media_field(r, q.media, now);
        if (key == "!behind") return read_behind(r, head.behind);
        return Field::unknown();
    });
    if (read) read = check_open(head);
    if (read) rest = payload.substr(reader.position());
    return finish_reading(std::move(read), head, "open");
}

}  // namespace stator::requests
