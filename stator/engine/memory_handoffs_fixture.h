#pragma once

#include <cstring>
#include <map>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

#include "stator/transfer/handoff_store.h"

namespace stator::engine {

/// For tests: handoffs in this process's memory, taken as they are by who has the engine at the
/// other end. Thread-safe.
class MemoryHandoffs final : public transfer::HandoffStore {
  public:
    explicit MemoryHandoffs(std::uint64_t budget = 1ULL << 30) : budget_(budget) {}

    [[nodiscard]] Result<std::unique_ptr<transfer::HandoffBuffer>> reserve(
        std::uint64_t bytes) override {
        const std::scoped_lock lock(mutex_);
        if (used_ + bytes > budget_) return error(ErrorCode::kExhausted, "All memory is in use.");
        used_ += bytes;
        auto buffer = std::make_unique<Buffer>();
        buffer->memory = std::make_shared<std::vector<std::byte>>(bytes);
        return buffer;
    }

    [[nodiscard]] Result<std::shared_ptr<const protocol::Handoff>> publish(
        std::unique_ptr<transfer::HandoffBuffer> buffer, protocol::Handoff what) override {
        const std::scoped_lock lock(mutex_);
        auto& memory = static_cast<Buffer&>(*buffer).memory;
        what.bytes = memory->size();
        std::memcpy(what.id.data(), &++last_, sizeof last_);
        auto published = std::make_shared<const protocol::Handoff>(std::move(what));
        held_.emplace(published->id, std::move(memory));
        return published;
    }

    /// Null if it was claimed already. `wanted`: which parts; all if empty.
    [[nodiscard]] std::shared_ptr<protocol::HandoffBytes> claim(
        const std::shared_ptr<const protocol::Handoff>& what, std::vector<bool> wanted = {}) {
        const std::scoped_lock lock(mutex_);
        const auto it = held_.find(what->id);
        if (it == held_.end()) return nullptr;
        auto memory = std::move(it->second);
        held_.erase(it);
        used_ -= memory->size();
        auto out = std::make_shared<protocol::HandoffBytes>();
        out->what = what;
        wanted.resize(what->parts.size(), wanted.empty());
        for (std::size_t i = 0; i < wanted.size(); ++i) {
            const protocol::HandoffPart& part = what->parts[i];
            out->parts.push_back(wanted[i] ? std::span<const std::byte>(*memory).subspan(
                                                 static_cast<std::size_t>(part.offset),
                                                 static_cast<std::size_t>(part.bytes))
                                           : std::span<const std::byte>{});
        }
        last_claimed_ = memory;
        out->keep = std::move(memory);
        return out;
    }

    [[nodiscard]] std::size_t unclaimed() const {
        const std::scoped_lock lock(mutex_);
        return held_.size();
    }
    /// Whether anybody still keeps what was claimed last.
    [[nodiscard]] bool kept() const { return !last_claimed_.expired(); }

  private:
    struct Buffer final : transfer::HandoffBuffer {
        std::span<std::byte> bytes() override { return *memory; }
        std::shared_ptr<std::vector<std::byte>> memory;
    };

    mutable std::mutex mutex_;
    std::uint64_t budget_;
    std::uint64_t used_ = 0;
    std::uint64_t last_ = 0;
    std::map<protocol::HandoffId, std::shared_ptr<std::vector<std::byte>>> held_;
    std::weak_ptr<std::vector<std::byte>> last_claimed_;
};

}  // namespace stator::engine
