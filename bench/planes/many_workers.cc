// Many idle workers in one process, each as `stator worker` offers itself: with an engine, a name,
// an incarnation and a socket of its own, announced in a folder.
//
//   bench_many_workers COUNT FOLDER (unix|tcp)
//
// Prints "ready" when all are there; ends when its standard input does.
#include <sys/resource.h>

#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>
#include <vector>

#include "stator/engine/echo/echo_engine.h"
#include "stator/metrics/registry.h"
#include "stator/model/artifacts.h"
#include "stator/runtime/loop.h"
#include "stator/worker/worker.h"

using namespace stator;

namespace {

/// ByteTokenizer's end token is 256; a vocabulary without special texts ends there.
constexpr std::uint32_t kVocabulary = 257;

[[noreturn]] void fail(const std::string& what) {
    std::fprintf(stderr, "bench_many_workers: %s\n", what.c_str());
    std::exit(1);
}

protocol::ModelCard card_of(const engine::EngineInfo& info, worker::ArtifactStore& artifacts) {
    protocol::ModelCard card;
    card.name = "bench";
    card.vocab_size = kVocabulary;
    card.context_tokens = info.context_tokens;
    card.block_tokens = info.block_tokens;
    card.hash_scheme = "xxh3-64:1337";
    card.max_top_logprobs = info.max_top_logprobs;
    card.weights_digest = info.kind;
    card.kv_layout = "none";
    card.tokenizer = artifacts.add("byte-tokenizer", model::byte_tokenizer_artifact({}));
    return card;
}

/// A worker's registry is its process's, so each has one of its own here too.
struct One {
    metrics::Registry registry;
    std::unique_ptr<engine::Engine> engine;
    std::unique_ptr<worker::Worker> worker;
};

std::unique_ptr<One> start_one(const std::string& folder, bool unix, int number,
                               runtime::LoopPool& loops) {
    auto one = std::make_unique<One>();
    worker::WorkerOptions options;
    options.name = "idle-" + std::to_string(number);
    options.announce_folder = folder;
    const std::string address =
        unix ? "unix:" + folder + "/" + options.name + ".sock" : "127.0.0.1:0";
    auto listen = net::parse_socket_address(address);
    if (!listen) fail(listen.error().message);
    options.listen = std::move(*listen);
    protocol::ModelCard loading;
    loading.name = "bench";
    auto started = worker::start_worker(std::move(options), loading, loops, one->registry);
    if (!started) fail(started.error().message);
    one->worker = std::move(*started);
    one->engine = engine::make_echo_engine({});
    worker::ArtifactStore artifacts;
    protocol::ModelCard card = card_of(one->engine->info(), artifacts);
    one->worker->set_ready(std::move(card), std::move(artifacts), {one->engine.get()});
    return one;
}

void raise_descriptor_limit() {
    rlimit limit{};
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
}

}  // namespace

int main(int argc, char** argv) {
    if (argc != 4) fail("give COUNT FOLDER (unix|tcp)");
    const int count = std::atoi(argv[1]);
    if (count < 1) fail("COUNT must be a number from 1 on");
    raise_descriptor_limit();
    runtime::LoopPool loops(1, "links");
    loops.start();
    std::vector<std::unique_ptr<One>> all;
    for (int i = 0; i < count; ++i) {
        all.push_back(start_one(argv[2], std::string(argv[3]) == "unix", i, loops));
    }
    std::puts("ready");
    std::fflush(stdout);
    while (std::getchar() != EOF) {
    }
    for (auto& one : all) one->worker->stop();
    for (auto& one : all) one->engine->stop(Deadline::at({}));
    loops.stop();
    return 0;
}
