#pragma once

#include <compare>
#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <unordered_map>

namespace stator::index {

/// Whose predictions there are: of each tenant how many blocks, and its pieces in the order in
/// which they end when it has too many. Only tenants with live predictions have an entry, and only
/// live pieces. The writer's own.
class PredictionOwners {
  public:
    /// Sorts by tenant, then earlier calls first, then what stood further back in its request:
    /// leading blocks are of use without those behind them, not the other way round.
    struct Age {
        std::uint64_t tenant = 0;
        std::uint64_t call = 0;
        std::uint32_t from_end = 0;  ///< 2^32 - 1 less the place of the piece in its request
        auto operator<=>(const Age&) const = default;
    };
    static Age age(std::uint64_t tenant, std::uint64_t call, std::uint32_t first) {
        return {tenant, call, ~first};
    }

    /// `where`: rank and run, given back by oldest(). No two pieces have the same age.
    void add(const Age& age, std::uint64_t where, std::uint32_t blocks);
    void remove(const Age& age, std::uint32_t blocks);

    struct Oldest {
        std::uint64_t call = 0;
        std::uint32_t first = 0;
        std::uint64_t where = 0;
    };
    [[nodiscard]] std::optional<Oldest> oldest(std::uint64_t tenant) const;
    [[nodiscard]] std::size_t blocks_of(std::uint64_t tenant) const;
    [[nodiscard]] std::size_t tenants() const { return blocks_.size(); }
    [[nodiscard]] std::size_t memory_bytes() const;

  private:
    std::map<Age, std::uint64_t> pieces_;
    std::unordered_map<std::uint64_t, std::size_t> blocks_;  // by tenant
};

}  // namespace stator::index
