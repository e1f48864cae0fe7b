#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "stator/base/check.h"

namespace stator::requests {

/// Stream number → T. Numbers are handed out in order, so that number modulo capacity all but names
/// the cell; values lie densely beside each other and cells are eight bytes, which is what makes a
/// step over a thousand streams cheap. Pointers hold until the next insert() or erase().
template <typename T>
class StreamTable {
  public:
    [[nodiscard]] T* find(std::uint32_t id) {
        for (std::size_t i = id & mask_;; i = (i + 1) & mask_) {
            if (cells_[i].id == id) return id == 0 ? nullptr : &values_[cells_[i].value];
            if (cells_[i].id == 0) return nullptr;
        }
    }

    /// `id` is not 0 and not there.
    T& insert(std::uint32_t id) {
        STATOR_ASSERT(id != 0 && find(id) == nullptr);
        if (2 * (size_ + 1) > cells_.size()) grow();
        std::uint32_t value = 0;
        if (free_.empty()) {
            value = static_cast<std::uint32_t>(values_.size());
            values_.emplace_back();
        } else {
            value = free_.back();
            free_.pop_back();
        }
        place({.id = id, .value = value});
        ++size_;
        return values_[value];
    }

    bool erase(std::uint32_t id) {
        std::size_t hole = id & mask_;
        while (cells_[hole].id != id) {
            if (cells_[hole].id == 0) return false;
            hole = (hole + 1) & mask_;
        }
        if (id == 0) return false;
        values_[cells_[hole].value] = T{};
        free_.push_back(cells_[hole].value);
        --size_;
        // Cells behind the hole move up where that brings them nearer to their home.
        for (std::size_t i = (hole + 1) & mask_; cells_[i].id != 0; i = (i + 1) & mask_) {
            const std::size_t from_home = (i - (cells_[i].id & mask_)) & mask_;
            if (from_home < ((i - hole) & mask_)) continue;
            cells_[hole] = cells_[i];
            hole = i;
        }
        cells_[hole] = {};
        return true;
    }

    /// In no order. `f(id, T&)` must not insert or erase.
    template <typename F>
    void each(F&& f) {
        for (const Cell& cell : cells_) {
            if (cell.id != 0) f(cell.id, values_[cell.value]);
        }
    }

    [[nodiscard]] std::size_t size() const { return size_; }

  private:
    struct Cell {
        std::uint32_t id = 0;  // 0 = empty
        std::uint32_t value = 0;
    };

    void place(Cell cell) {
        std::size_t i = cell.id & mask_;
        while (cells_[i].id != 0) i = (i + 1) & mask_;
        cells_[i] = cell;
    }

    void grow() {
        std::vector<Cell> old(cells_.size() * 2);
        old.swap(cells_);
        mask_ = cells_.size() - 1;
        for (const Cell& cell : old) {
            if (cell.id != 0) place(cell);
        }
    }

    std::vector<Cell> cells_ = std::vector<Cell>(16);
    std::size_t mask_ = 15;
    std::vector<T> values_;
    std::vector<std::uint32_t> free_;
    std::size_t size_ = 0;
};

}  // namespace stator::requests
