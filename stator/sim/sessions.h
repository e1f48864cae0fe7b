#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <unordered_map>
#include <utility>
#include <vector>

#include "stator/tokens/token.h"
#include "stator/workload/request_spec.h"

namespace stator::sim {

/// Which requests wait for others of their session, and what those answered. A session is
/// forgotten when all of its requests have ended: a workload gives them one after another, before
/// the next session. Not thread-safe.
class Sessions {
  public:
    /// `keep_outputs`: prompts may hold outputs.
    explicit Sessions(bool keep_outputs) : keep_outputs_(keep_outputs) {}

    /// Takes note of a request. Given back: nothing holds it up. Else it is kept.
    [[nodiscard]] std::optional<workload::RequestSpec> add(workload::RequestSpec spec);
    /// A request has ended, well or not; what can start now (spec.start later) is given back.
    [[nodiscard]] std::vector<workload::RequestSpec> ended(const workload::RequestSpec& spec,
                                                           std::vector<tokens::TokenId> output);
    /// What a request of this session answered; empty where it has not, or did not.
    [[nodiscard]] std::span<const tokens::TokenId> output(std::uint64_t session,
                                                          std::uint64_t index) const;
    [[nodiscard]] std::size_t open() const { return sessions_.size(); }

  private:
    struct Waiting {
        workload::RequestSpec spec;
        std::vector<std::uint64_t> awaits;
    };
    struct Session {
        std::vector<std::uint64_t> open;  ///< indexes
        std::vector<Waiting> waiting;
        std::vector<std::pair<std::uint64_t, std::vector<tokens::TokenId>>> outputs;
    };

    std::unordered_map<std::uint64_t, Session> sessions_;
    bool keep_outputs_;
};

}  // namespace stator::sim
