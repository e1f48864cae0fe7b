#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "stator/base/clock.h"
#include "stator/base/error.h"
#include "stator/requests/messages.h"

namespace stator::requests {

/// What follows a request's head: the prompt, and behind it what is too long for the head
/// (BehindPrompt). Inside the room only.

/// Texts of constraints that are longer travel behind the prompt.
inline constexpr std::size_t kInlineConstraintBytes = 8 * 1024;

/// The client's: pieces of the request's own memory, which is not copied.
class OutgoingBody {
  public:
    OutgoingBody() = default;
    /// Also takes out of `head`, whose request has all but the prompt, what goes behind it, and
    /// fills in prompt_tokens and behind. kInvalidArgument, kTooLarge: no worker would take it.
    [[nodiscard]] static Result<OutgoingBody> make(
        std::shared_ptr<const protocol::GenerateRequest> request, OpenHead& head, TimePoint now);

    /// Four bytes each.
    [[nodiscard]] std::size_t words() const;
    /// Words [from, from + count).
    void append(std::string& out, std::size_t from, std::size_t count) const;

  private:
    std::shared_ptr<const protocol::GenerateRequest> request_;
    std::string behind_;                    // without the pixels
    std::vector<std::string_view> pixels_;  // by item
    std::size_t pixel_bytes_ = 0;
};

/// The worker's: puts it together as it comes.
class IncomingBody {
  public:
    IncomingBody(OpenHead head, TimePoint opened) : head_(std::move(head)), opened_(opened) {}

    [[nodiscard]] const OpenHead& head() const { return head_; }
    /// Before the first of many pieces: growing on the way would copy megabytes at once.
    void reserve();
    /// A piece of whole words. False: it is none, or more than the head said.
    [[nodiscard]] bool add(std::string_view bytes);
    [[nodiscard]] std::size_t words() const {
        return head_.request.prompt.size() + rest_.size() / 4;
    }
    [[nodiscard]] bool whole() const { return words() == head_.prompt_tokens; }
    /// Once it is whole: the head with everything that stood behind the prompt.
    [[nodiscard]] Result<OpenHead> take();

  private:
    [[nodiscard]] std::size_t prompt_words() const;
    void give_pixels(protocol::GenerateRequest& request);

    OpenHead head_;
    TimePoint opened_;
    std::string rest_;  // behind the prompt
};

}  // namespace stator::requests
