#include "stator/engine/dialects/media_words.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

#include "stator/codec/json.h"
#include "stator/codec/json_writer.h"
#include "stator/tokens/token.h"

namespace stator::engine {

using codec::JsonType;
using codec::JsonView;
using codec::JsonWriter;
using protocol::GenerateRequest;
using protocol::MediaItem;
using protocol::TokenId;

namespace {

/// Of an item, in one prompt.
constexpr std::uint64_t kMaxItemTokens = 1U << 20U;
/// SGLang's FAKE_BOOTSTRAP_HOST.
constexpr std::string_view kPretendedHost = "2.2.2.2";

tl::unexpected<Error> unreadable(std::string_view what) {
    return error(ErrorCode::kDataLoss, "a media item in no engine's words: {}", what);
}

tl::unexpected<Error> encode_again(std::string_view what) {
    auto e =
        error(ErrorCode::kUnavailable, "a media item is not encoded for this engine: {}", what);
    e.value().param = "media";
    e.value().retryable = true;
    return e;
}

void add_run(std::vector<std::pair<TokenId, std::uint32_t>>& runs, TokenId id) {
    if (!runs.empty() && runs.back().first == id) {
        ++runs.back().second;
    } else {
        runs.emplace_back(id, 1);
    }
}

}  // namespace

std::string media_uuid(const protocol::Digest& digest) {
    return fmt::format("{:02x}", fmt::join(digest, ""));
}

std::string_view modality_of(protocol::MediaContent::Kind kind) {
    return kind == protocol::MediaContent::Kind::kVideo ? "video" : "image";
}

std::string write_media_words(const MediaWords& words) {
    std::string out;
    JsonWriter w(out);
    w.begin_object().key("modality").string(words.modality).key("ids").begin_array();
    for (const auto& [id, count] : words.runs) {
        w.begin_array().number(std::uint64_t{id}).number(std::uint64_t{count}).end_array();
    }
    w.end_array().key("params").raw(words.params).end_object();
    return out;
}

std::uint64_t tokens_of(const MediaWords& words) {
    std::uint64_t n = 0;
    for (const auto& [id, count] : words.runs) n += count;
    return n;
}

Result<MediaWords> read_media_words(std::string_view object) {
    codec::JsonDocument document;
    const auto root = document.parse(object);
    if (!root) return unreadable(root.error().message);
    MediaWords out;
    out.modality = root->find("modality").as_string().value_or("");
    if (out.modality != "image" && out.modality != "video") return unreadable("no modality");
    const JsonView ids = root->find("ids");
    if (ids.size() > kMaxMediaRuns) return unreadable("too many runs of ids");
    bool sound = ids.type() == JsonType::kArray;
    ids.each_element([&](std::size_t, JsonView run) {
        std::vector<std::uint64_t> pair;
        run.each_element([&](std::size_t, JsonView v) {
            pair.push_back(v.as_uint().value_or(UINT64_MAX));
            return pair.size() <= 2;
        });
        sound = pair.size() == 2 && pair[0] < tokens::kFirstMediaToken && pair[1] > 0 &&
                pair[1] <= kMaxItemTokens;
        if (sound) {
            out.runs.emplace_back(static_cast<TokenId>(pair[0]),
                                  static_cast<std::uint32_t>(pair[1]));
        }
        return sound;
    });
    if (!sound || out.runs.empty() || tokens_of(out) > kMaxItemTokens) return unreadable("no ids");
    const JsonView params = root->find("params");
    if (params.type() != JsonType::kObject) return unreadable("no params");
    out.params.clear();
    params.write_to(out.params);
    return out;
}

Result<MediaWords> words_of(const RenderedPrompt& rendered) {
    if (rendered.items.size() != 1) return unreadable("the engine has made of it not one item");
    const PlacedItem& item = rendered.items.front();
    MediaWords out;
    out.modality = item.modality;
    for (std::uint32_t i = 0; i < item.length; ++i) {
        add_run(out.runs, rendered.tokens[item.offset + i]);
    }
    if (out.runs.size() > kMaxMediaRuns) return unreadable("too many runs of ids");
    return out;
}

Result<BodyMedia> media_body(const GenerateRequest& request, Dialect dialect,
                             std::span<const ItemInputs> inputs) {
    const bool sglang = dialect == Dialect::kSglang;
    BodyMedia out;
    out.prompt.reserve(request.prompt.size());
    std::vector<PlacedItem> placed;
    std::vector<EncodedItem> encoded;
    std::size_t copied = 0;
    const auto copy_to = [&](std::size_t to) {
        for (; copied < to; ++copied) {
            if (request.prompt[copied] >= tokens::kFirstMediaToken) return false;
            out.prompt.push_back(request.prompt[copied]);
        }
        return true;
    };
    for (std::size_t i = 0; i < request.media.size(); ++i) {
        const MediaItem& item = request.media[i];
        if (!item.embeddings || item.embeddings->object.empty()) return encode_again("not at all");
        auto words = read_media_words(item.embeddings->object);
        if (!words) return encode_again(words.error().message);
        if (tokens_of(*words) != item.tokens ||
            std::size_t{item.position} + item.tokens > request.prompt.size()) {
            return encode_again("it has another size there");
        }
        if (!copy_to(item.position)) break;
        copied += item.tokens;
        if (sglang) {
            out.prompt.push_back(words->runs.front().first);
            out.urls.push_back(inputs[i].url);
            continue;
        }
        PlacedItem& place = placed.emplace_back();
        place.uuid = media_uuid(item.digest);
        place.offset = static_cast<std::uint32_t>(out.prompt.size());
        place.length = item.tokens;
        place.modality = words->modality;
        place.kwargs = inputs[i].kwargs;
        place.metadata = inputs[i].metadata;
        for (const auto& [id, count] : words->runs) {
            out.prompt.insert(out.prompt.end(), count, id);
        }
        encoded.push_back({place.uuid, std::move(words->params), {}});
    }
    if (!copy_to(request.prompt.size())) {
        return error(ErrorCode::kInvalidArgument, "the prompt has a media token without its item");
    }
    if (sglang) return out;
    out.features = features_of(placed);
    out.ec_params = ec_transfer_params(encoded);
    if (out.ec_params == "{}") out.ec_params.clear();
    return out;
}

void append_count_body(std::string& out, std::span<const TokenId> around, std::string_view url,
                       std::string_view name, bool half) {
    JsonWriter w(out);
    w.begin_object().key("input_ids").begin_array();
    for (const TokenId id : around) w.number(std::uint64_t{id});
    w.end_array().key("image_data").begin_array().string(url).end_array();
    w.key("sampling_params").begin_object().key("max_new_tokens").number(1);
    w.key("temperature").number(0).end_object();
    if (half) w.key("bootstrap_host").string(kPretendedHost).key("bootstrap_room").number(0);
    w.key("rid").string(name).key("stream").boolean(false).end_object();
}

Result<std::uint32_t> read_count_answer(std::string_view body, std::size_t around) {
    codec::JsonDocument document;
    const auto root = document.parse(body);
    if (!root) return unreadable(root.error().message);
    const auto all = root->find("meta_info").find("prompt_tokens").as_uint();
    if (!all || *all < around || *all - around >= kMaxItemTokens) {
        return unreadable("the engine does not say how long a prompt it becomes");
    }
    return static_cast<std::uint32_t>(*all - around + 1);
}

}  // namespace stator::engine
