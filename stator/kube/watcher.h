#pragma once

#include <boost/asio/steady_timer.hpp>
#include <functional>
#include <memory>

#include "stator/kube/client.h"
#include "stator/kube/reflector.h"

namespace stator::kube {

/// Carries out what a Reflector wants: its calls, its timers. On the client's loop. Told to `sink`
/// as they come; `turn` after each turn in which something may have changed, trouble included.
class Watcher : public std::enable_shared_from_this<Watcher> {
  public:
    Watcher(std::shared_ptr<Client> client, ReflectorOptions options, ObjectSink& sink,
            std::function<void()> turn);
    void start();
    /// Afterwards neither `sink` nor `turn` is called any more.
    void stop();
    [[nodiscard]] const Reflector& reflector() const { return reflector_; }

  private:
    class Call;
    void step();
    void turn_later();

    const std::shared_ptr<Client> client_;
    Reflector reflector_;
    std::function<void()> turn_;
    boost::asio::steady_timer timer_;
    std::shared_ptr<net::HttpCall> call_;
    std::shared_ptr<Call> handler_;  ///< of the present call
    bool stopped_ = false;
    bool turn_asked_ = false;
};

}  // namespace stator::kube
