// stator/index driven by a recorded corpus, the way the peers' harness drives theirs.
//
//   bench_index apply CORPUS   all events; then lookups, removal of ranks
//   bench_index load CORPUS    half of the events; the other half beside a reader
//   bench_index mem CORPUS     memory per (rank, block); what is left when all ranks are gone
//   bench_index check CORPUS   answers on the way and at the end against the corpus's own
//   bench_index hash           block and sequence hashes, growing sequences
//
// Prints a line of JSON per figure. Ends with 1 if an answer was wrong.
#include <malloc.h>
#include <sys/resource.h>
#include <x86intrin.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <memory>
#include <numeric>
#include <string>
#include <thread>
#include <vector>

#include "bench/index/corpus.h"
#include "stator/base/clock.h"
#include "stator/index/prefix_index.h"
#include "stator/tokens/token_sequence.h"

namespace {

using namespace stator;
using bench::Corpus;
using index::Overlap;
using index::PrefixIndex;
using index::RankDepth;
using index::RankSlot;
using protocol::KvTier;
using tokens::SequenceHash;

constexpr std::size_t kLookups = 20'000;

double seconds() { return to_seconds(Clock::real().now() - TimePoint{}); }

double cpu_seconds() {
    rusage u{};
    getrusage(RUSAGE_SELF, &u);
    return static_cast<double>(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
           static_cast<double>(u.ru_utime.tv_usec + u.ru_stime.tv_usec) * 1e-6;
}

std::uint64_t ticks() {
    _mm_lfence();
    return __rdtsc();
}

double ticks_per_us() {
    const std::uint64_t t = ticks();
    const double start = seconds();
    while (seconds() - start < 0.05) {
    }
    return static_cast<double>(ticks() - t) / (seconds() - start) / 1e6;
}

void print(const std::string& name, double value, const char* unit) {
    std::printf("{\"name\":\"%s\",\"value\":%.6g,\"unit\":\"%s\"}\n", name.c_str(), value, unit);
}

void print_times(const std::string& name, std::vector<std::uint64_t>& times, double per_us) {
    std::ranges::sort(times);
    const auto at = [&](double q) {
        return static_cast<double>(
                   times[static_cast<std::size_t>(q * static_cast<double>(times.size() - 1))]) /
               per_us;
    };
    print(name + "_p50", at(0.5), "us");
    print(name + "_p99", at(0.99), "us");
    print(name + "_p999", at(0.999), "us");
    print(name + "_max", at(1.0), "us");
}

/// Room for any of the corpora.
index::IndexOptions options(const Corpus& corpus) {
    index::IndexOptions o;
    o.max_ranks = std::max(corpus.workers(), 64U);
    return o;
}

std::unique_ptr<PrefixIndex> make(const Corpus& corpus) {
    auto made = std::make_unique<PrefixIndex>(options(corpus));
    for (std::uint32_t w = 0; w < corpus.workers(); ++w) {
        if (made->add_rank()->value != w) std::abort();
    }
    return made;
}

void apply(PrefixIndex& target, const Corpus& corpus, const Corpus::Op& op) {
    if (op.kind == Corpus::kStored) {
        std::optional<SequenceHash> parent;
        if (op.has_parent != 0) parent = SequenceHash(op.parent);
        target.stored(RankSlot(op.worker), KvTier::kDevice, parent, corpus.stored(op));
    } else if (op.kind == Corpus::kRemoved) {
        target.removed(RankSlot(op.worker), KvTier::kDevice, corpus.removed(op));
    }
}

/// All of them, each known to the index a few events before, as from a batch of events.
void apply_all(PrefixIndex& target, const Corpus& corpus, std::span<const Corpus::Op> ops) {
    constexpr std::size_t kAhead = 6;
    for (std::size_t i = 0; i < ops.size(); ++i) {
        if (i + kAhead < ops.size()) {
            const Corpus::Op& next = ops[i + kAhead];
            if (next.kind == Corpus::kStored) target.prefetch(corpus.stored(next));
            if (next.kind == Corpus::kRemoved) target.prefetch(corpus.removed(next));
        }
        apply(target, corpus, ops[i]);
    }
}

std::size_t blocks_in(std::span<const Corpus::Op> ops) {
    std::size_t blocks = 0;
    for (const Corpus::Op& op : ops) {
        if (op.kind == Corpus::kStored || op.kind == Corpus::kRemoved) blocks += op.length;
    }
    return blocks;
}

/// Whether the answer is the corpus's.
bool right(const PrefixIndex& target, const Corpus& corpus, const Corpus::Op& op, Overlap& out) {
    target.lookup(corpus.query(op), out);
    std::vector<RankDepth> got;
    out.device().for_each([&](const RankDepth& one) { got.push_back(one); });
    std::ranges::sort(got, {}, &RankDepth::rank);
    return got == corpus.expected(op);
}

std::size_t wrong_finals(const PrefixIndex& target, const Corpus& corpus) {
    Overlap out;
    std::size_t wrong = 0;
    for (const Corpus::Op& op : corpus.ops()) {
        if (op.kind == Corpus::kFinalQuery) wrong += !right(target, corpus, op, out);
    }
    return wrong;
}

int run_apply(const Corpus& corpus) {
    const auto target = make(corpus);
    const double cpu = cpu_seconds();
    const double start = seconds();
    apply_all(*target, corpus, corpus.ops());
    const auto blocks = static_cast<double>(blocks_in(corpus.ops()));
    const double wall = seconds() - start;
    print("apply", (cpu_seconds() - cpu) * 1e9 / blocks, "ns CPU per block");
    print("apply_rate", blocks / wall / 1e6, "M blocks/s");
    print("runs", static_cast<double>(target->runs()), "");

    const double per_us = ticks_per_us();
    Overlap out;
    std::vector<std::uint64_t> times;
    double holders = 0;
    for (const auto& query : corpus.final_queries(kLookups)) {
        const std::uint64_t t = ticks();
        target->lookup(query, out);
        times.push_back(ticks() - t);
        holders += static_cast<double>(out.device().holders());
    }
    print("holders", holders / kLookups, "");
    print_times("lookup", times, per_us);
    times.clear();
    RankDepth best[8];
    std::size_t found = 0;
    for (const auto& query : corpus.final_queries(kLookups)) {
        const std::uint64_t t = ticks();
        target->lookup(query, out);
        found += out.device().top(best);
        times.push_back(ticks() - t);
    }
    if (found == 0) std::abort();
    print_times("lookup_top8", times, per_us);
    const std::size_t wrong = wrong_finals(*target, corpus);
    print("wrong", static_cast<double>(wrong), "of 1500");

    const std::uint32_t ranks = std::min(corpus.workers(), 8U);
    std::vector<std::uint64_t> gone;
    std::vector<std::uint64_t> freed;
    for (std::uint32_t i = 0; i < ranks; ++i) {
        const std::uint64_t t = ticks();
        target->remove_rank(RankSlot(i * (corpus.workers() / ranks)));
        const std::uint64_t u = ticks();
        while (!target->tidy({}, 64)) {
        }
        gone.push_back(u - t);
        freed.push_back(ticks() - u);
    }
    print_times("remove_rank", gone, per_us);
    print_times("free_rank", freed, per_us);
    return wrong == 0 ? 0 : 1;
}

int run_load(const Corpus& corpus) {
    const auto target = make(corpus);
    std::size_t steps = 0;
    for (const Corpus::Op& op : corpus.ops()) steps += op.kind != Corpus::kFinalQuery;
    const auto first = corpus.ops().first(steps / 2);
    const auto second = corpus.ops().subspan(steps / 2);
    apply_all(*target, corpus, first);
    std::vector<std::span<const SequenceHash>> queries;
    for (const Corpus::Op& op : second) {
        if (op.kind == Corpus::kQuery) queries.push_back(corpus.query(op));
    }
    const double per_us = ticks_per_us();
    std::vector<std::uint64_t> times;
    times.reserve(1 << 24);
    std::atomic<bool> done{false};
    double wall = 0;
    std::thread writer([&] {
        const double start = seconds();
        apply_all(*target, corpus, second);
        wall = seconds() - start;
        done = true;
    });
    Overlap out;
    for (std::size_t i = 0; !done && times.size() < times.capacity(); ++i) {
        const auto& query = queries[i % queries.size()];
        const std::uint64_t t = ticks();
        target->lookup(query, out);
        times.push_back(ticks() - t);
    }
    writer.join();
    print("load_rate", static_cast<double>(blocks_in(second)) / wall / 1e6, "M blocks/s");
    print("load_lookups", static_cast<double>(times.size()) / wall, "per second");
    print_times("load_lookup", times, per_us);
    const std::size_t wrong = wrong_finals(*target, corpus);
    print("wrong", static_cast<double>(wrong), "of 1500");
    return wrong == 0 ? 0 : 1;
}

std::size_t anonymous_bytes() {
    malloc_trim(0);
    std::ifstream status("/proc/self/status");
    for (std::string line; std::getline(status, line);) {
        if (line.starts_with("RssAnon:"))
            return std::strtoull(line.c_str() + 8, nullptr, 10) * 1024;
    }
    return 0;
}

int run_mem(const Corpus& corpus) {
    const auto before = static_cast<double>(anonymous_bytes());
    const auto target = make(corpus);
    apply_all(*target, corpus, corpus.ops());
    target->tidy({});
    const double grown = static_cast<double>(anonymous_bytes()) - before;
    const auto said = static_cast<double>(target->memory_bytes());
    print("bytes_per_entry", grown / static_cast<double>(corpus.entries()), "B");
    print("bytes_per_distinct", grown / static_cast<double>(corpus.distinct()), "B");
    print("used_per_entry",
          static_cast<double>(target->used_bytes()) / static_cast<double>(corpus.entries()), "B");
    print("said_over_rss", said / grown, "");
    for (std::uint32_t w = 0; w < corpus.workers(); ++w) target->remove_rank(RankSlot(w));
    while (!target->tidy({})) {
    }
    print("left", (static_cast<double>(anonymous_bytes()) - before) / 1e6, "MB");
    print("left_said", static_cast<double>(target->memory_bytes()) / 1e6, "MB");
    return 0;
}

/// ns of CPU per call, the median of five batches.
template <typename F>
double ns_per_call(std::size_t calls, F f) {
    std::vector<double> batches;
    for (int b = 0; b < 5; ++b) {
        const double start = cpu_seconds();
        for (std::size_t i = 0; i < calls; ++i) f();
        batches.push_back((cpu_seconds() - start) * 1e9 / static_cast<double>(calls));
    }
    std::ranges::sort(batches);
    return batches[2];
}

int run_hash() {
    constexpr std::size_t kTokens = 100'000;
    std::vector<tokens::TokenId> text(kTokens);
    for (std::size_t i = 0; i < kTokens; ++i) {
        text[i] = static_cast<std::uint32_t>(i) * 2654435761U % 128'256;
    }
    const tokens::BlockHasher hasher;
    for (const std::size_t size : {16UL, 32UL, 64UL, 128UL, 512UL}) {
        const std::size_t blocks = kTokens / size;
        std::vector<tokens::BlockHash> block_hashes(blocks);
        std::vector<SequenceHash> sequence_hashes(blocks);
        const double ns = ns_per_call(400, [&] {
            hasher.chain(std::span(text).first(blocks * size), size, nullptr, block_hashes.data(),
                         sequence_hashes.data());
        });
        print("hash_" + std::to_string(size), ns / static_cast<double>(blocks), "ns CPU per block");
    }
    // As a router sees an answer grow: block by block.
    tokens::TokenSequence sequence(16);
    sequence.reserve(kTokens);
    const double ns = ns_per_call(400, [&] {
        sequence.truncate(0);
        for (std::size_t at = 0; at + 16 <= kTokens; at += 16) {
            sequence.append(std::span(text).subspan(at, 16));
        }
    });
    print("grow_16", ns / (kTokens / 16), "ns CPU per block");
    return 0;
}

int run_check(const Corpus& corpus) {
    const auto target = make(corpus);
    Overlap out;
    std::size_t checked = 0;
    std::size_t wrong = 0;
    for (const Corpus::Op& op : corpus.ops()) {
        apply(*target, corpus, op);
        if (op.kind != Corpus::kQuery || op.expected == Corpus::kNone) continue;
        ++checked;
        wrong += !right(*target, corpus, op, out);
    }
    for (const Corpus::Op& op : corpus.ops()) checked += op.kind == Corpus::kFinalQuery;
    wrong += wrong_finals(*target, corpus);
    print("checked", static_cast<double>(checked), "answers");
    print("wrong", static_cast<double>(wrong), "answers");
    return wrong == 0 ? 0 : 1;
}

}  // namespace

int main(int argc, char** argv) {
    const std::string mode = argc > 1 ? argv[1] : "";
    if (argc == 3) {
        const Corpus corpus(argv[2]);
        if (mode == "apply") return run_apply(corpus);
        if (mode == "load") return run_load(corpus);
        if (mode == "mem") return run_mem(corpus);
        if (mode == "check") return run_check(corpus);
    }
    if (argc == 2 && mode == "hash") return run_hash();
    std::fprintf(stderr, "usage: bench_index apply|load|mem|check CORPUS | hash\n");
    return 2;
}
