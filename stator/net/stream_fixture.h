#pragma once

#include <gtest/gtest.h>

#include <chrono>
#include <condition_variable>
#include <filesystem>
#include <future>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <utility>

#include "stator/net/stream_socket.h"
#include "stator/runtime/loop.h"

namespace stator::net {

constexpr std::chrono::seconds kPatience{20};  ///< then a test fails instead of hanging

/// A folder that goes with the test.
class TemporaryFolder {
  public:
    TemporaryFolder() {
        std::string name = (std::filesystem::temp_directory_path() / "stator-XXXXXX").string();
        path_ = ::mkdtemp(name.data());
    }
    ~TemporaryFolder() {
        std::error_code ignored;
        std::filesystem::remove_all(path_, ignored);
    }
    TemporaryFolder(const TemporaryFolder&) = delete;
    TemporaryFolder& operator=(const TemporaryFolder&) = delete;
    [[nodiscard]] std::string file(const std::string& name) const { return path_ + "/" + name; }

  private:
    std::string path_;
};

/// Remembers what it is told, for a test's thread to wait for. The hooks run on the loop.
class Recorder : public StreamHandler {
  public:
    std::function<void(StreamSocket&)> when_open;
    std::function<void(StreamSocket&, std::string_view)> when_bytes;
    std::function<void(StreamSocket&)> when_drained;

    template <typename F>
    [[nodiscard]] auto get(F f) const {
        const std::scoped_lock lock(mutex_);
        return f();
    }

    void own(std::shared_ptr<StreamSocket> socket) {
        const std::scoped_lock lock(mutex_);
        socket_ = std::move(socket);
    }
    [[nodiscard]] std::shared_ptr<StreamSocket> socket() const {
        const std::scoped_lock lock(mutex_);
        return socket_;
    }

    void on_open() override {
        note([&] {
            EXPECT_FALSE(open_);
            open_ = true;
        });
        if (when_open) when_open(*socket());
    }
    void on_bytes(std::string_view bytes) override {
        note([&] {
            EXPECT_TRUE(open_);
            largest_ = std::max(largest_, bytes.size());
            if (!when_bytes) received_ += bytes;
        });
        if (when_bytes) when_bytes(*socket(), bytes);
    }
    void on_drained() override {
        note([&] { ++drained_; });
        if (when_drained) when_drained(*socket());
    }
    void on_closed(const Error& why) override {
        note([&] { why_ = why; });
    }

    bool wait_open() {
        return wait([&] { return open_; });
    }
    bool wait_received(std::size_t bytes) {
        return wait([&] { return received_.size() >= bytes; });
    }
    /// False where it was closed first.
    bool wait_received_unless_closed() {
        return wait([&] { return !received_.empty() || why_; }) && !received().empty();
    }
    bool wait_drained() {
        return wait([&] { return drained_ > 0; });
    }
    Error wait_closed() {
        EXPECT_TRUE(wait([&] { return why_.has_value(); })) << "never closed";
        const std::scoped_lock lock(mutex_);
        return why_.value_or(Error{});
    }
    [[nodiscard]] bool opened() const {
        return get([&] { return open_; });
    }
    [[nodiscard]] bool closed() const {
        return get([&] { return why_.has_value(); });
    }
    [[nodiscard]] std::string received() const {
        return get([&] { return received_; });
    }
    [[nodiscard]] std::size_t largest() const {
        return get([&] { return largest_; });
    }

  private:
    template <typename F>
    void note(F f) {
        const std::scoped_lock lock(mutex_);
        EXPECT_FALSE(why_) << "told something after on_closed()";
        f();
        changed_.notify_all();
    }
    template <typename F>
    bool wait(F f) {
        std::unique_lock lock(mutex_);
        return changed_.wait_for(lock, kPatience, f);
    }
    mutable std::mutex mutex_;
    std::condition_variable changed_;
    std::shared_ptr<StreamSocket> socket_;
    bool open_ = false;
    int drained_ = 0;
    std::size_t largest_ = 0;
    std::string received_;
    std::optional<Error> why_;
};

/// Runs `f` on the loop and hands back what it returns.
template <typename F>
auto on_loop(runtime::Loop& loop, F f) {
    std::promise<decltype(f())> promise;
    auto future = promise.get_future();
    EXPECT_TRUE(loop.post([&] {
        if constexpr (std::is_void_v<decltype(f())>) {
            f();
            promise.set_value();
        } else {
            promise.set_value(f());
        }
    }));
    return future.get();
}

}  // namespace stator::net
