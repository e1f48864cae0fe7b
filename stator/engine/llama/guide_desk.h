#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "stator/base/error.h"
#include "stator/protocol/generate.h"
#include "stator/text/guides/guide.h"
#include "stator/text/guides/guide_cache.h"
#include "stator/text/tokenizer.h"

namespace stator::engine::llama {

/// Compiles the constraints of requests, one after the other, on a thread of its own, so that
/// neither the engine's steps nor those who submit wait for a large schema. The vocabulary is made
/// ready when the first constraint comes. ask() and forget() from any thread; the queue is bounded
/// by the engine's accepted requests.
class GuideDesk {
  public:
    /// Called on the desk's thread, once for each ask(), in order.
    using Done = std::function<void(protocol::RequestId, Result<text::Guide>)>;

    GuideDesk(std::shared_ptr<const text::Tokenizer> tokenizer, Done done);
    /// Leaves out what is not compiled yet.
    ~GuideDesk();
    GuideDesk(const GuideDesk&) = delete;
    GuideDesk& operator=(const GuideDesk&) = delete;

    /// `resumed`: the text that is there already, which the guide is led through.
    void ask(protocol::RequestId id, std::shared_ptr<const protocol::OutputConstraint> constraint,
             std::vector<tokens::TokenId> resumed);

    /// A guide of this constraint failed: the next one is compiled anew.
    void forget(std::shared_ptr<const protocol::OutputConstraint> constraint);

  private:
    struct Job {
        protocol::RequestId id;
        std::shared_ptr<const protocol::OutputConstraint> constraint;
        std::vector<tokens::TokenId> resumed;
        bool forget = false;
    };

    void put(Job job);
    void run();
    [[nodiscard]] Result<text::Guide> make(const Job& job);

    std::shared_ptr<const text::Tokenizer> tokenizer_;
    Done done_;
    std::unique_ptr<text::GuideCache> cache_;  ///< the desk's thread only

    std::mutex mutex_;
    std::condition_variable wake_;
    std::deque<Job> jobs_;
    bool stopping_ = false;
    std::thread thread_;
};

}  // namespace stator::engine::llama
