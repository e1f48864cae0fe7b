#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "stator/base/clock.h"
#include "stator/frontend/answer_render.h"
#include "stator/frontend/choice_output.h"
#include "stator/frontend/logprobs_json.h"
#include "stator/frontend/prepared_request.h"
#include "stator/frontend/request_id.h"
#include "stator/frontend/request_record.h"
#include "stator/net/http_server.h"
#include "stator/protocol/generate.h"
#include "stator/runtime/loop.h"
#include "stator/runtime/mailbox.h"
#include "stator/text/detokenizer.h"

namespace stator::frontend {

/// Told of the events of engine requests, on the loop.
class StepReceiver {
  public:
    virtual ~StepReceiver() = default;
    /// `index`: as given to GenerationHub::add().
    virtual void on_event(std::uint32_t index, const protocol::StepEvent& event,
                          const protocol::StepBatch& batch, TimePoint now) = 0;
};

/// Where engine steps reach the requests of one loop: one sink and one mailbox for all of them, so
/// that a step wakes the loop once and all its tokens are rendered in that turn. Lives on its loop;
/// only sink() is used elsewhere.
class GenerationHub {
  public:
    /// `owner` keeps whatever the hub is part of alive while a delivery runs; expired, deliveries
    /// are dropped.
    GenerationHub(runtime::Loop& loop, const Clock& clock, std::atomic<std::uint64_t>& next_id,
                  IdSource& ids, std::weak_ptr<void> owner);
    ~GenerationHub();

    [[nodiscard]] const std::shared_ptr<engine::StepSink>& sink() const { return sink_; }
    [[nodiscard]] const Clock& clock() const { return clock_; }
    [[nodiscard]] IdSource& ids() { return ids_; }
    /// Names an engine request and routes its events to `receiver`.
    [[nodiscard]] protocol::RequestId add(std::shared_ptr<StepReceiver> receiver,
                                          std::uint32_t index);
    void remove(protocol::RequestId id) { targets_.erase(id.value); }
    [[nodiscard]] std::size_t size() const { return targets_.size(); }

    /// Buffers for the present event, reused; their content does not outlive it.
    std::string text;
    std::string logprobs;
    std::string out;
    text::OutputEvents events;  ///< in place of `text`, where the output is taken apart

  private:
    struct Target {
        std::shared_ptr<StepReceiver> receiver;
        std::uint32_t index = 0;
    };
    void receive(std::vector<protocol::StepBatch>&& batches);

    const Clock& clock_;
    std::atomic<std::uint64_t>& next_id_;
    IdSource& ids_;
    std::unordered_map<std::uint64_t, Target> targets_;
    std::shared_ptr<runtime::Mailbox<protocol::StepBatch>> mailbox_;
    std::shared_ptr<engine::StepSink> sink_;
};

/// One request in generation: its choices, their texts, and the answer as it grows. Lives on its
/// connection's loop. A failure before the first token is an ordinary error answer; later, in a
/// stream, it is an event with an `error` object after which the stream ends without [DONE].
class Generation final : public StepReceiver, public std::enable_shared_from_this<Generation> {
  public:
    Generation(GenerationHub& hub, std::shared_ptr<net::HttpExchange> exchange,
               std::shared_ptr<RequestRecord> record, PreparedRequest request, AnswerHead head,
               Deadline deadline);

    /// Submits all choices, or answers with the engine's refusal.
    void start();
    void on_event(std::uint32_t choice, const protocol::StepEvent& event,
                  const protocol::StepBatch& batch, TimePoint now) override;
    /// The client left: ends all choices at once.
    void abandon();

  private:
    struct Choice {
        Choice(std::uint32_t index_, std::uint32_t prompt_, const PreparedRequest& request);

        std::uint32_t index;
        std::uint32_t prompt;
        protocol::RequestId id;
        text::Detokenizer detokenizer;
        std::optional<LogprobsJson> logprobs;
        std::optional<ChoiceOutput> output;  ///< where the output is more than text
        std::string text;                    ///< not streamed: all of it, or all content
        std::string reasoning;               ///< likewise
        std::string token_ids;  ///< numbers with commas; streamed: of the present event
        std::uint32_t tokens = 0;
        std::uint32_t cached = 0;  ///< prompt tokens, counted already
        std::optional<TimePoint> first;
        TimePoint last;
        bool opened = false;      ///< streamed: its first event is out
        std::string_view finish;  ///< empty: goes on
    };

    [[nodiscard]] protocol::GenerateRequest engine_request(Choice& choice, bool last);
    void note_cached(Choice& choice, const protocol::StepEvent& event);
    void note_first(Choice& choice, const protocol::StepEvent& event, TimePoint now);
    /// Takes the event's tokens in, appending to hub_.text or, where the output is taken apart, to
    /// hub_.events. True when that was all: a stop string was met or the one call wanted is made.
    bool take_tokens(Choice& choice, const protocol::StepEvent& event,
                     const protocol::StepBatch& batch);
    [[nodiscard]] bool ends_silently(const protocol::StepEvent& event, tokens::TokenId token) const;
    /// Names new calls and keeps what is not streamed.
    void keep(Choice& choice);
    void stream_piece(Choice& choice);
    void stream_events(const Choice& choice, ChunkPiece piece);
    [[nodiscard]] std::string_view reason_of(const Choice& choice,
                                             protocol::FinishReason finish) const;
    void count_output(const Choice& choice) const;
    void finish_choice(Choice& choice, protocol::FinishReason finish);
    void complete();
    void respond_whole();
    /// Ends what still goes on, counted as ended `how`, and tells the client.
    void fail(Error error, protocol::FinishReason how);
    void cancel_all(protocol::FinishReason how);
    [[nodiscard]] Error ended_early(TimePoint now) const;
    [[nodiscard]] Usage usage() const;

    GenerationHub& hub_;
    std::shared_ptr<net::HttpExchange> exchange_;
    std::shared_ptr<RequestRecord> record_;
    PreparedRequest request_;
    AnswerHead head_;
    Deadline deadline_;
    std::optional<ChunkRenderer> chunks_;  ///< where the answer is streamed
    std::vector<Choice> choices_;
    std::vector<std::string> prompt_ids_json_;  ///< by prompt, where token ids were asked for
    std::size_t prompt_tokens_ = 0;
    std::size_t open_choices_ = 0;
    std::uint64_t reasoning_tokens_ = 0;
    bool streaming_ = false;  ///< the stream has begun
    bool ended_ = false;
};

}  // namespace stator::frontend
