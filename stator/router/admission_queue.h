#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <list>
#include <map>
#include <optional>
#include <unordered_map>
#include <utility>
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

/// What becomes of a request that is offered.
enum class Offered : std::uint8_t {
    kTaken,   ///< it leaves the queue
    kNotNow,  ///< it keeps its place, the next one is offered
    kNobody,  ///< it keeps its place, and none behind it would be taken either
};

/// The requests of one pool that wait at the router, bounded. Order: class, then tenants by deficit
/// round robin over their work, then deadline or arrival. Whoever owns it offers them to the ranks
/// in that order, or takes one out and puts it back where no rank should have it yet. Pure: time is
/// passed in. Memory: some 300 bytes a request; nothing is kept of tenants who do not wait, but for
/// the weights that were set. Not thread-safe.
class AdmissionQueue {
  public:
    explicit AdmissionQueue(AdmissionOptions options = {}) : options_(options) {}
    AdmissionQueue(const AdmissionQueue&) = delete;
    AdmissionQueue& operator=(const AdmissionQueue&) = delete;

    /// Shares of tenants; those not named have 1. Must be positive (else ignored).
    void set_weight(std::uint64_t tenant, double weight);
    /// All have 1 again. What a tenant has left of its turn was by the old weights: it is lost.
    void clear_weights();
    /// From now on. Those who wait stay, also where there are more than the bounds allow; nobody
    /// else comes in until enough have left.
    void set_options(const AdmissionOptions& options) { options_ = options; }

    /// Takes it in. kOverloaded, with when to try again: the queue is full of requests that are as
    /// urgent, or the tenant's part is. kDeadlineExceeded: it is past its deadline. The value is
    /// who had to go for it, a less urgent one.
    [[nodiscard]] Result<std::optional<Waiting>> push(const Waiting& request, Nanos now);
    /// Who is next. Does not look at deadlines: expire() first.
    [[nodiscard]] std::optional<Waiting> pop(Nanos now);
    /// It came out in vain: back to its place, and its tenant's share with it.
    void put_back(const Waiting& request);
    /// Asks for one after the other, in order, what becomes of it; `ask` must leave the queue
    /// alone. Those who are not taken keep their places and their tenants' shares, so that it is as
    /// if only the others had come out. At most `most` are asked: half of them the first, the
    /// others from further back, each time from where the last offer ended. How many were taken.
    std::size_t offer(Nanos now, std::size_t most,
                      const std::function<Offered(const Waiting&)>& ask);
    /// It leaves (its client is gone). False: it is not here.
    bool remove(std::uint64_t id);
    /// Takes out those whose deadline has come.
    [[nodiscard]] std::vector<Waiting> expire(Nanos now);

    [[nodiscard]] std::size_t size() const { return places_.size(); }
    [[nodiscard]] bool empty() const { return places_.empty(); }
    /// Of one class, those included that have come up into it.
    [[nodiscard]] std::size_t size(RequestClass urgency) const {
        return classes_[static_cast<std::size_t>(urgency)].size;
    }
    /// Who has requests here.
    [[nodiscard]] std::size_t tenants() const { return per_tenant_.size(); }
    [[nodiscard]] double work_s() const { return work_s_; }

  private:
    static constexpr std::size_t kClasses = 3;
    /// By key, then by id: who is put back finds its place again.
    using Order = std::map<std::pair<double, std::uint64_t>, Waiting>;
    struct Tenant {
        Order waiting;
        double deficit_s = 0;
    };
    struct Class {
        std::unordered_map<std::uint64_t, Tenant> tenants;
        std::list<std::uint64_t> round;  ///< tenants with requests, whose turn it is first
        std::size_t size = 0;
    };
    using Shares = std::array<std::vector<std::pair<std::uint64_t, double>>, kClasses>;
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
    [[nodiscard]] Class* first_class();
    void pass_turn(Class& c, std::uint64_t tenant);
    [[nodiscard]] Shares shares() const;
    void restore(const Shares& shares);
    void count_departure(Nanos now);
    [[nodiscard]] Error overloaded(std::string message) const;

    AdmissionOptions options_;
    std::array<Class, kClasses> classes_;
    std::unordered_map<std::uint64_t, Place> places_;
    std::multimap<Nanos, std::uint64_t> deadlines_;
    std::unordered_map<std::uint64_t, double> weights_;
    std::unordered_map<std::uint64_t, std::size_t> per_tenant_;
    double work_s_ = 0;
    std::size_t further_ = 0;  ///< where the next offer goes on behind the first ones
    Nanos last_pop_{0};
    double pop_interval_s_ = 0.1;  ///< a moving mean
};

}  // namespace stator::router
