#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include "stator/base/clock.h"
#include "stator/base/error.h"
#include "stator/codec/json.h"
#include "stator/frontend/pools/pool_models.h"

namespace stator::frontend {

/// The routers as a service of its own, for those who send requests themselves:
///
///     POST /router/select       what would be chosen, and why; nothing is booked
///     POST /router/reserve      a rank, booked until it is released or its time is over
///     POST /router/first_token  {"booking", "cached_tokens"}: its prompt is computed
///     POST /router/release      {"booking"}: it has ended
///     POST /router/overlap      who holds how much of the prompt
///     POST /router/loads        every rank's load
///     POST /router/dump         what the index knows of a rank
///
/// select, reserve and overlap take {"model", "tokens": […]}; the first two also, as the headers of
/// a request do, "priority", "session", "session_hard", "worker", "rank", "require", "prefer",
/// "tolerate", "tenant", "expected_output_tokens". Of callers that are not trusted only the session
/// counts, as in headers; select and dump are not for them. Any thread.
class RouterApi {
  public:
    using Routers = std::function<std::vector<PoolModels::ServedRouter>()>;

    RouterApi(Routers routers, const Clock& clock);

    /// The JSON to answer a POST to /router/`action` with. kNotFound: no such action, model,
    /// worker, or booking. kInvalidArgument: what is wrong in the body, with its member.
    /// kPermissionDenied: the caller is not trusted.
    [[nodiscard]] Result<std::string> act(std::string_view action, std::string_view body,
                                          bool trusted);

    static constexpr std::size_t kMaxBookings = 100'000;
    static constexpr std::chrono::seconds kBookingLasts{600};

  private:
    using ByAge = std::multimap<TimePoint, std::uint64_t>;
    struct Booked {
        std::shared_ptr<routing::PoolRouter> router;
        routing::Route route;
        TimePoint at;
        ByAge::iterator place;
    };

    [[nodiscard]] Result<std::shared_ptr<routing::PoolRouter>> router_of(codec::JsonView body);
    [[nodiscard]] Result<std::string> select(codec::JsonView body);
    [[nodiscard]] Result<std::string> reserve(codec::JsonView body, bool trusted);
    [[nodiscard]] Result<std::string> first_token(codec::JsonView body);
    [[nodiscard]] Result<std::string> release(codec::JsonView body);
    [[nodiscard]] Result<std::string> overlap(codec::JsonView body);
    [[nodiscard]] Result<std::string> loads(codec::JsonView body);
    [[nodiscard]] Result<std::string> dump(codec::JsonView body);
    void forget_old(TimePoint now);

    Routers routers_;
    const Clock& clock_;
    std::mutex mutex_;
    std::mt19937_64 random_;
    std::map<std::uint64_t, Booked> bookings_;  ///< by the number that callers name
    ByAge by_age_;                              ///< of the same ones
};

}  // namespace stator::frontend
