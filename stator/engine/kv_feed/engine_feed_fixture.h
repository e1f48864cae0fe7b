#pragma once

#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "stator/base/check.h"
#include "stator/codec/json.h"
#include "stator/protocol/kv_event.h"

namespace stator::engine {

/// For tests: a message as it was recorded.
struct RecordedMessage {
    bool replay = false;
    std::vector<std::string> frames;
};

/// Of $STATOR_DATA/fixtures; empty where there is none.
inline std::string recorded_file(const std::string& name) {
    const char* folder = std::getenv("STATOR_DATA");
    if (folder == nullptr || *folder == 0) return {};
    std::ifstream in(std::filesystem::path(folder) / "fixtures" / name, std::ios::binary);
    return {std::istreambuf_iterator<char>(in), {}};
}

/// The file's format: "KVF1", then by message f64 time, u8 kind, u8 frames, by frame u32 length and
/// bytes; little-endian.
inline std::vector<RecordedMessage> recorded_messages(const std::string& name) {
    const std::string file = recorded_file(name);
    std::vector<RecordedMessage> out;
    std::size_t at = 4;
    while (at + 10 <= file.size()) {
        RecordedMessage& m = out.emplace_back();
        m.replay = file[at + 8] != 0;
        const auto frames = static_cast<unsigned char>(file[at + 9]);
        at += 10;
        for (unsigned i = 0; i < frames; ++i) {
            std::uint32_t size = 0;
            STATOR_CHECK(at + 4 <= file.size(), "the file is cut");
            std::memcpy(&size, file.data() + at, 4);
            m.frames.push_back(file.substr(at + 4, size));
            at += 4 + size;
        }
    }
    return out;
}

/// What our events add up to: the blocks by memory, with their parents.
class HeldBlocks {
  public:
    void apply(const protocol::KvEvent& event) {
        if (std::holds_alternative<protocol::KvCleared>(event.what)) held_.clear();
        if (const auto* stored = std::get_if<protocol::KvStored>(&event.what)) {
            auto parent = stored->parent;
            for (const auto& block : stored->blocks) {
                held_[block.sequence.value].insert(stored->tier);
                parents_[block.sequence.value] = parent ? parent->value : 0;
                parent = block.sequence;
            }
        }
        if (const auto* removed = std::get_if<protocol::KvRemoved>(&event.what)) {
            for (const auto sequence : removed->sequences) {
                const auto found = held_.find(sequence.value);
                STATOR_CHECK(found != held_.end() && found->second.erase(removed->tier) == 1,
                             "what was not there is taken back");
                if (found->second.empty()) held_.erase(found);
            }
        }
    }
    [[nodiscard]] const std::map<std::uint64_t, std::set<protocol::KvTier>>& held() const {
        return held_;
    }
    [[nodiscard]] std::uint64_t parent(std::uint64_t sequence) const {
        return parents_.at(sequence);
    }

  private:
    std::map<std::uint64_t, std::set<protocol::KvTier>> held_;
    std::map<std::uint64_t, std::uint64_t> parents_;
};

}  // namespace stator::engine
