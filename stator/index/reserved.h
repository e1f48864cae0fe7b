#pragma once

#include <cstddef>
#include <utility>

namespace stator::index {

/// Address space whose pages cost memory only once they are written, and whose addresses stay
/// readable until the end, whatever is given back: a reader that holds a stale index into it reads
/// old bytes or zeros, never faults. Zero-filled at first. Throws std::bad_alloc where the kernel
/// refuses.
class Reserved {
  public:
    explicit Reserved(std::size_t bytes);
    ~Reserved();
    Reserved(Reserved&& other) noexcept
        : data_(std::exchange(other.data_, nullptr)), bytes_(std::exchange(other.bytes_, 0)) {}
    Reserved& operator=(Reserved&& other) noexcept {
        std::swap(data_, other.data_);
        std::swap(bytes_, other.bytes_);
        return *this;
    }

    /// Gives the whole pages within [from, to) back to the system; they read as zeros afterwards.
    void discard(std::size_t from, std::size_t to);
    /// Asks for large pages from there on; a hint. At random access they save a part of each cache
    /// miss, and the system clears them faster.
    void prefer_huge_pages(std::size_t from = 0);

    [[nodiscard]] void* data() const { return data_; }
    [[nodiscard]] std::size_t bytes() const { return bytes_; }

  private:
    void* data_ = nullptr;
    std::size_t bytes_ = 0;
};

/// The same as an array of T, for which zeros are a valid value.
template <typename T>
class ReservedArray {
  public:
    explicit ReservedArray(std::size_t size) : memory_(size * sizeof(T)), size_(size) {}

    [[nodiscard]] T& operator[](std::size_t i) const { return static_cast<T*>(memory_.data())[i]; }
    [[nodiscard]] std::size_t size() const { return size_; }
    void discard(std::size_t from, std::size_t to) {
        memory_.discard(from * sizeof(T), to * sizeof(T));
    }
    void prefer_huge_pages(std::size_t from = 0) { memory_.prefer_huge_pages(from * sizeof(T)); }

  private:
    Reserved memory_;
    std::size_t size_;
};

}  // namespace stator::index
