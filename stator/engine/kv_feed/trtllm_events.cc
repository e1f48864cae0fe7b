#include "stator/engine/kv_feed/trtllm_events.h"

#include <algorithm>
#include <array>
#include <optional>

#include "stator/codec/json.h"
#include "stator/codec/msgpack.h"

namespace stator::engine {
namespace {

using codec::JsonView;
using codec::MsgpackWriter;

constexpr std::uint64_t kMostRanks = 1024;
constexpr std::array<std::string_view, 2> kMedia{"GPU", "CPU"};

/// Blocks one behind the other, of one size and in one memory: one event.
struct Stored {
    std::optional<std::uint64_t> parent;
    std::vector<std::uint64_t> hashes;
    std::vector<std::uint64_t> tokens;
    std::size_t block_tokens = 0;
    std::uint64_t level = 0;
    bool opaque = false;
};

void write(MsgpackWriter& w, const Stored& s) {
    w.map(s.parent ? 6 : 5);
    w.string("type").string("BlockStored").string("block_hashes").array(s.hashes.size());
    for (const std::uint64_t hash : s.hashes) w.number(hash);
    if (s.parent) w.string("parent_block_hash").number(*s.parent);
    w.string("token_ids").array(s.tokens.size());
    for (const std::uint64_t token : s.tokens) {
        // What is no number is not known, and what hangs on it neither.
        if (s.opaque) {
            w.string("");
        } else {
            w.number(token);
        }
    }
    w.string("block_size").number(s.block_tokens);
    w.string("medium").string(kMedia[std::min<std::uint64_t>(s.level, kMedia.size() - 1)]);
}

std::vector<Stored> stored(JsonView data) {
    std::vector<Stored> out;
    std::optional<std::uint64_t> parent = data.find("parent_hash").as_uint();
    data.find("blocks").each_element([&](std::size_t, JsonView block) {
        const auto hash = block.find("block_hash").as_uint();
        if (!hash) return false;  // what follows hangs on it
        Stored one;
        one.parent = parent;
        one.level = block.find("cache_level").as_uint().value_or(0);
        one.opaque = block.find("mm_keys").size() > 0;
        block.find("tokens").each_element([&](std::size_t, JsonView token) {
            const auto id = token.find("token_id").as_uint();
            one.opaque |= !id || token.find("token_extra_id").as_uint().value_or(0) != 0;
            one.tokens.push_back(id.value_or(0));
            return true;
        });
        one.block_tokens = one.tokens.size();
        parent = hash;
        Stored* last = out.empty() ? nullptr : &out.back();
        if (last != nullptr && last->block_tokens == one.block_tokens && last->level == one.level &&
            last->opaque == one.opaque) {
            last->hashes.push_back(*hash);
            last->tokens.insert(last->tokens.end(), one.tokens.begin(), one.tokens.end());
        } else {
            one.hashes.push_back(*hash);
            out.push_back(std::move(one));
        }
        return true;
    });
    return out;
}

void write_events(MsgpackWriter& w, JsonView data) {
    const auto type = data.find("type").as_string().value_or("");
    if (type == "created") {
        w.array(1).map(1).string("type").string("AllBlocksCleared");
    } else if (type == "stored") {
        const auto all = stored(data);
        w.array(all.size());
        for (const Stored& s : all) write(w, s);
    } else if (type == "removed") {
        std::vector<std::uint64_t> hashes;
        data.find("block_hashes").each_element([&](std::size_t, JsonView v) {
            if (const auto hash = v.as_uint()) hashes.push_back(*hash);
            return true;
        });
        w.array(kMedia.size());
        for (const std::string_view medium : kMedia) {
            w.map(3).string("type").string("BlockRemoved").string("medium").string(medium);
            w.string("block_hashes").array(hashes.size());
            for (const std::uint64_t hash : hashes) w.number(hash);
        }
    } else {
        w.array(0);
    }
}

}  // namespace

Result<std::vector<TrtllmMessage>> TrtllmEventReader::read(std::string_view body, double time) {
    codec::JsonDocument document;
    const auto root = document.parse(body);
    if (!root) return tl::unexpected<Error>(root.error());
    if (root->type() != codec::JsonType::kArray) {
        return error(ErrorCode::kInvalidArgument, "the KV events are no list");
    }
    std::vector<TrtllmMessage> out;
    out.reserve(root->size());
    root->each_element([&](std::size_t, JsonView event) {
        const auto number = event.find("event_id").as_uint();
        const auto rank = event.find("attention_dp_rank").as_uint().value_or(0);
        if (!number || rank >= kMostRanks) return true;
        TrtllmMessage message{
            .rank = static_cast<std::uint32_t>(rank), .number = *number, .payload = {}};
        const std::uint64_t window = event.find("window_size").as_uint().value_or(0);
        std::uint64_t& largest = windows_[message.rank];
        largest = std::max(largest, window);
        MsgpackWriter w(message.payload);
        w.array(3).real(time);
        if (window < largest) {
            w.array(0);
        } else {
            write_events(w, event.find("data"));
        }
        w.number(rank);
        out.push_back(std::move(message));
        return true;
    });
    return out;
}

}  // namespace stator::engine
