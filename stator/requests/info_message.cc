#include <algorithm>

#include "stator/codec/msgpack.h"
#include "stator/requests/fields.h"
#include "stator/requests/messages.h"

namespace stator::requests {
namespace {

using codec::MsgpackReader;
using codec::MsgpackWriter;
using protocol::Artifact;
using protocol::EventEndpoint;
using protocol::ModelCard;
using protocol::RankInfo;
using protocol::RecommendedSampling;
using protocol::Role;
using protocol::WorkerInfo;

constexpr std::size_t kMaxRanks = 1024;
constexpr std::size_t kMaxLabels = 64;
constexpr std::size_t kMaxRoles = 8;
constexpr std::size_t kMaxAliases = 64;
constexpr std::size_t kMaxMethods = 16;
constexpr std::size_t kMaxMedia = 16;

Field read_name(MsgpackReader& r, std::string& to) { return read_text(r, to, kMaxNameBytes); }

void write_name(MsgpackWriter& w, std::string_view key, std::string_view text) {
    w.string(key);
    write_text(w, text, kMaxNameBytes);
}

void write_names(MsgpackWriter& w, std::string_view key, const std::vector<std::string>& names) {
    w.string(key).array(names.size());
    for (const auto& name : names) write_text(w, name, kMaxNameBytes);
}

Field read_names(MsgpackReader& r, std::vector<std::string>& to, std::size_t limit) {
    return read_array(r, to, limit, [](MsgpackReader& reader, std::string& name) {
        return read_text(reader, name, kMaxNameBytes);
    });
}

void write_artifact(MsgpackWriter& w, const Artifact& a) {
    w.map(3);
    write_name(w, "kind", a.kind);
    write_name(w, "sha256", a.sha256);
    w.string("size").number(a.bytes);
}

bool is_digest(std::string_view text) {
    return text.size() == 64 && std::ranges::all_of(text, [](char c) {
               return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f');
           });
}

Result<void> read_artifact(MsgpackReader& r, Artifact& a) {
    if (auto ok = each_field(r,
                             [&](std::string_view key, MsgpackReader&) -> Field {
                                 if (key == "kind") return read_name(r, a.kind);
                                 if (key == "sha256") return read_name(r, a.sha256);
                                 if (key == "size") return read_value(r, a.bytes);
                                 return Field::unknown();
                             });
        !ok) {
        return ok;
    }
    // A worker that is loading does not know its artifacts yet: check_info() asks for them later.
    if (is_digest(a.sha256) || a.sha256.empty()) return {};
    return error(ErrorCode::kInvalidArgument, "\"{}\" is no SHA-256 in lower-case hex digits",
                 a.sha256);
}

void write_sampling(MsgpackWriter& w, const RecommendedSampling& s) {
    w.map((s.temperature ? 1U : 0U) + (s.top_p ? 1U : 0U) + (s.top_k ? 1U : 0U) +
          (s.min_p ? 1U : 0U));
    if (s.temperature) w.string("t").real32(*s.temperature);
    if (s.top_p) w.string("p").real32(*s.top_p);
    if (s.top_k) w.string("k").integer(*s.top_k);
    if (s.min_p) w.string("mp").real32(*s.min_p);
}

Result<void> read_sampling(MsgpackReader& r, RecommendedSampling& s) {
    return each_field(r, [&](std::string_view key, MsgpackReader&) -> Field {
        if (key == "t") return read_value(r, s.temperature.emplace());
        if (key == "p") return read_value(r, s.top_p.emplace());
        if (key == "k") return read_value(r, s.top_k.emplace());
        if (key == "mp") return read_value(r, s.min_p.emplace());
        return Field::unknown();
    });
}

void write_card(MsgpackWriter& w, const ModelCard& c) {
    w.map(12 + (c.chat_template ? 1U : 0U) + (c.structured_output ? 1U : 0U) +
          (c.tool_format.empty() ? 0U : 1U) + (c.reasoning_format.empty() ? 0U : 1U) +
          (c.media.empty() ? 0U : 1U) + (c.media_digest.empty() ? 0U : 1U) +
          (c.media_mark.empty() ? 0U : 1U) + (c.kv_bytes_per_token == 0 ? 0U : 1U) +
          (c.adapters.empty() ? 0U : 1U));
    write_name(w, "name", c.name);
    write_names(w, "alias", c.aliases);
    write_name(w, "title", c.title);
    write_name(w, "weights", c.weights_digest);
    w.string("tok");
    write_artifact(w, c.tokenizer);
    if (c.chat_template) {
        w.string("tmpl");
        write_artifact(w, *c.chat_template);
    }
    w.string("vocab").number(c.vocab_size);
    w.string("ctx").number(c.context_tokens);
    w.string("block").number(c.block_tokens);
    write_name(w, "hash", c.hash_scheme);
    write_name(w, "kv", c.kv_layout);
    if (c.kv_bytes_per_token != 0) w.string("kvbytes").number(c.kv_bytes_per_token);
    w.string("top").number(c.max_top_logprobs);
    if (c.structured_output) w.string("guide").boolean(true);
    w.string("rec");
    write_sampling(w, c.sampling);
    if (!c.tool_format.empty()) write_name(w, "toolfmt", c.tool_format);
    if (!c.reasoning_format.empty()) write_name(w, "thinkfmt", c.reasoning_format);
    if (!c.media.empty()) write_names(w, "media", c.media);
    if (!c.media_digest.empty()) write_name(w, "encoder", c.media_digest);
    if (!c.media_mark.empty()) write_name(w, "mark", c.media_mark);
    if (!c.adapters.empty()) write_names(w, "lora", c.adapters);
}

Result<void> read_card(MsgpackReader& r, ModelCard& c) {
    return each_field(r, [&](std::string_view key, MsgpackReader&) -> Field {
        if (key == "name") return read_name(r, c.name);
        if (key == "alias") return read_names(r, c.aliases, kMaxAliases);
        if (key == "title") return read_name(r, c.title);
        if (key == "weights") return read_name(r, c.weights_digest);
        if (key == "tok") return read_artifact(r, c.tokenizer);
        if (key == "tmpl") return read_artifact(r, c.chat_template.emplace());
        if (key == "vocab") return read_value(r, c.vocab_size);
        if (key == "ctx") return read_value(r, c.context_tokens);
        if (key == "block") return read_value(r, c.block_tokens);
        if (key == "hash") return read_name(r, c.hash_scheme);
        if (key == "kv") return read_name(r, c.kv_layout);
        if (key == "kvbytes") return read_value(r, c.kv_bytes_per_token);
        if (key == "top") return read_value(r, c.max_top_logprobs);
        if (key == "guide") return read_value(r, c.structured_output);
        if (key == "rec") return read_sampling(r, c.sampling);
        if (key == "toolfmt") return read_name(r, c.tool_format);
        if (key == "thinkfmt") return read_name(r, c.reasoning_format);
        if (key == "media") return read_names(r, c.media, kMaxMedia);
        if (key == "encoder") return read_name(r, c.media_digest);
        if (key == "mark") return read_name(r, c.media_mark);
        if (key == "lora") return read_names(r, c.adapters, protocol::kMaxAdapters);
        return Field::unknown();
    });
}

void write_rank(MsgpackWriter& w, const RankInfo& rank) {
    w.map(4);
    w.string("rank").number(rank.rank);
    w.string("run").number(rank.max_running);
    w.string("wait").number(rank.max_waiting);
    w.string("kv").number(rank.kv_total_tokens);
}

Result<void> read_rank(MsgpackReader& r, RankInfo& rank) {
    return each_field(r, [&](std::string_view key, MsgpackReader&) -> Field {
        if (key == "rank") return read_value(r, rank.rank);
        if (key == "run") return read_value(r, rank.max_running);
        if (key == "wait") return read_value(r, rank.max_waiting);
        if (key == "kv") return read_value(r, rank.kv_total_tokens);
        return Field::unknown();
    });
}

Result<void> read_events(MsgpackReader& r, EventEndpoint& events) {
    return each_field(r, [&](std::string_view key, MsgpackReader&) -> Field {
        if (key == "addr") return read_name(r, events.address);
        if (key == "curve") return read_name(r, events.curve_public_key);
        return Field::unknown();
    });
}

Result<void> read_labels(MsgpackReader& r, std::map<std::string, std::string>& labels) {
    auto n = r.map();
    if (!n) return tl::unexpected(std::move(n.error()));
    if (*n > kMaxLabels) {
        return error(ErrorCode::kTooLarge, "{} labels, at most {}", *n, kMaxLabels);
    }
    for (std::size_t i = 0; i < *n; ++i) {
        std::string key;
        std::string value;
        if (auto ok = read_text(r, key, kMaxNameBytes); !ok) return ok;
        if (auto ok = read_text(r, value, kMaxNameBytes); !ok) return ok;
        labels.insert_or_assign(std::move(key), std::move(value));
    }
    return {};
}

/// A role of a later version is left out, so that such a worker is still of use for the others.
Result<void> read_roles(MsgpackReader& r, std::vector<Role>& roles) {
    std::vector<std::uint64_t> numbers;
    if (auto ok = read_array(r, numbers, kMaxRoles,
                             [](MsgpackReader& reader, std::uint64_t& number) {
                                 return read_value(reader, number);
                             });
        !ok) {
        return ok;
    }
    for (const std::uint64_t number : numbers) {
        if (number < 1 || number > static_cast<std::uint64_t>(Role::kEncode)) continue;
        const auto role = static_cast<Role>(number);
        if (std::ranges::find(roles, role) == roles.end()) roles.push_back(role);
    }
    return {};
}

Result<void> check_info(const WorkerInfo& info) {
    if (info.name.empty()) return error(ErrorCode::kInvalidArgument, "a worker without a name");
    if (info.roles.empty()) return error(ErrorCode::kInvalidArgument, "no role that is known here");
    if (info.ranks.empty()) return error(ErrorCode::kInvalidArgument, "no ranks");
    for (std::size_t i = 0; i < info.ranks.size(); ++i) {
        if (info.ranks[i].rank == i) continue;
        return error(ErrorCode::kInvalidArgument, "rank {} where {} is expected",
                     info.ranks[i].rank, i);
    }
    if (info.card.name.empty()) return error(ErrorCode::kInvalidArgument, "a model without a name");
    if (info.loading) return {};
    if (!is_digest(info.card.tokenizer.sha256)) {
        return error(ErrorCode::kInvalidArgument, "no digest of the tokenizer");
    }
    if (info.card.chat_template && !is_digest(info.card.chat_template->sha256)) {
        return error(ErrorCode::kInvalidArgument, "no digest of the chat template");
    }
    return {};
}

}  // namespace

void append_info(std::string& out, const protocol::WorkerInfo& info) {
    MsgpackWriter w(out);
    w.map(12 + (info.events ? 1U : 0U) + (info.decode_only ? 1U : 0U));
    write_name(w, "name", info.name);
    w.string("inc").number(info.incarnation.value);
    write_name(w, "ver", info.version);
    write_name(w, "engine", info.engine);
    w.string("roles").array(info.roles.size());
    for (const Role role : info.roles) w.number(static_cast<std::uint64_t>(role));
    w.string("card");
    write_card(w, info.card);
    w.string("ranks").array(info.ranks.size());
    for (const auto& rank : info.ranks) write_rank(w, rank);
    if (info.decode_only) w.string("donly").boolean(true);
    w.string("loading").boolean(info.loading);
    w.string("readyms").number(info.ready_in_ms);
    w.string("drain").boolean(info.draining);
    if (info.events) {
        w.string("events").map(2);
        write_name(w, "addr", info.events->address);
        write_name(w, "curve", info.events->curve_public_key);
    }
    write_names(w, "xfer", info.transfer_methods);
    w.string("labels").map(info.labels.size());
    for (const auto& [key, value] : info.labels) {
        write_text(w, key, kMaxNameBytes);
        write_text(w, value, kMaxNameBytes);
    }
}

Result<protocol::WorkerInfo> read_info(std::string_view payload) {
    WorkerInfo info;
    auto read = each_field_of(payload, [&](std::string_view key, MsgpackReader& r) -> Field {
        if (key == "name") return read_name(r, info.name);
        if (key == "inc") return read_value(r, info.incarnation.value);
        if (key == "ver") return read_name(r, info.version);
        if (key == "engine") return read_name(r, info.engine);
        if (key == "roles") return read_roles(r, info.roles);
        if (key == "card") return read_card(r, info.card);
        if (key == "ranks") return read_array(r, info.ranks, kMaxRanks, read_rank);
        if (key == "donly") return read_value(r, info.decode_only);
        if (key == "loading") return read_value(r, info.loading);
        if (key == "readyms") return read_value(r, info.ready_in_ms);
        if (key == "drain") return read_value(r, info.draining);
        if (key == "events") return read_events(r, info.events.emplace());
        if (key == "xfer") return read_names(r, info.transfer_methods, kMaxMethods);
        if (key == "labels") return read_labels(r, info.labels);
        return Field::unknown();
    });
    if (read) read = check_info(info);
    return finish_reading(std::move(read), info, "info");
}

}  // namespace stator::requests
