#include "stator/index/run_table.h"

#include <algorithm>

namespace stator::index {

using std::memory_order_relaxed;
using std::memory_order_release;

std::uint32_t RunTable::allocate() {
    std::uint32_t id = free_;
    if (id != 0) {
        free_ = runs_[id].base.load(memory_order_relaxed);
    } else {
        if (top_ >= runs_.size()) return 0;
        id = top_++;
        touched_ = std::max(touched_, top_);
    }
    Run& run = runs_[id];
    // A version that this number did not have in its former lives, whose pages may have gone.
    run.version.store(std::max(run.version.load(memory_order_relaxed), versions_) | 1,
                      memory_order_relaxed);
    std::atomic_thread_fence(memory_order_release);
    run.next.store(0, memory_order_relaxed);
    run.stamp = 0;
    run.inner_removed = 0;
    ++used_;
    return id;
}

void RunTable::finish(std::uint32_t id) {
    std::atomic<std::uint32_t>& version = runs_[id].version;
    version.store(version.load(memory_order_relaxed) + 1, memory_order_release);
}

void RunTable::free(std::uint32_t id) {
    Run& run = runs_[id];
    {
        const RunChange change(run);
        run.length.store(0, memory_order_relaxed);
        run.head.store(0, memory_order_relaxed);
        run.entries.store(0, memory_order_relaxed);
        run.list.store(0, memory_order_relaxed);
        for (auto& bits : run.bits) bits.store(0, memory_order_relaxed);
        run.base.store(free_, memory_order_relaxed);
    }
    free_ = id;
    --used_;
}

void RunTable::release_unused() {
    if (used_ != 0 || touched_ == 1) return;
    for (std::uint32_t id = 1; id < touched_; ++id) {
        versions_ = std::max(versions_, runs_[id].version.load(memory_order_relaxed));
    }
    runs_.discard(0, touched_);
    free_ = 0;
    top_ = touched_ = 1;
}

}  // namespace stator::index
