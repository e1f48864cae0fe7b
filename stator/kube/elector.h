#pragma once

#include <boost/asio/steady_timer.hpp>
#include <functional>
#include <memory>

#include "stator/kube/client.h"
#include "stator/kube/election.h"

namespace stator::kube {

/// Takes part in an Election. On the client's loop.
class Elector : public std::enable_shared_from_this<Elector> {
  public:
    /// `changed` is told when leading begins and when it ends; between the two it may still have
    /// ended just now, so ask leading() before each act.
    Elector(std::shared_ptr<Client> client, ElectionOptions options,
            std::function<void(bool leading)> changed);
    void start();
    /// Lets go of the lease, best effort, then calls `done` (once, perhaps at once). `changed` is
    /// not told any more.
    void stop(std::function<void()> done);
    [[nodiscard]] bool leading() const;
    [[nodiscard]] const std::string& holder() const { return election_.holder(); }

  private:
    void step();
    void tell();
    void send(Election::Call call, std::function<void(Result<Answer>)> done);

    const std::shared_ptr<Client> client_;
    Election election_;
    std::function<void(bool)> changed_;
    boost::asio::steady_timer timer_;
    bool told_ = false;
    bool stopped_ = false;
};

}  // namespace stator::kube
