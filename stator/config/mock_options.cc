#include "stator/config/option_table.h"

namespace stator::config::table {
namespace {

void add_time(std::vector<Option>& t) {
    using S = Settings;
    using M = MockSettings;
    t.push_back(option<&S::mock, &M::preset>(
                    "mock.preset", "--mock-preset",
                    "Model and device to imitate: times and memory. A wrong name is answered with "
                    "those there are.")
                    .in("name"));
    t.push_back(option<&S::mock, &M::step_time>(
                    "mock.step_time", "--mock-step-time",
                    "YAML file with how long steps take, instead of the preset's times; "
                    "docs/mock-engine.md shows the forms.")
                    .in("file"));
    t.push_back(option<&S::mock, &M::speedup>(
                    "mock.speedup", "--speedup",
                    "How many times as fast as the imitated engine everything goes.")
                    .range(0.001, 10'000));
    t.push_back(option<&S::mock, &M::noise>(
                    "mock.noise", "--mock-noise",
                    "Standard deviation of a step's time, as a share of it. --seed seeds it.")
                    .range(0, 1));
    t.push_back(option<&S::mock, &M::faults>(
                    "mock.faults", "--mock-faults",
                    "What goes wrong when, such as crash@30s, hang@10s+5s, slow@20s+10s:x4, "
                    "drop-events@5s+2s:0.5, lose-events@5s+2s:0.05; docs/mock-engine.md has them "
                    "all. worker=3: before one is for one "
                    "of --count. Seconds of the engine's clock, which --speedup makes faster.")
                    .in("schedule"));
    t.push_back(option<&S::mock, &M::threads>("mock.threads", "--mock-threads",
                                              "Threads that drive all mock engines of the process.")
                    .range(1, 64)
                    .in("threads"));
}

void add_output_and_memory(std::vector<Option>& t) {
    using S = Settings;
    using M = MockSettings;
    t.push_back(option<&S::mock, &M::mean_output>(
                    "mock.mean_output", "--mock-mean-output",
                    "Mean length of answers to requests that do not ignore the end of generation. "
                    "0: they go on up to their max_tokens.")
                    .range(0, kMaxCount)
                    .in("tokens"));
    t.push_back(option<&S::mock, &M::ranks>(
                    "mock.ranks", "--mock-ranks",
                    "Data-parallel ranks of each worker, every one with its own scheduler and "
                    "memory. Only for `stator worker`.")
                    .range(1, 64)
                    .in("ranks"));
    t.push_back(option<&S::mock, &M::blocks>("mock.blocks", "--mock-blocks",
                                             "Blocks of --block-tokens in the device's KV memory.")
                    .range(1, 100e6)
                    .in("blocks")
                    .unset("what the preset's memory holds"));
    t.push_back(option<&S::mock, &M::host_blocks>(
                    "mock.host_blocks", "--mock-host-blocks",
                    "Blocks in host memory, where those go that the device has no room for. 0: "
                    "they are forgotten.")
                    .range(0, 100e6)
                    .in("blocks"));
    t.push_back(
        option<&S::mock, &M::host_bandwidth>("mock.host_bandwidth", "--mock-host-bandwidth",
                                             "Between host and device, each way. 0: at once.")
            .range(0, 1e6)
            .in("GB/s"));
    t.push_back(option<&S::mock, &M::disk_blocks>(
                    "mock.disk_blocks", "--mock-disk-blocks",
                    "Blocks on disk, where those go that the host has no room for. 0: they are "
                    "forgotten.")
                    .range(0, 100e6)
                    .in("blocks"));
    t.push_back(option<&S::mock, &M::disk_bandwidth>("mock.disk_bandwidth", "--mock-disk-bandwidth",
                                                     "Between disk and device, each way. 0: at "
                                                     "once.")
                    .range(0, 1e6)
                    .in("GB/s"));
}

void add_legs(std::vector<Option>& t) {
    using S = Settings;
    using M = MockSettings;
    t.push_back(option<&S::mock, &M::kv_bytes>(
                    "mock.kv_bytes", "--mock-kv-bytes",
                    "Bytes of a token's KV: what handoffs and slower memory move. Handoffs take as "
                    "much real memory.")
                    .range(8, 1e9)
                    .in("bytes")
                    .unset("the preset's"));
    t.push_back(option<&S::mock, &M::image_ms>("mock.image_ms", "--mock-image-ms",
                                               "What encoding a picture takes at least.")
                    .range(0, kDay_ms)
                    .in("ms")
                    .unset("the preset's"));
    t.push_back(option<&S::mock, &M::image_token_us>(
                    "mock.image_token_us", "--mock-image-token-us",
                    "What encoding takes for each token that a picture becomes.")
                    .range(0, kDay_ms * 1e3)
                    .in("us")
                    .unset("the preset's"));
    t.push_back(option<&S::mock, &M::image_pixels>("mock.image_pixels", "--mock-image-pixels",
                                                   "A picture becomes a token for so many pixels.")
                    .range(1, 1e6)
                    .in("pixels"));
    t.push_back(option<&S::mock, &M::image_tokens>(
                    "mock.image_tokens", "--mock-image-tokens",
                    "But a picture, or a frame of a video, no more than so many.")
                    .range(1, 1e6)
                    .in("tokens"));
    t.push_back(option<&S::mock, &M::embedding_width>(
                    "mock.embedding_width", "--mock-embedding-width",
                    "Numbers of a picture's token, four bytes each, that an encode leg hands over.")
                    .range(2, 1e6)
                    .in("numbers"));
}

}  // namespace

void add_mock_options(std::vector<Option>& t) {
    add_time(t);
    add_output_and_memory(t);
    add_legs(t);
}

}  // namespace stator::config::table
