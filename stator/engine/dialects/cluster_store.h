#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "stator/base/clock.h"

namespace stator::engine {

/// The store in which TensorRT-LLM's workers register themselves where their configuration says
/// `disagg_cluster: {cluster_uri: "http://…"}`: keys and texts with an expiry, over HTTP. Requests
/// in, answers out: no sockets. What is over its time is gone. Bounded: further keys are refused.
/// One thread at a time.
///
///     POST   /set                 {"key","value","ttl","expire_time","overwrite_if_exists"}
///     GET    /get?key=            DELETE /delete?key=
///     GET    /expire?key=&ttl=    a heartbeat; 400: it is to register again
///     GET    /get_prefix?key_prefix=&keys_only=
///     GET    /cluster_info
///
/// Answers are {"result":…}; 400 where that is false, empty or not there.
class ClusterStore {
  public:
    static constexpr std::size_t kMostKeys = 1024;
    static constexpr std::size_t kMostKeyBytes = 512;
    static constexpr std::size_t kMostValueBytes = 8 * 1024;

    struct Answer {
        int status = 200;
        std::string body;
    };
    /// `target`: path and query. `unix_seconds`: the time that expire_time counts by.
    [[nodiscard]] Answer handle(std::string_view method, std::string_view target,
                                std::string_view body, TimePoint now, double unix_seconds);

    enum class Role : std::uint8_t { kContext, kGeneration };
    struct Worker {
        std::string id;
        std::string host;
        std::uint16_t port = 0;
        Role role = Role::kContext;
        bool operator==(const Worker&) const = default;
    };
    /// Those that are registered, of whichever cluster, in the order of their keys. What makes no
    /// sense as a worker is left out.
    [[nodiscard]] std::vector<Worker> workers(TimePoint now);

  private:
    struct Value {
        std::string text;
        Deadline until;
    };
    void drop_old(TimePoint now);
    [[nodiscard]] bool set(std::string_view body, TimePoint now, double unix_seconds);
    [[nodiscard]] Answer get_prefix(std::string_view prefix, bool keys_only) const;

    std::map<std::string, Value, std::less<>> values_;
};

/// Value of a query's parameter, percent-decoded. nullopt: it is not there, or no sound encoding.
[[nodiscard]] std::optional<std::string> query_value(std::string_view target,
                                                     std::string_view name);

}  // namespace stator::engine
