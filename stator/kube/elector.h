#pragma once

#include <functional>
#include <memory>
#include <string>

#include "stator/kube/client.h"
#include "stator/kube/election.h"

namespace stator::kube {

/// Takes part in an Election. On the client's loop.
class Elector {
  public:
    virtual ~Elector() = default;
    virtual void start() = 0;
    /// Lets go of the lease, best effort, then calls `done` (once, perhaps at once). `changed` is
    /// not told any more.
    virtual void stop(std::function<void()> done) = 0;
    [[nodiscard]] virtual bool leading() const = 0;
    [[nodiscard]] virtual const std::string& holder() const = 0;
};

/// `changed` is told when leading begins and when it ends; between the two it may still have ended
/// just now, so ask leading() before each act.
[[nodiscard]] std::shared_ptr<Elector> make_elector(std::shared_ptr<Client> client,
                                                    ElectionOptions options,
                                                    std::function<void(bool leading)> changed);

}  // namespace stator::kube
