#pragma once

#include <array>
#include <cstdint>
#include <list>
#include <map>
#include <optional>
#include <unordered_map>
#include <vector>

#include "stator/base/error.h"
#include "stator/router/route.h"

namespace stator::router {

/// How urgent a request is; each class goes before the next.
enum class RequestClass : std::uint8_t { kInteractive, kStandard, kBatch };

/// A request that waits for a rank.
struct Waiting {
    std::uint64_t id = 0;
    std::uint64_t tenant = 0;
    RequestClass urgency = RequestClass::kStandard;
    Nanos arrival{0};
    std::optional<Nanos> deadline;  ///< of its first token
    double work_s = 0;              ///< of a rank, as predicted: what it takes of a tenant's share
    bool operator==(const Waiting&) const = default;
};

struct AdmissionOptions {
    std::size_t most_requests = 1024;
    std::size_t most_per_tenant = 512;
    /// Within a tenant and class a request of w seconds of work goes as if it had come stretch · w
    /// later: short ones pass long ones, but not for ever. 0 = in the order of arrival.
    double stretch = 0;
    /// Who has waited so long goes as the next more urgent class. 0 = never.
    double promote_after_s = 30;
    /// Seconds of work that a tenant of weight 1 gets in one round.
    double quantum_s = 0.5;
};

/// The requests of one pool that wait at the router, bounded. Order: class, then tenants by deficit
/// round robin over their work, then deadline or arrival. Whoever owns it scores a request again
/// when it comes out, and puts it back where no rank should take it yet. Pure: time is passed in.
/// Not thread-safe.
class AdmissionQueue {
  public:
    explicit AdmissionQueue(AdmissionOptions options = {}) : options_(options) {}
    AdmissionQueue(const AdmissionQueue&) = delete;
    AdmissionQueue& operator=(const AdmissionQueue&) = delete;

    /// Shares of tenants; those not named have 1. Must be positive (else ignored).
    void set_weight(std::uint64_t tenant, double weight);

    /// Takes it in. kOverloaded, with when to try again: the queue is full of requests that are as
    /// urgent, or the tenant's part is. kDeadlineExceeded: it is past its deadline. The value is
    /// who had to go for it, a less urgent one.
    [[nodiscard]] Result<std::optional<Waiting>> push(const Waiting& request, Nanos now);
    /// Who is next. Does not look at deadlines: expire() first.
    [[nodiscard]] std::optional<Waiting> pop(Nanos now);
    /// It came out in vain: back to its place, and its tenant's share with it.
    void put_back(const Waiting& request);
    /// It leaves (its client is gone). False: it is not here.
    bool remove(std::uint64_t id);
    /// Takes out those whose deadline has come.
    [[nodiscard]] std::vector<Waiting> expire(Nanos now);

    [[nodiscard]] std::size_t size() const { return places_.size(); }
    [[nodiscard]] bool empty() const { return places_.empty(); }
    [[nodiscard]] double work_s() const { return work_s_; }

  private:
    static constexpr std::size_t kClasses = 3;
    using Order = std::multimap<double, Waiting>;
    struct Tenant {
        Order waiting;
        double deficit_s = 0;
    };
    struct Class {
        std::unordered_map<std::uint64_t, Tenant> tenants;
        std::list<std::uint64_t> round;  ///< tenants with requests, whose turn it is first
        std::size_t size = 0;
    };
    struct Place {
        std::size_t level;
        std::uint64_t tenant;
        Order::iterator at;
    };

    [[nodiscard]] double key(const Waiting& request) const;
    void insert(const Waiting& request, std::size_t level);
    Waiting take(const Place& place);
    void promote(Nanos now);
    [[nodiscard]] double weight(std::uint64_t tenant) const;
    [[nodiscard]] std::uint64_t next_tenant(Class& c) const;
    [[nodiscard]] Error overloaded(std::string message) const;

    AdmissionOptions options_;
    std::array<Class, kClasses> classes_;
    std::unordered_map<std::uint64_t, Place> places_;
    std::multimap<Nanos, std::uint64_t> deadlines_;
    std::unordered_map<std::uint64_t, double> weights_;
    std::unordered_map<std::uint64_t, std::size_t> per_tenant_;
    double work_s_ = 0;
    Nanos last_pop_{0};
    double pop_interval_s_ = 0.1;  ///< a moving mean
};

}  // namespace stator::router
