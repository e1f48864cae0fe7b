#include "stator/engine/dialects/ec_connector.h"

#include <fmt/format.h>

#include <algorithm>

#include "stator/codec/json.h"
#include "stator/codec/json_writer.h"
#include "stator/tokens/token.h"

namespace stator::engine {

using codec::JsonType;
using codec::JsonView;
using codec::JsonWriter;

namespace {

constexpr std::size_t kMaxItems = protocol::kMaxMediaItems;

tl::unexpected<Error> not_encoded(std::string_view what) {
    return error(ErrorCode::kDataLoss, "the engine's embeddings can't be handed over: {}", what);
}

std::string text_of(JsonView v) {
    std::string out;
    v.write_to(out);
    return out;
}

bool is_count(JsonView v) {
    const auto n = v.as_uint();
    return n && *n <= UINT32_MAX;
}

Result<void> read_tokens(JsonView ids, std::vector<protocol::TokenId>& to) {
    if (ids.type() != JsonType::kArray) return not_encoded("no token_ids");
    bool sound = true;
    to.reserve(ids.size());
    ids.each_element([&](std::size_t, JsonView v) {
        sound = is_count(v) && *v.as_uint() < tokens::kFirstMediaToken;
        if (sound) to.push_back(static_cast<protocol::TokenId>(*v.as_uint()));
        return sound;
    });
    if (!sound) return not_encoded("a token id that is none");
    return {};
}

}  // namespace

void append_encode_body(std::string& out, const EncodeItem& item, const DialectOptions& options,
                        std::string_view name) {
    const std::string type = fmt::format("{}_url", item.modality);
    JsonWriter w(out);
    w.begin_object().key("model").string(options.model).key("messages").begin_array();
    w.begin_object().key("role").string("user").key("content").begin_array();
    w.begin_object().key("type").string(type);
    w.key(type).begin_object().key("url").string(item.url).end_object();
    w.key("uuid").string(item.uuid).end_object();
    w.end_array().end_object().end_array();
    w.key("max_tokens").number(1).key("temperature").number(0);
    w.key("request_id").string(name).key("stream").boolean(false).end_object();
}

Result<EncodedItem> read_encode_answer(std::string_view body, std::string_view uuid) {
    codec::JsonDocument document;
    const auto root = document.parse(body);
    if (!root) return not_encoded(root.error().message);
    if (root->find("choices").type() != JsonType::kArray) return not_encoded("no answer of one");
    EncodedItem out{.uuid = std::string(uuid), .params = "{}", .metadata = {}};
    const JsonView all = root->find("ec_transfer_params");
    if (all.is_null()) return out;  // as before 0.3x: found by its name, or encoded again
    const JsonView own = all.find(uuid);
    if (own.type() != JsonType::kObject) return not_encoded("it speaks of another item");
    out.params = text_of(own);
    const JsonView metadata = own.find("metadata");
    if (metadata.type() == JsonType::kObject && metadata.size() > 0) {
        out.metadata = text_of(metadata);
    }
    if (out.params.size() > protocol::kMaxShapeBytes) return not_encoded("it says too much");
    return out;
}

std::string ec_transfer_params(std::span<const EncodedItem> items) {
    std::string out;
    JsonWriter w(out);
    w.begin_object();
    for (std::size_t i = 0; i < items.size(); ++i) {
        // One picture in two places was encoded once.
        bool again = false;
        for (std::size_t j = 0; j < i && !again; ++j) again = items[j].uuid == items[i].uuid;
        if (!again && items[i].params != "{}") w.key(items[i].uuid).raw(items[i].params);
    }
    w.end_object();
    return out;
}

std::string embeds_part(std::string_view modality, const EncodedItem& item) {
    const std::string type = fmt::format("{}_embeds", modality);
    std::string out;
    JsonWriter w(out);
    w.begin_object().key("type").string(type).key(type).raw(item.metadata);
    w.key("uuid").string(item.uuid).end_object();
    return out;
}

std::string features_of(std::span<const PlacedItem> items) {
    std::string out;
    JsonWriter w(out);
    std::vector<std::string_view> modalities;
    for (const PlacedItem& item : items) {
        if (std::ranges::find(modalities, item.modality) == modalities.end()) {
            modalities.push_back(item.modality);
        }
    }
    const auto list = [&](std::string_view key, const auto& write) {
        w.key(key).begin_object();
        for (const std::string_view modality : modalities) {
            w.key(modality).begin_array();
            for (const PlacedItem& item : items) {
                if (item.modality == modality) write(item);
            }
            w.end_array();
        }
        w.end_object();
    };
    w.begin_object();
    list("mm_hashes", [&](const PlacedItem& item) { w.string(item.uuid); });
    list("mm_placeholders", [&](const PlacedItem& item) {
        w.begin_object().key("offset").number(item.offset);
        w.key("length").number(item.length).end_object();
    });
    const auto of_each = [&](std::string_view key, std::string PlacedItem::* what) {
        if (std::ranges::all_of(items, &std::string::empty, what)) return;
        list(key, [&](const PlacedItem& item) {
            (item.*what).empty() ? w.null() : w.string(item.*what);
        });
    };
    of_each("kwargs_data", &PlacedItem::kwargs);
    of_each("mm_metadata", &PlacedItem::metadata);
    w.end_object();
    return out;
}

Result<RenderedPrompt> read_rendered(std::string_view body, std::string_view modality) {
    codec::JsonDocument document;
    const auto root = document.parse(body);
    if (!root) return not_encoded(root.error().message);
    RenderedPrompt out;
    if (auto ok = read_tokens(root->find("token_ids"), out.tokens); !ok) {
        return tl::unexpected(std::move(ok.error()));
    }
    const JsonView features = root->find("features");
    const JsonView hashes = features.find("mm_hashes").find(modality);
    const JsonView places = features.find("mm_placeholders").find(modality);
    const JsonView kwargs = features.find("kwargs_data").find(modality);
    const JsonView metadata = features.find("mm_metadata").find(modality);
    const std::size_t n = hashes.size();
    if (n > kMaxItems) return not_encoded("too many items");
    if (places.size() != n || (!kwargs.is_null() && kwargs.size() != n)) {
        return not_encoded("not as many places as items");
    }
    out.items.resize(n);
    hashes.each_element([&](std::size_t i, JsonView v) {
        out.items[i].uuid = v.as_string().value_or("");
        return true;
    });
    std::uint64_t from = 0;
    bool sound = true;
    places.each_element([&](std::size_t i, JsonView v) {
        const JsonView offset = v.find("offset");
        const JsonView length = v.find("length");
        sound = is_count(offset) && is_count(length) && *offset.as_uint() >= from &&
                *length.as_uint() > 0 && !out.items[i].uuid.empty();
        if (!sound) return false;
        out.items[i].offset = static_cast<std::uint32_t>(*offset.as_uint());
        out.items[i].length = static_cast<std::uint32_t>(*length.as_uint());
        from = *offset.as_uint() + *length.as_uint();
        return sound = from <= out.tokens.size();
    });
    if (!sound) return not_encoded("an item that is not in the prompt");
    kwargs.each_element([&](std::size_t i, JsonView v) {
        out.items[i].kwargs = v.as_string().value_or("");
        return true;
    });
    metadata.each_element([&](std::size_t i, JsonView v) {
        if (i < n) out.items[i].metadata = v.as_string().value_or("");
        return i < n;
    });
    for (PlacedItem& item : out.items) item.modality = modality;
    return out;
}

}  // namespace stator::engine
