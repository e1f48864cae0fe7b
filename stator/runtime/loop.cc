#include "stator/runtime/loop.h"

#include <pthread.h>

#include <atomic>
#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/post.hpp>
#include <mutex>
#include <thread>
#include <utility>

#include "stator/base/check.h"
#include "stator/runtime/asio.h"

namespace stator::runtime {

namespace asio = boost::asio;

struct Loop::Impl {
    explicit Impl(std::string loop_name) : name(std::move(loop_name)) {}

    void run();
    void run_turn_end();

    std::string name;
    // One thread runs it: the hint lets Asio skip its wake-ups between threads, not its locks.
    asio::io_context io{1};
    asio::executor_work_guard<asio::io_context::executor_type> work{io.get_executor()};
    std::thread thread;
    std::atomic<std::thread::id> thread_id{};

    std::mutex mutex;
    bool closed = false;  ///< guarded by mutex, so that nothing is posted behind the last handler

    // Of the loop's thread alone.
    std::vector<std::function<void()>> turn_end;
    std::vector<std::function<void()>> running;
};

void Loop::Impl::run() {
    thread_id.store(std::this_thread::get_id(), std::memory_order_release);
    pthread_setname_np(pthread_self(), name.substr(0, 15).c_str());
    io.run();
}

void Loop::Impl::run_turn_end() {
    running.swap(turn_end);  // what these register belongs to the next turn
    for (auto& f : running) f();
    running.clear();
}

Loop::Loop(std::string name) : impl_(std::make_unique<Impl>(std::move(name))) {}

Loop::~Loop() { STATOR_CHECK(!impl_->thread.joinable(), "a loop is destroyed without stop()"); }

void Loop::start() {
    STATOR_CHECK(!impl_->thread.joinable() && !impl_->closed, "a loop is started twice");
    impl_->thread = std::thread([impl = impl_.get()] { impl->run(); });
}

bool Loop::post(std::function<void()> f) {
    const std::scoped_lock lock(impl_->mutex);
    if (impl_->closed) return false;
    asio::post(impl_->io, std::move(f));
    return true;
}

void Loop::at_turn_end(std::function<void()> f) {
    STATOR_ASSERT(on_this_thread());
    impl_->turn_end.push_back(std::move(f));
    // A handler posted now runs behind everything that is ready now.
    if (impl_->turn_end.size() == 1) {
        asio::post(impl_->io, [impl = impl_.get()] { impl->run_turn_end(); });
    }
}

void Loop::stop() {
    STATOR_CHECK(!on_this_thread(), "a loop can't stop itself: it would wait for its own thread");
    {
        const std::scoped_lock lock(impl_->mutex);
        if (!std::exchange(impl_->closed, true)) {
            asio::post(impl_->io, [impl = impl_.get()] {
                // Twice: what ends a turn may ask for one more (a last flush of what it wrote).
                impl->run_turn_end();
                impl->run_turn_end();
                impl->io.stop();
            });
        }
    }
    if (impl_->thread.joinable()) impl_->thread.join();
}

bool Loop::on_this_thread() const {
    return impl_->thread_id.load(std::memory_order_acquire) == std::this_thread::get_id();
}

asio::io_context& asio_context(Loop& loop) { return loop.impl().io; }

LoopPool::LoopPool(std::size_t count, const std::string& name) {
    STATOR_CHECK(count > 0, "a pool needs at least one loop");
    for (std::size_t i = 0; i < count; ++i) {
        loops_.push_back(std::make_unique<Loop>(name + "/" + std::to_string(i)));
    }
}

LoopPool::~LoopPool() { stop(); }

void LoopPool::start() {
    for (auto& loop : loops_) loop->start();
}

void LoopPool::stop() {
    for (auto& loop : loops_) loop->stop();
}

}  // namespace stator::runtime
