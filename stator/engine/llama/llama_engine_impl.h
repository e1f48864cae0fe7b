#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <thread>
#include <unordered_map>
#include <vector>

#include "stator/engine/llama/encoder_desk.h"
#include "stator/engine/llama/guide_desk.h"
#include "stator/engine/llama/known_prefixes.h"
#include "stator/engine/llama/kv_handoff.h"
#include "stator/engine/llama/llama_context.h"
#include "stator/engine/llama/llama_engine.h"
#include "stator/engine/llama/sampler.h"
#include "stator/engine/llama/scheduler.h"
#include "stator/text/guides/guide.h"

namespace stator::engine::llama {

/// The engine's thread and its two doors: requests and cancellations come in under one mutex,
/// everything else is the thread's own.
class LlamaEngine final : public Engine {
  public:
    /// `encoder`: null = no encode legs.
    LlamaEngine(std::unique_ptr<LlamaContext> context, std::unique_ptr<MediaEncoder> encoder,
                KvEventSink kv_events, LlamaOptions options);
    ~LlamaEngine() override;

    [[nodiscard]] const EngineInfo& info() const override { return info_; }
    [[nodiscard]] Result<void> submit(protocol::GenerateRequest request,
                                      std::shared_ptr<StepSink> sink) override;
    void cancel(RequestId id) override;
    [[nodiscard]] std::uint32_t cached_prefix_tokens(
        const protocol::GenerateRequest& request) const override;
    [[nodiscard]] protocol::LoadReport load() const override;
    [[nodiscard]] protocol::ForwardPassMetrics forward_pass_metrics() const override;
    [[nodiscard]] bool healthy() const override { return healthy_.load(std::memory_order_relaxed); }
    void stop(Deadline deadline) override;

  private:
    struct Incoming {
        protocol::GenerateRequest request;
        std::shared_ptr<StepSink> sink;
    };
    /// What the engine's thread keeps for an accepted request until its last event.
    struct Live {
        std::shared_ptr<StepSink> sink;
        std::optional<Sampler> sampler;
        TimePoint accepted;
        std::optional<text::Guide> guide;  ///< of a request with a constraint
        /// While its constraint is compiled: the request, which the scheduler does not know yet.
        std::unique_ptr<protocol::GenerateRequest> waits_for_guide;
        bool encodes = false;  ///< an encode leg: the desk has it
    };
    struct EncodeDone {
        RequestId id;
        EncoderDesk::Left left;
        double seconds = 0.0;
    };
    struct Compiled {
        RequestId id;
        Result<text::Guide> guide;
    };
    /// What was drawn from one row of a step.
    struct Drawn {
        TokenId token = 0;
        bool ends = false;         ///< a constraint leaves nothing to follow
        std::optional<Error> why;  ///< the constraint can't be followed: the request fails
    };
    struct Delivery {
        std::shared_ptr<StepSink> sink;
        protocol::StepBatch batch;
    };

    void run();
    [[nodiscard]] Result<void> check(const protocol::GenerateRequest& request) const;
    [[nodiscard]] Result<void> check_leg(const protocol::GenerateRequest& request) const;
    [[nodiscard]] Result<void> check_encode(const protocol::GenerateRequest& request) const;
    void check_kv(protocol::GenerateRequest& request);
    void note_refused(const std::string& why, const std::string& found = {});
    bool take_mail();
    void take_in(Incoming in);
    void take_guide(RequestId id, Result<text::Guide> guide);
    void start_guided(Compiled compiled);
    void take_encoded(RequestId id, EncoderDesk::Left left, double seconds);
    void end_encoded(EncodeDone done);
    void end_expired();
    void step();
    void settle();
    void take_over(StepPlan& plan);
    bool forward(const StepPlan& plan);
    bool hand_over();
    void withdraw_what_lacks_media(StepPlan& plan);
    void give_up_step(std::string_view why);
    void draw(const StepPlan& plan);
    Drawn draw_one(const OutputRow& row, protocol::StepBatch& batch);
    [[nodiscard]] Result<bool> prepare_mask(text::Guide& guide, bool no_end);
    void finish(RequestId id, protocol::FinishReason reason, std::optional<Error> error);
    void forget(RequestId id);
    void fail_lost(const std::vector<RequestId>& lost, const Error& error);
    void end_all(const Error& error);
    protocol::StepBatch& batch_for(const std::shared_ptr<StepSink>& sink);
    void deliver();
    void publish();

    const Clock& clock_ = Clock::real();
    std::unique_ptr<LlamaContext> context_;
    KvEventSink kv_events_;
    EngineInfo info_;
    KvHandoffs handoffs_;
    KnownPrefixes known_;

    // The engine's thread only.
    Scheduler scheduler_;
    std::uint64_t seed_;
    std::unordered_map<RequestId, Live> live_;
    std::vector<Delivery> deliveries_;
    std::vector<SampledToken> sampled_;
    std::vector<Progress> progress_;
    std::vector<RequestId> ready_;
    std::vector<float> raw_logits_;
    std::vector<std::uint32_t> allowed_;  ///< bits of the vocabulary, for the row being drawn
    std::unordered_map<RequestId, Error> broken_;  ///< constraints that failed in this step
    std::size_t elsewhere_ = 0;                    ///< requests that a desk works on
    protocol::ForwardPassMetrics work_;
    double mean_request_seconds_ = 0.0;
    int failures_in_a_row_ = 0;

    mutable std::mutex mutex_;  // guards what follows
    std::condition_variable wake_;
    std::vector<Incoming> inbox_;           // bound: accepted_ below
    std::vector<RequestId> cancellations_;  // bound: one per accepted request and caller
    std::vector<Compiled> compiled_;        // bound: accepted_
    std::vector<EncodeDone> encoded_;       // bound: accepted_
    std::size_t accepted_ = 0;              // not yet ended; bound: max_running + max_waiting
    bool stopping_ = false;
    Deadline stop_deadline_;
    protocol::LoadReport load_;
    protocol::ForwardPassMetrics published_;
    double published_request_seconds_ = 0.0;
    std::uint64_t refused_imports_ = 0;
    std::set<std::string> refusals_logged_;  // bound: kMaxRefusalsLogged

    std::atomic<bool> healthy_{true};
    std::mutex join_mutex_;
    std::thread thread_;
    std::unique_ptr<GuideDesk> guides_;     // null: no constraints
    std::unique_ptr<EncoderDesk> encoder_;  // null: no encode legs
};

}  // namespace stator::engine::llama
