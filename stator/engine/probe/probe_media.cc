#include "stator/engine/probe/probe_media.h"

#include <algorithm>
#include <utility>

#include "stator/codec/json.h"
#include "stator/engine/dialects/media_words.h"
#include "stator/engine/dialects/picture_url.h"

namespace stator::engine {
namespace {

using protocol::MediaContent;

constexpr std::string_view kRenderPath = "/v1/chat/completions/render";
constexpr std::uint32_t kSide = 112;
constexpr char kGray = 127;
constexpr std::uint32_t kVideoFrames = 2;

/// nullopt: it doesn't take such an item.
std::optional<MediaWords> rendered(const FoundEngine& found, const PostToEngine& post,
                                   MediaContent::Kind kind, std::uint8_t number) {
    MediaContent content;
    content.kind = kind;
    content.width = content.height = kSide;
    content.frames = kind == MediaContent::Kind::kVideo ? kVideoFrames : 1;
    content.pixels.assign(std::size_t{kSide} * kSide * 3 * content.frames, kGray);
    protocol::Digest digest{};
    digest.back() = number;
    const std::string uuid = media_uuid(digest);
    DialectOptions options;
    options.model = found.model.name;
    std::string body;
    append_encode_body(body,
                       {.modality = modality_of(kind), .url = picture_url(content), .uuid = uuid},
                       options, "stator-probe");
    const EngineAnswer answer = post(kRenderPath, std::move(body));
    constexpr int kOk = 200;
    if (answer.status != kOk) return std::nullopt;
    auto prompt = read_rendered(answer.body, modality_of(kind));
    if (!prompt) return std::nullopt;
    auto words = words_of(*prompt);
    if (!words) return std::nullopt;
    return std::move(*words);
}

/// The id that stands there most often.
tokens::TokenId placeholder_of(const MediaWords& words) {
    return std::ranges::max_element(words.runs, {}, [](const auto& run) { return run.second; })
        ->first;
}

}  // namespace

FoundMedia probe_media(const FoundEngine& found, const PostToEngine& post) {
    FoundMedia out;
    if (found.dialect != Dialect::kVllmGenerate) return out;
    const auto picture = rendered(found, post, MediaContent::Kind::kImage, 1);
    if (!picture) return out;
    out.kinds.emplace_back("image");
    out.placeholders.push_back(placeholder_of(*picture));
    const auto video = rendered(found, post, MediaContent::Kind::kVideo, 2);
    if (!video) return out;
    out.kinds.emplace_back("video");
    const tokens::TokenId id = placeholder_of(*video);
    if (id != out.placeholders.front()) out.placeholders.push_back(id);
    return out;
}

FoundMedia media_of_config(std::string_view config_json) {
    FoundMedia out;
    codec::JsonDocument document;
    const auto root = document.parse(config_json);
    if (!root) return out;
    const auto id_of = [&](std::string_view name) -> std::optional<tokens::TokenId> {
        const auto n = root->find(name).as_uint();
        if (!n || *n >= tokens::kFirstMediaToken) return std::nullopt;
        return static_cast<tokens::TokenId>(*n);
    };
    std::optional<tokens::TokenId> image;
    for (const std::string_view name : {"image_token_id", "image_token_index"}) {
        if (!image) image = id_of(name);
    }
    if (!image) return out;
    out.kinds.emplace_back("image");
    out.placeholders.push_back(*image);
    for (const std::string_view name : {"vision_start_token_id", "boi_token_id"}) {
        if (const auto id = id_of(name); id && out.around.empty()) out.around.push_back(*id);
    }
    out.around.push_back(*image);
    const std::size_t open = out.around.size();
    for (const std::string_view name : {"vision_end_token_id", "eoi_token_id"}) {
        if (const auto id = id_of(name); id && out.around.size() == open) out.around.push_back(*id);
    }
    return out;
}

}  // namespace stator::engine
