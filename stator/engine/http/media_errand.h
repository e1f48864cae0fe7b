#pragma once

#include <chrono>
#include <cstddef>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "stator/engine/http/call_host.h"
#include "stator/engine/http/media_desk.h"
#include "stator/engine/http/whole_answer.h"

namespace stator::engine {

/// Questions about a request's media, asked at once: before the request goes to the engine, or (an
/// encode leg) instead of it. On the engine's loop.
///
/// The first that fails ends it and closes the others' connections.
class MediaErrand final : public ActiveCall, public std::enable_shared_from_this<MediaErrand> {
  public:
    /// The answers by question; or why not: kCancelled where it was cancelled by us or its deadline
    /// and there is nothing to be said. Called once, never from within start() or cancel().
    using Done = std::function<void(Result<std::vector<std::string>> answers)>;

    /// `deadline`: the request's. `within`: a shorter one, which is the engine's fault.
    MediaErrand(CallHost& host, protocol::RequestId request, Deadline deadline,
                std::chrono::milliseconds within, Done done);
    /// `headers`: sent with each.
    void start(net::HttpPool& pool, std::vector<MediaDesk::Question> questions,
               const net::HttpHeaders& headers);
    void cancel() override;

  private:
    void take(std::size_t question, WholeAnswer::Body body, const net::HttpFailure* failure);
    void finish(Result<std::vector<std::string>> how);

    CallHost& host_;
    const Deadline deadline_;
    const std::chrono::milliseconds within_;
    Done done_;
    std::vector<std::shared_ptr<net::HttpCall>> calls_;
    std::vector<std::string> answers_;
    std::size_t open_ = 0;
};

}  // namespace stator::engine
