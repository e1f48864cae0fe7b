#include "stator/engine/http/media_desk.h"

#include <sys/random.h>

#include <algorithm>
#include <utility>

#include "stator/base/check.h"
#include "stator/engine/dialects/picture_url.h"

namespace stator::engine {
namespace {

using protocol::GenerateRequest;
using protocol::Handoff;
using protocol::MediaContent;
using protocol::MediaItem;

constexpr std::string_view kRenderPath = "/v1/chat/completions/render";
constexpr std::string_view kChatPath = "/v1/chat/completions";
constexpr std::string_view kVllmLayout = "vllm/media";
constexpr std::string_view kSglangLayout = "sglang/media";
constexpr std::size_t kMostSizes = 4096;

std::uint64_t size_key(const MediaContent& c) {
    return std::uint64_t{c.frames} << 48U ^ std::uint64_t{c.height} << 24U ^ c.width;
}

}  // namespace

bool MediaDesk::takes(MediaContent::Kind kind) const {
    return std::ranges::find(media_.kinds, modality_of(kind)) != media_.kinds.end();
}

MediaDesk::Question MediaDesk::render(const MediaItem& item, const std::string& url,
                                      std::string_view name) const {
    Question q{.path = std::string(kRenderPath), .body = {}};
    const std::string uuid = media_uuid(item.digest);
    append_encode_body(q.body,
                       {.modality = modality_of(item.content->kind), .url = url, .uuid = uuid},
                       dialect_, name);
    return q;
}

MediaDesk::ItemPlan MediaDesk::plan_item(const MediaItem& item, std::string_view name) {
    ItemPlan plan;
    if (sglang()) {
        {
            const std::scoped_lock lock(mutex_);
            if (counts_.contains(size_key(*item.content))) return plan;
        }
        Question q{.path = std::string(path_of(dialect_.dialect)), .body = {}};
        append_count_body(q.body, media_.around, picture_url(*item.content), name, media_.half);
        plan.questions.push_back(std::move(q));
        plan.renders = true;
        return plan;
    }
    const std::string uuid = media_uuid(item.digest);
    plan.renders = !find(uuid);
    plan.encodes = media_.encodes;
    if (!plan.renders && !plan.encodes) return plan;
    const std::string url = picture_url(*item.content);
    if (plan.renders) plan.questions.push_back(render(item, url, name));
    if (plan.encodes) {
        Question q = render(item, url, name);
        q.path = kChatPath;
        plan.questions.push_back(std::move(q));
    }
    return plan;
}

Result<std::shared_ptr<const Handoff>> MediaDesk::hand_off(const MediaItem& item,
                                                           const ItemPlan& plan,
                                                           const std::vector<std::string>& answers,
                                                           TimePoint now) {
    MediaWords words;
    if (sglang()) {
        const std::uint64_t key = size_key(*item.content);
        std::uint32_t count = 0;
        if (plan.renders) {
            auto told = read_count_answer(answers.front(), media_.around.size());
            if (!told) return tl::unexpected(std::move(told.error()));
            count = *told;
            const std::scoped_lock lock(mutex_);
            if (counts_.size() >= kMostSizes) counts_.clear();
            counts_[key] = count;
        } else {
            const std::scoped_lock lock(mutex_);
            const auto known = counts_.find(key);
            if (known != counts_.end()) count = known->second;
        }
        if (count == 0) return error(ErrorCode::kUnavailable, "the item's size is not known");
        words.runs.emplace_back(media_.placeholders.front(), count);
    } else {
        const std::string uuid = media_uuid(item.digest);
        auto kept =
            plan.renders ? keep(uuid, item.content->kind, answers.front()) : [&]() -> Result<Kept> {
            if (auto found = find(uuid)) return std::move(*found);
            return error(ErrorCode::kUnavailable, "what was rendered is gone");
        }();
        if (!kept) return tl::unexpected(std::move(kept.error()));
        words = std::move(kept->words);
        if (plan.encodes) {
            auto encoded = read_encode_answer(answers.back(), uuid);
            if (!encoded) return tl::unexpected(std::move(encoded.error()));
            words.params = std::move(encoded->params);
        }
    }
    auto h = std::make_shared<Handoff>();
    STATOR_CHECK(::getrandom(h->id.data(), h->id.size(), 0) == static_cast<ssize_t>(h->id.size()),
                 "the kernel has random numbers");
    h->kind = Handoff::Kind::kEmbeddings;
    h->layout = sglang() ? kSglangLayout : kVllmLayout;
    h->content = item.digest;
    h->tokens = static_cast<std::uint32_t>(tokens_of(words));
    h->pieces.push_back({.text = {}, .rows = h->tokens});
    h->object = write_media_words(words);
    if (h->object.size() > protocol::kMaxObjectBytes) {
        return error(ErrorCode::kDataLoss, "what the engine makes of an item is too long");
    }
    h->expires = Deadline::after(now, media_.lease);
    return h;
}

Result<MediaDesk::RequestPlan> MediaDesk::plan_request(const GenerateRequest& request,
                                                       bool computes, std::string_view name) {
    RequestPlan plan;
    plan.inputs.resize(request.media.size());
    for (std::size_t i = 0; i < request.media.size(); ++i) {
        const MediaItem& item = request.media[i];
        if (!computes && !sglang()) continue;
        const auto same = std::ranges::find(request.media, item.digest, &MediaItem::digest);
        const auto first = static_cast<std::size_t>(same - request.media.begin());
        if (!sglang()) {
            if (first < i) continue;  // filled in with the first one's
            if (auto kept = find(media_uuid(item.digest))) {
                plan.inputs[i] = std::move(kept->inputs);
                continue;
            }
        }
        if (!item.content) {
            auto gone = error(ErrorCode::kUnavailable, "a media item's pixels are not here");
            gone.value().param = "media";
            gone.value().retryable = true;
            return gone;
        }
        if (sglang()) {
            plan.inputs[i].url = picture_url(*item.content);
            continue;
        }
        plan.questions.push_back(render(item, picture_url(*item.content), name));
        plan.of.push_back(i);
    }
    return plan;
}

Result<BodyMedia> MediaDesk::body_of(const GenerateRequest& request, RequestPlan plan,
                                     const std::vector<std::string>& answers) {
    for (std::size_t i = 0; i < plan.of.size(); ++i) {
        const MediaItem& item = request.media[plan.of[i]];
        auto kept = keep(media_uuid(item.digest), item.content->kind, answers[i]);
        if (!kept) return tl::unexpected(std::move(kept.error()));
        plan.inputs[plan.of[i]] = std::move(kept->inputs);
    }
    for (std::size_t i = 0; i < request.media.size(); ++i) {
        const auto same =
            std::ranges::find(request.media, request.media[i].digest, &MediaItem::digest);
        const auto first = static_cast<std::size_t>(same - request.media.begin());
        if (first < i && !sglang()) plan.inputs[i] = plan.inputs[first];
    }
    return media_body(request, dialect_.dialect, plan.inputs);
}

std::optional<MediaDesk::Kept> MediaDesk::find(const std::string& uuid) {
    const std::scoped_lock lock(mutex_);
    const auto found = by_uuid_.find(uuid);
    if (found == by_uuid_.end()) return std::nullopt;
    kept_.splice(kept_.begin(), kept_, found->second);
    return kept_.front();
}

Result<MediaDesk::Kept> MediaDesk::keep(const std::string& uuid, MediaContent::Kind kind,
                                        const std::string& answer) {
    auto rendered = read_rendered(answer, modality_of(kind));
    if (!rendered) return tl::unexpected(std::move(rendered.error()));
    auto words = words_of(*rendered);
    if (!words) return tl::unexpected(std::move(words.error()));
    PlacedItem& item = rendered->items.front();
    if (item.uuid != uuid) {
        return error(ErrorCode::kDataLoss, "the engine has rendered another item");
    }
    Kept out{
        .uuid = uuid,
        .words = std::move(*words),
        .inputs = {
            .kwargs = std::move(item.kwargs), .metadata = std::move(item.metadata), .url = {}}};
    const std::scoped_lock lock(mutex_);
    if (by_uuid_.contains(uuid)) return out;
    bytes_ += out.inputs.kwargs.size();
    kept_.push_front(out);
    by_uuid_[uuid] = kept_.begin();
    while (bytes_ > media_.cache_bytes && !kept_.empty()) {
        bytes_ -= kept_.back().inputs.kwargs.size();
        by_uuid_.erase(kept_.back().uuid);
        kept_.pop_back();
    }
    return out;
}

}  // namespace stator::engine
