#pragma once

#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "stator/engine/remote/pool_calls.h"

namespace stator::engine {

/// The calls of one pool that are at home on one loop: those whose worker's link lives there and
/// some of those that wait for a worker. Every method on the loop unless said otherwise.
///
///   arrive ──► running ──► ended
///     ▲  │       │ refused, lost: at the turn's end
///     │  ▼       ▼
///   waiting ◄── place ──► another room
///                 ▲ │
///                 │ ▼
///                queued (call_queue.h)
///
/// A leg that another one follows gives it back at the turn's end, too: to the rank that was booked
/// for that leg, or to be placed.
class CallRoom final : public fleet::StreamEvents {
  public:
    CallRoom(PoolCalls& calls, runtime::Loop& loop);

    [[nodiscard]] runtime::Loop& loop() const { return loop_; }  ///< any thread
    void arrive(const std::shared_ptr<Call>& call);
    /// A call that is in the queue already has come.
    void settle_queued(const std::shared_ptr<Call>& call);
    /// The same, put into the queue here. An error: it is as if it had never come.
    [[nodiscard]] Result<void> settle_and_push(const std::shared_ptr<Call>& call);
    /// It has left the queue: with a slot, or why it gets none.
    void out_of_queue(const std::shared_ptr<Call>& call, const std::optional<Error>& why);
    void check_cancelled(const std::shared_ptr<Call>& call);
    /// The KV that it waits for, or is sent for, will not come.
    void handoff_lost(const std::shared_ptr<Call>& call, const protocol::HandoffId& handoff,
                      const Error& why);
    /// Workers came: those that wait try again.
    void wake();
    void end_all();
    /// Any thread: whether wake() would find anybody.
    [[nodiscard]] bool has_waiting() const { return waiting_.load(std::memory_order_seq_cst) != 0; }

    // From workers.
    void on_step(std::uint64_t tag, const protocol::StepEvent& event,
                 std::span<const protocol::TokenOutput> tokens,
                 std::span<const protocol::TokenLogprob> top) override;
    void on_turn_end() override { flush(); }
    void on_stream_lost(std::uint64_t tag, const Error& why) override;

  private:
    struct SinkSlot {
        std::shared_ptr<StepSink> sink;
        protocol::StepBatch batch;
        std::uint32_t users = 0;
        std::size_t events = 0;  ///< of the last batch: how much room the next one wants
        std::size_t tokens = 0;
    };

    void settle(const std::shared_ptr<Call>& call);
    void leave(Call& call);
    void let_go_of_worker(Call& call, bool tell);
    void open(const std::shared_ptr<Call>& call);
    void refused(const std::shared_ptr<Call>& call, Error why);
    void first_token(Call& call, const protocol::StepEvent& event);
    /// Another leg follows.
    void leg_ended(const std::shared_ptr<Call>& call, const protocol::StepEvent& event);
    /// Of a leg that has left an early handoff.
    void watch_handoff(const std::shared_ptr<Call>& call);
    static void note_failure(Call& call, const Error& why);
    void note_encoded(const Call& call);
    /// Nobody takes its KV. False: it has ended.
    bool give_up_handoff(const std::shared_ptr<Call>& call);
    /// Finds a worker for a call that has none now.
    void place(const std::shared_ptr<Call>& call);
    void go(const std::shared_ptr<Call>& call);
    void enqueue(const std::shared_ptr<Call>& call);
    void leave_queue(Call& call);
    void wait(const std::shared_ptr<Call>& call);
    void stop_waiting(Call& call);
    void place_later(const std::shared_ptr<Call>& call);
    void end(const std::shared_ptr<Call>& call, protocol::FinishReason how,
             std::optional<Error> why = std::nullopt);
    void end(const std::shared_ptr<Call>& call, const protocol::StepEvent& event);
    void append(Call& call, const protocol::StepEvent& event,
                std::span<const protocol::TokenOutput> tokens,
                std::span<const protocol::TokenLogprob> top);
    void finished(Call& call);
    void flush();
    void flush_later();
    void want(Deadline deadline);
    void on_timer();
    [[nodiscard]] Deadline limit(const Call& call) const;
    [[nodiscard]] std::vector<std::shared_ptr<Call>> present() const;

    PoolCalls& calls_;
    runtime::Loop& loop_;
    std::vector<std::shared_ptr<Call>> by_tag_;
    std::vector<std::uint64_t> free_tags_;
    std::vector<SinkSlot> sinks_;
    std::vector<std::shared_ptr<Call>> homeless_;  ///< to be placed at the turn's end
    std::atomic<std::size_t> waiting_{0};
    std::size_t ended_ = 0;  ///< whose last event is in a batch
    bool flush_scheduled_ = false;
    boost::asio::steady_timer timer_;
    Deadline armed_;
};

}  // namespace stator::engine
