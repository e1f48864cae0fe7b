// The KV events of unmodified engines: no message breaks the reader, and no history of readable
// ones breaks the map or makes it say what it takes back twice. As JSON: what TensorRT-LLM's reader
// writes is always a message.
#include <cstdint>
#include <cstdlib>
#include <string_view>
#include <vector>

#include "stator/engine/kv_feed/engine_follower.h"
#include "stator/engine/kv_feed/trtllm_events.h"

namespace {

void read_fetched(std::string_view bytes) {
    using namespace stator::engine;
    TrtllmEventReader reader;
    const auto messages = reader.read(bytes, 1);
    if (!messages) return;
    EngineKvBatch batch;
    for (const TrtllmMessage& m : *messages) {
        if (!read_engine_batch(m.payload, batch)) std::abort();
    }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    using namespace stator;
    using namespace stator::engine;
    std::string_view bytes(reinterpret_cast<const char*>(data), size);
    read_fetched(bytes);
    EngineFollower follower({.block_tokens = 4, .most_pages = 64, .media_placeholders = {7}},
                            {.has_replay = size % 2 == 1}, TimePoint{});
    std::vector<protocol::KvEvent> out;
    (void)follower.start(TimePoint{}, out);
    // A byte of what to do, one of the number, one of the length.
    while (bytes.size() >= 3) {
        const auto what = static_cast<std::uint8_t>(bytes[0]);
        const auto number = static_cast<std::uint8_t>(bytes[1]);
        const auto length = static_cast<std::uint8_t>(bytes[2]);
        bytes.remove_prefix(3);
        const std::string_view payload = bytes.substr(0, length);
        bytes.remove_prefix(payload.size());
        if (what % 4 == 0) {
            follower.on_replayed(number, payload, TimePoint{}, out);
        } else if (what % 4 == 1) {
            (void)follower.on_replay_end(TimePoint{}, out);
        } else {
            (void)follower.on_message(number, payload, TimePoint{}, out);
        }
    }
    std::uint64_t last = 0;
    for (const auto& event : out) {
        if (event.seq.value != ++last) std::abort();
    }
    if (follower.feed().stats().pages > 64) std::abort();
    return 0;
}
