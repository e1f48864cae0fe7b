#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <list>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "stator/base/clock.h"
#include "stator/base/error.h"
#include "stator/engine/dialects/media_words.h"
#include "stator/engine/dialects/request_body.h"
#include "stator/protocol/generate.h"

namespace stator::engine {

/// What an engine does with media.
struct EngineMedia {
    std::vector<std::string> kinds;  ///< "image", "video"; empty: none
    /// It computes no prompts: an encode leg leaves the item's embeddings with it, where others of
    /// its kind fetch them.
    bool encodes = false;
    std::vector<protocol::TokenId> placeholders;  ///< what stands for items in its prompts
    /// SGLang: the ids of a prompt with one item, among them the first placeholder.
    std::vector<protocol::TokenId> around;
    bool half = false;  ///< SGLang: it prefills or decodes alone
    /// Of what was rendered, kept for requests that come with an item again.
    std::size_t cache_bytes = 256UL * 1024 * 1024;
    /// How long an item's words stand: then it is encoded anew.
    std::chrono::milliseconds lease{600'000};
    /// How long an engine has for an item, rendering or encoding it: then another one is asked.
    std::chrono::milliseconds within{60'000};
};

/// What has to be asked of an engine about media, and what becomes of its answers. Thread-safe; the
/// answers are for the caller to get.
///
/// vLLM renders an item (its API server makes of it what the model takes: `kwargs`), which is done
/// in the encode leg and kept here; a request that comes to another engine than its items' legs
/// brings their pixels, and they are rendered there again. SGLang is given the pixels, and asked
/// once how many tokens items of one size become.
class MediaDesk {
  public:
    struct Question {
        std::string path;
        std::string body;
    };
    /// What an answer may have.
    static constexpr std::size_t kMaxAnswerBytes = 256UL * 1024 * 1024;

    MediaDesk(const EngineMedia& media, const DialectOptions& dialect)
        : media_(media), dialect_(dialect) {}

    /// Whether it takes items of this kind.
    [[nodiscard]] bool takes(protocol::MediaContent::Kind kind) const;

    struct ItemPlan {
        std::vector<Question> questions;
        bool renders = false;  ///< the first question
        bool encodes = false;  ///< the last one
    };
    /// Of an encode leg. `name`: for the engine's own ids.
    [[nodiscard]] ItemPlan plan_item(const protocol::MediaItem& item, std::string_view name);
    /// The handoff of an encode leg whose questions were answered, in order.
    [[nodiscard]] Result<std::shared_ptr<const protocol::Handoff>> hand_off(
        const protocol::MediaItem& item, const ItemPlan& plan,
        const std::vector<std::string>& answers, TimePoint now);

    struct RequestPlan {
        std::vector<Question> questions;
        std::vector<std::size_t> of;     ///< by question: the item
        std::vector<ItemInputs> inputs;  ///< by item
    };
    /// Of a request with media. `computes`: its prompt, so that the pixels are needed. kUnavailable
    /// with param "media": they are not there.
    [[nodiscard]] Result<RequestPlan> plan_request(const protocol::GenerateRequest& request,
                                                   bool computes, std::string_view name);
    /// The media of a body, once the questions were answered, in order.
    [[nodiscard]] Result<BodyMedia> body_of(const protocol::GenerateRequest& request,
                                            RequestPlan plan,
                                            const std::vector<std::string>& answers);

  private:
    struct Kept {
        std::string uuid;
        MediaWords words;
        ItemInputs inputs;
    };
    [[nodiscard]] bool sglang() const { return dialect_.dialect == Dialect::kSglang; }
    [[nodiscard]] Question render(const protocol::MediaItem& item, const std::string& url,
                                  std::string_view name) const;
    [[nodiscard]] std::optional<Kept> find(const std::string& uuid);
    [[nodiscard]] Result<Kept> keep(const std::string& uuid, protocol::MediaContent::Kind kind,
                                    const std::string& answer);

    const EngineMedia media_;
    const DialectOptions dialect_;

    std::mutex mutex_;
    std::list<Kept> kept_;  ///< the one used last first
    std::unordered_map<std::string, std::list<Kept>::iterator> by_uuid_;
    std::size_t bytes_ = 0;
    /// SGLang: tokens by size of picture. Bounded: emptied when it is full.
    std::unordered_map<std::uint64_t, std::uint32_t> counts_;
};

}  // namespace stator::engine
