#pragma once

#include <functional>
#include <mutex>
#include <utility>
#include <vector>

#include "stator/runtime/loop.h"

namespace stator::runtime {

/// Many producers, one loop: values pushed from any thread reach `receive` on the loop's thread, in
/// order, all that are there at once; however many are pushed, the loop is woken once per drain.
/// Not bounded on its own: producers are (an engine's steps are bounded by its running requests
/// times their max_tokens). Keep it in a shared_ptr; close() (on the loop) ends deliveries.
template <typename T>
class Mailbox : public std::enable_shared_from_this<Mailbox<T>> {
  public:
    using Receive = std::function<void(std::vector<T>&&)>;
    Mailbox(Loop& loop, Receive receive) : loop_(loop), receive_(std::move(receive)) {}

    void push(T value) {
        {
            const std::scoped_lock lock(mutex_);
            if (closed_) return;
            values_.push_back(std::move(value));
            if (std::exchange(scheduled_, true)) return;
        }
        loop_.post([self = this->shared_from_this()] { self->drain(); });
    }

    void close() {
        const std::scoped_lock lock(mutex_);
        closed_ = true;
        values_.clear();
    }

  private:
    void drain() {
        std::vector<T> batch;
        {
            const std::scoped_lock lock(mutex_);
            scheduled_ = false;
            if (closed_) return;
            batch.swap(values_);
        }
        if (!batch.empty()) receive_(std::move(batch));
    }

    Loop& loop_;
    Receive receive_;
    std::mutex mutex_;
    std::vector<T> values_;
    bool scheduled_ = false;
    bool closed_ = false;
};

}  // namespace stator::runtime
