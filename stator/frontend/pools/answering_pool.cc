#include "stator/frontend/pools/answering_pool.h"

#include <utility>

namespace stator::frontend {

void AnsweringPool::set_lack(const std::string& lack) {
    const std::scoped_lock lock(mutex_);
    if (lack_.empty() && !lack.empty()) since_ = clock_.now();
    lack_ = lack;
    lacks_.store(!lack_.empty(), std::memory_order_relaxed);
}

Result<void> AnsweringPool::submit(protocol::GenerateRequest request,
                                   std::shared_ptr<engine::StepSink> sink) {
    // An item can be encoded without anybody who answers.
    const bool needs_answer = request.leg != protocol::Leg::kEncode;
    if (needs_answer && lacks_.load(std::memory_order_relaxed)) {
        if (auto go_on = refuse_if_lasting(); !go_on) {
            for (auto& item : request.media) {
                if (item.embeddings && release_) release_(std::move(item.embeddings));
            }
            return go_on;
        }
    }
    return pool_->submit(std::move(request), std::move(sink));
}

Result<void> AnsweringPool::refuse_if_lasting() const {
    constexpr std::uint32_t kRetryAfterMs = 1'000;
    const std::scoped_lock lock(mutex_);
    if (lack_.empty() || clock_.now() - since_ < wait_) return {};
    auto e = error(ErrorCode::kUnavailable, "the model can't be served now: {}", lack_);
    e.value().retryable = true;
    e.value().retry_after_ms = kRetryAfterMs;
    return e;
}

}  // namespace stator::frontend
