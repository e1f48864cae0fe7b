#pragma once

#include <cstdint>
#include <list>
#include <unordered_map>

namespace stator::engine::mock {

/// Things of different sizes that lie in a memory of bounded size, least recently used first out:
/// outputs of the encoder by image, adapters by number. A thing larger than all of it is not kept.
class ResidentSet {
  public:
    explicit ResidentSet(std::uint64_t capacity) : capacity_(capacity) {}

    [[nodiscard]] bool holds(std::uint64_t key) const { return where_.contains(key); }
    /// Makes it the most recently used; true: it was there already.
    bool use(std::uint64_t key, std::uint64_t size);
    [[nodiscard]] std::uint64_t used() const { return used_; }
    void clear();

  private:
    struct Thing {
        std::uint64_t key;
        std::uint64_t size;
    };
    std::uint64_t capacity_;
    std::uint64_t used_ = 0;
    std::list<Thing> order_;
    std::unordered_map<std::uint64_t, std::list<Thing>::iterator> where_;
};

}  // namespace stator::engine::mock
