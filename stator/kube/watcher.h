#pragma once

#include <functional>
#include <memory>

#include "stator/kube/client.h"
#include "stator/kube/reflector.h"

namespace stator::kube {

/// Carries out what a Reflector wants: its calls, its timers. On the client's loop.
class Watcher {
  public:
    virtual ~Watcher() = default;
    virtual void start() = 0;
    /// Afterwards neither `sink` nor `turn` is called any more.
    virtual void stop() = 0;
    [[nodiscard]] virtual const Reflector& reflector() const = 0;
};

/// Tells `sink` as things come, and `turn` after each turn of the loop in which something may have
/// changed, trouble included. `sink` must live until stop().
[[nodiscard]] std::shared_ptr<Watcher> make_watcher(std::shared_ptr<Client> client,
                                                    ReflectorOptions options, ObjectSink& sink,
                                                    std::function<void()> turn);

}  // namespace stator::kube
