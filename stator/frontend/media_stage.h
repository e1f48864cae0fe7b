#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "stator/base/clock.h"
#include "stator/frontend/generation.h"
#include "stator/frontend/media_prompt.h"
#include "stator/frontend/prepared_request.h"
#include "stator/media/loader.h"
#include "stator/runtime/loop.h"

namespace stator::frontend {

/// What a request with media goes through before its prompt is whole:
///
///     reading ──▶ encoding, choice 0 ──▶ encoding, the other choices ──▶ done
///        └────────────┴── error, client gone ──▶ done ◀─────┘
///
/// The loader fetches and decodes the items; the model's engine encodes each, as a request of its
/// own (leg kEncode), once per choice because embeddings can be claimed once. The other choices
/// follow the first: its encoder has them in its cache then. Lives on its connection's loop, and
/// until its last leg has ended. Embeddings that come to nothing are released, also those that were
/// made before a leg heard that it was cancelled.
class MediaStage final : public StepReceiver, public std::enable_shared_from_this<MediaStage> {
  public:
    /// Called once, on the loop, unless abandon() was: the request with its prompt whole, or why
    /// not, with the path of the item's field.
    using Done = std::function<void(Result<PreparedRequest>)>;
    MediaStage(GenerationHub& hub, runtime::Loop& loop, PreparedRequest request, Deadline deadline,
               Done done);

    void start(media::MediaLoader& loader);
    void on_event(std::uint32_t leg, const protocol::StepEvent& event,
                  const protocol::StepBatch& batch, TimePoint now) override;
    /// The client left: ends everything at once.
    void abandon();

  private:
    struct Leg {
        protocol::RequestId id;
        bool open = false;
    };
    void loaded(Result<std::vector<media::LoadedMedia>> items);
    /// Submits the legs of the choices [first, last).
    void encode(std::uint32_t first, std::uint32_t last);
    [[nodiscard]] Result<std::shared_ptr<const protocol::Handoff>> handoff_of(
        const protocol::StepEvent& event, TimePoint now) const;
    void finish(Result<void> how);
    void cancel_legs();
    void release_embeddings();

    GenerationHub& hub_;
    runtime::Loop& loop_;
    PreparedRequest request_;
    Deadline deadline_;
    Done done_;                       ///< null at the end
    std::vector<std::string> paths_;  ///< by item
    std::shared_ptr<media::MediaLoad> load_;
    std::vector<std::vector<EncodedItem>> by_choice_;
    std::vector<Leg> legs_;  ///< choice by choice
    std::size_t open_legs_ = 0;
    bool first_round_ = true;
};

/// How an error of reading an item looks to the client: whatever is wrong with what it sent or with
/// where that leads is a 400 of that field; the rest stays what it is.
[[nodiscard]] Error media_error(Error error);

}  // namespace stator::frontend
