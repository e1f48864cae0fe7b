#pragma once

#include <sys/types.h>

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "stator/base/clock.h"
#include "stator/base/error.h"
#include "stator/media/helper_protocol.h"
#include "stator/protocol/handoff.h"
#include "stator/runtime/descriptor.h"

// Inside of the decoder.
namespace stator::media {

/// One running helper. Ends with this object.
class HelperProcess {
  public:
    /// Starts `program` with a socket as descriptor 0, nothing else open, no environment, and waits
    /// for its hello. kUnavailable: it can't be started, or ended before it said hello.
    [[nodiscard]] static Result<std::unique_ptr<HelperProcess>> start(const std::string& program,
                                                                      const Clock& clock,
                                                                      Deadline deadline);
    ~HelperProcess();  ///< kills it
    HelperProcess(const HelperProcess&) = delete;
    HelperProcess& operator=(const HelperProcess&) = delete;

    struct Answer {
        helper::Reply reply;
        protocol::MediaContent content;  ///< with Outcome::kOk
    };
    /// One item. kInternal: the helper died or broke the protocol; kDeadlineExceeded; kCancelled.
    /// After an error the process is of no more use.
    [[nodiscard]] Result<Answer> decode(const helper::Request& request, std::string_view bytes,
                                        Deadline deadline, const std::atomic<bool>& cancelled);
    [[nodiscard]] std::uint32_t items() const { return items_; }
    [[nodiscard]] pid_t pid() const { return pid_; }

  private:
    HelperProcess(pid_t pid, int socket, const Clock& clock)
        : pid_(pid), socket_(socket), clock_(clock) {}
    [[nodiscard]] Result<void> wait(short events, Deadline deadline,
                                    const std::atomic<bool>& cancelled) const;
    [[nodiscard]] Result<void> send(std::string_view bytes, Deadline deadline,
                                    const std::atomic<bool>& cancelled) const;
    [[nodiscard]] Result<void> receive(void* to, std::size_t count, Deadline deadline,
                                       const std::atomic<bool>& cancelled) const;

    const pid_t pid_;
    runtime::Descriptor socket_;
    const Clock& clock_;
    std::uint32_t items_ = 0;
};

}  // namespace stator::media
