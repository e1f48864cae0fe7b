#include <algorithm>
#include <condition_variable>
#include <mutex>
#include <thread>
#include <unordered_map>
#include <utility>

#include "stator/base/log.h"
#include "stator/engine/llama/encoder_desk.h"
#include "stator/engine/llama/llama_engine.h"
#include "stator/engine/llama/media_encoder.h"

namespace stator::engine {
namespace llama {
namespace {

constexpr std::uint32_t kDefaultSequenceTokens = 8192;

/// A desk and nothing else: its thread is the engine's.
class LlamaEncoder final : public Engine {
  public:
    LlamaEncoder(std::unique_ptr<WeightlessModel> text, std::unique_ptr<MediaEncoder> encoder,
                 const LlamaOptions& options)
        : text_(std::move(text)) {
        const std::uint32_t trained = text_->trained_tokens();
        info_.kind = "llama";
        info_.device = "cpu";
        info_.context_tokens =
            options.max_sequence_tokens != 0
                ? options.max_sequence_tokens
                : std::min(trained, options.context_tokens != 0 ? options.context_tokens
                                                                : kDefaultSequenceTokens);
        // What ranks of its pool say that generate: cards must be the same.
        info_.block_tokens = options.prefix_cache ? options.block_tokens : 0;
        info_.max_top_logprobs = kMaxTopLogprobs;
        info_.structured_output = options.tokenizer != nullptr;
        info_.max_running = 1;
        info_.max_waiting = options.max_waiting;
        info_.media = {"image", "video"};
        desk_ = std::make_unique<EncoderDesk>(
            std::move(encoder), options.handoffs, options.embeddings_cache_bytes, options.registry,
            [this](RequestId id, EncoderDesk::Left left, bool /*cached*/, double seconds) {
                end(id, std::move(left), seconds);
            });
    }
    ~LlamaEncoder() override {
        stop(Deadline::at(Clock::real().now()));
        desk_.reset();
    }

    [[nodiscard]] const EngineInfo& info() const override { return info_; }
    [[nodiscard]] Result<void> submit(protocol::GenerateRequest request,
                                      std::shared_ptr<StepSink> sink) override;
    void cancel(RequestId id) override { desk_->cancel(id); }
    [[nodiscard]] protocol::LoadReport load() const override;
    [[nodiscard]] protocol::ForwardPassMetrics forward_pass_metrics() const override {
        const std::scoped_lock lock(mutex_);
        protocol::ForwardPassMetrics out = work_;
        out.steps = desk_->frames();
        return out;
    }
    [[nodiscard]] bool healthy() const override { return true; }
    void stop(Deadline deadline) override;

  private:
    void end(RequestId id, EncoderDesk::Left left, double seconds);

    std::unique_ptr<WeightlessModel> text_;
    EngineInfo info_;
    mutable std::mutex mutex_;
    std::condition_variable changed_;
    std::unordered_map<RequestId, std::shared_ptr<StepSink>> live_;  // bound: 1 + max_waiting
    protocol::ForwardPassMetrics work_;
    bool stopping_ = false;
    std::unique_ptr<EncoderDesk> desk_;
};

Result<void> LlamaEncoder::submit(protocol::GenerateRequest request,
                                  std::shared_ptr<StepSink> sink) {
    if (request.leg != protocol::Leg::kEncode) {
        return error(ErrorCode::kUnsupported, "This engine encodes media and does nothing else.");
    }
    if (request.media.size() != 1 || !request.media[0].content) {
        return param_error("media", "An encode leg has one media item, with its content.");
    }
    {
        const std::scoped_lock lock(mutex_);
        if (stopping_) return error(ErrorCode::kUnavailable, "The engine is shutting down.");
        if (live_.size() > info_.max_waiting) {
            auto refused = error(ErrorCode::kOverloaded, "The encoder's queue of {} items is full.",
                                 info_.max_waiting);
            refused.value().retryable = true;
            refused.value().retry_after_ms = 1000;
            return refused;
        }
        live_.emplace(request.id, std::move(sink));
    }
    desk_->ask(request.id, std::move(request.media[0]), request.deadline);
    return {};
}

/// On the desk's thread.
void LlamaEncoder::end(RequestId id, EncoderDesk::Left left, double seconds) {
    std::shared_ptr<StepSink> sink;
    {
        const std::scoped_lock lock(mutex_);
        sink = live_.at(id);
        work_.model_seconds += seconds;
    }
    protocol::StepBatch batch;
    batch.events.push_back(end_of(id, std::move(left)));
    sink->on_step(std::move(batch));
    {
        const std::scoped_lock lock(mutex_);
        live_.erase(id);
    }
    changed_.notify_all();
}

protocol::LoadReport LlamaEncoder::load() const {
    const std::scoped_lock lock(mutex_);
    protocol::LoadReport report;
    report.running = live_.empty() ? 0 : 1;
    report.waiting = static_cast<std::uint32_t>(live_.size()) - report.running;
    report.running_limit = info_.max_running;
    report.waiting_limit = info_.max_waiting;
    return report;
}

void LlamaEncoder::stop(Deadline deadline) {
    std::unique_lock lock(mutex_);
    stopping_ = true;
    const auto over = [this] { return live_.empty(); };
    if (deadline.is_never()) {
        changed_.wait(lock, over);
        return;
    }
    if (changed_.wait_for(lock, deadline.left(Clock::real().now()), over)) return;
    std::vector<RequestId> ids;
    for (const auto& [id, sink] : live_) ids.push_back(id);
    lock.unlock();
    for (const RequestId id : ids) desk_->cancel(id);
    lock.lock();
    changed_.wait(lock, over);
}

}  // namespace
}  // namespace llama

Result<std::unique_ptr<Engine>> make_llama_encoder(LlamaOptions options) {
    if (!options.handoffs) {
        return error(ErrorCode::kInvalidArgument, "An encoder needs a way to hand over.");
    }
    auto text = llama::WeightlessModel::load(options.model_path);
    if (!text) return tl::unexpected<Error>(std::move(text.error()));
    const auto cores = static_cast<int>(std::max(1U, std::thread::hardware_concurrency()));
    auto encoder =
        llama::MediaEncoder::load(options.mmproj_path, (*text)->model(),
                                  options.threads > 0 ? options.threads : std::max(1, cores / 2));
    if (!encoder) return tl::unexpected<Error>(std::move(encoder.error()));
    return std::make_unique<llama::LlamaEncoder>(std::move(*text), std::move(*encoder), options);
}

}  // namespace stator::engine
