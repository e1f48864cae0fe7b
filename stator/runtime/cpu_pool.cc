#include "stator/runtime/cpu_pool.h"

#include <pthread.h>

#include <algorithm>
#include <utility>

namespace stator::runtime {

CpuPool::CpuPool(std::size_t threads, std::size_t max_queued, const std::string& name)
    : max_queued_(max_queued) {
    constexpr std::size_t kLongestThreadName = 15;
    for (std::size_t i = 0; i < std::max<std::size_t>(threads, 1); ++i) {
        threads_.emplace_back([this] { run(); });
        pthread_setname_np(threads_.back().native_handle(),
                           name.substr(0, kLongestThreadName).c_str());
    }
}

CpuPool::~CpuPool() { stop(); }

bool CpuPool::try_submit(std::function<void()> f) {
    {
        const std::scoped_lock lock(mutex_);
        if (stopping_) return false;
        if (queue_.size() >= max_queued_) {
            ++refused_;
            return false;
        }
        queue_.push_back(std::move(f));
    }
    wake_.notify_one();
    return true;
}

void CpuPool::stop() {
    std::deque<std::function<void()>> dropped;
    {
        const std::scoped_lock lock(mutex_);
        stopping_ = true;
        dropped.swap(queue_);
    }
    wake_.notify_all();
    for (std::thread& t : threads_) {
        if (t.joinable()) t.join();
    }
}

std::size_t CpuPool::queued() const {
    const std::scoped_lock lock(mutex_);
    return queue_.size();
}

std::uint64_t CpuPool::refused() const {
    const std::scoped_lock lock(mutex_);
    return refused_;
}

void CpuPool::run() {
    std::unique_lock lock(mutex_);
    while (true) {
        wake_.wait(lock, [this] { return stopping_ || !queue_.empty(); });
        if (stopping_) return;
        {
            const std::function<void()> f = std::move(queue_.front());
            queue_.pop_front();
            lock.unlock();
            f();
        }
        lock.lock();
    }
}

}  // namespace stator::runtime
