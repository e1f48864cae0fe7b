#include "bench/index/corpus.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "stator/tokens/hash.h"

namespace stator::bench {
namespace {

using tokens::SequenceHash;

constexpr std::size_t kHeaderWords = 16;

[[noreturn]] void fail(const std::string& path, const char* what) {
    std::fprintf(stderr, "%s: %s\n", path.c_str(), what);
    std::exit(2);
}

}  // namespace

Corpus::Corpus(const std::string& path) {
    const int file = open(path.c_str(), O_RDONLY | O_CLOEXEC);
    struct stat info{};
    if (file < 0 || fstat(file, &info) != 0) fail(path, "can't be opened");
    size_ = static_cast<std::size_t>(info.st_size);
    data_ = mmap(nullptr, size_, PROT_READ, MAP_PRIVATE | MAP_POPULATE, file, 0);
    close(file);
    if (data_ == MAP_FAILED || size_ < kHeaderWords * 8 || std::memcmp(data_, "IDXCORP1", 8) != 0) {
        fail(path, "is no corpus");
    }
    const char* at = static_cast<const char*>(data_);
    const auto slab = [&]<typename T>(std::span<const T>& out, std::uint64_t n) {
        out = {reinterpret_cast<const T*>(at), n};
        at += (n * sizeof(T) + 7) / 8 * 8;
    };
    std::span<const std::uint64_t> block_hashes;
    std::span<const std::uint64_t> stored_local;
    slab(header_, kHeaderWords);
    slab(block_hashes, header_[4]);
    slab(stored_, header_[5]);
    slab(stored_local, header_[5]);
    slab(removed_, header_[6]);
    slab(expected_, header_[7]);
    slab(ops_, header_[3]);
    if (at > static_cast<const char*>(data_) + size_) fail(path, "is cut short");
    queries_.resize(block_hashes.size());
    for (const Op& op : ops_) {
        if (op.kind != kQuery) continue;
        for (std::uint64_t i = op.start; i < op.start + op.length; ++i) {
            const tokens::BlockHash block(block_hashes[i]);
            queries_[i] = i == op.start ? tokens::sequence_hash(block)
                                        : tokens::sequence_hash(queries_[i - 1], block);
        }
    }
    // Final queries of some corpora have no query in their place.
    for (const Op& op : ops_) {
        if (op.kind != kFinalQuery || queries_[op.start] != SequenceHash()) continue;
        for (std::uint64_t i = op.start; i < op.start + op.length; ++i) {
            const tokens::BlockHash block(block_hashes[i]);
            queries_[i] = i == op.start ? tokens::sequence_hash(block)
                                        : tokens::sequence_hash(queries_[i - 1], block);
        }
    }
}

Corpus::~Corpus() {
    if (data_ != nullptr) munmap(data_, size_);
}

std::span<const SequenceHash> Corpus::stored(const Op& op) const {
    return stored_.subspan(op.start, op.length);
}

std::span<const SequenceHash> Corpus::removed(const Op& op) const {
    return removed_.subspan(op.start, op.length);
}

std::span<const SequenceHash> Corpus::query(const Op& op) const {
    return std::span(queries_).subspan(op.start, op.length);
}

std::vector<index::RankDepth> Corpus::expected(const Op& op) const {
    std::vector<index::RankDepth> out;
    const std::uint32_t* at = &expected_[op.expected];
    const std::uint32_t n = *at++;
    for (std::uint32_t i = 0; i < n; ++i) {
        out.push_back({index::RankSlot(at[2 * i]), at[2 * i + 1]});
    }
    std::ranges::sort(out, {}, &index::RankDepth::rank);
    return out;
}

std::vector<std::span<const SequenceHash>> Corpus::final_queries(std::size_t n) const {
    std::vector<std::span<const SequenceHash>> all;
    for (const Op& op : ops_) {
        if (op.kind == kFinalQuery) all.push_back(query(op));
    }
    std::vector<std::span<const SequenceHash>> out;
    for (std::size_t i = 0; i < n; ++i) out.push_back(all[i * 7919 % all.size()]);
    return out;
}

}  // namespace stator::bench
