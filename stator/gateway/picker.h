#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "stator/base/error.h"
#include "stator/gateway/messages.h"

namespace stator::gateway {

/// A request that is somewhere on its way; destroyed when it has ended. One thread at a time.
class Booking {
  public:
    virtual ~Booking() = default;
    /// Another endpoint than the first of the list took it.
    virtual void served_by(std::string_view endpoint) = 0;
    /// The first token of a streamed answer has come.
    virtual void first_token() = 0;
    /// Tokens of its prompt that were cached, as the answer's usage says.
    virtual void cached_told(std::uint32_t tokens) = 0;
};

/// What is known of a request when an endpoint is picked for it.
struct PickRequest {
    const std::vector<Header>& headers;  ///< with :method and :path
    std::string_view body;
    const std::vector<std::string>* subset = nullptr;  ///< null: any endpoint
};

struct Pick {
    std::vector<std::string> endpoints;  ///< "ip:port": the first and, in order, those after it
    std::vector<Header> set;             ///< for whoever serves the request
    std::optional<std::string> body = std::nullopt;  ///< goes on instead of the request's
    std::string asked_model = {};   ///< where the body's model was replaced: what it was …
    std::string served_model = {};  ///< … and what it is now; answers are changed back
    std::unique_ptr<Booking> booking = nullptr;  ///< null: nothing is kept account of
};

/// Chooses endpoints. Any thread.
class Picker {
  public:
    virtual ~Picker() = default;
    /// kUnavailable: no endpoint may be picked (503); kOverloaded: the request is to be dropped
    /// (429); others as frontend::map_error() has them.
    [[nodiscard]] virtual Result<Pick> pick(const PickRequest& request) = 0;
    /// Whether requests can be served: some endpoint is known.
    [[nodiscard]] virtual bool ready() const = 0;
};

}  // namespace stator::gateway
