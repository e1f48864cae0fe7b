#include "stator/engine/llama/kv_blob.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

namespace stator::engine::llama {
namespace {

constexpr std::size_t kCell = 12;          // position, count of sequences, sequence
constexpr std::size_t kExtendedCell = 24;  // and two more positions and a token

template <class T>
T read(std::span<const std::byte> from, std::size_t at) {
    T value;
    std::memcpy(&value, from.data() + at, sizeof value);
    return value;
}

}  // namespace

std::optional<std::vector<KvBlobFormat::Rows>> KvBlobFormat::sections(
    std::span<const std::byte> state, std::size_t begin, std::uint64_t cells) {
    std::vector<Rows> out;
    std::size_t at = begin;
    while (at < state.size()) {
        if (state.size() - at < kRowsHead) return std::nullopt;
        const Rows rows{read<std::int32_t>(state, at), read<std::uint64_t>(state, at + 4)};
        at += kRowsHead;
        if (rows.row_bytes == 0 || rows.row_bytes > (state.size() - at) / cells) {
            return std::nullopt;
        }
        at += static_cast<std::size_t>(rows.row_bytes * cells);
        out.push_back(rows);
    }
    return out;
}

Result<KvBlobFormat> KvBlobFormat::learn(std::span<const std::byte> state, std::uint32_t cells) {
    const auto unknown = [] {
        return error(ErrorCode::kUnsupported,
                     "The model's KV has a form that can't be handed over.");
    };
    if (cells == 0 || state.size() < kHead || read<std::uint32_t>(state, 8) != 1 ||
        read<std::uint32_t>(state, 12) != cells) {
        return unknown();
    }
    for (const std::size_t cell : {kCell, kExtendedCell}) {
        const std::size_t middle = kHead + cells * cell;
        if (state.size() < middle + kMiddle) continue;
        if (read<std::uint32_t>(state, middle) != 0) continue;  // transposed values
        const auto layers = read<std::uint32_t>(state, middle + 4);
        const auto rows = sections(state, middle + kMiddle, cells);
        // Keys of every layer, and values of every layer or of none.
        if (!rows || layers == 0 || (rows->size() != layers && rows->size() != 2UL * layers)) {
            continue;
        }
        KvBlobFormat out;
        out.magic_ = read<std::uint32_t>(state, 0);
        out.cell_bytes_ = cell;
        const auto m = state.subspan(middle, kMiddle);
        out.middle_.assign(m.begin(), m.end());
        out.rows_ = *rows;
        out.fixed_ = kHead + kMiddle + kRowsHead * rows->size();
        out.per_cell_ = cell;
        for (const Rows& r : *rows) out.per_cell_ += r.row_bytes;
        return out;
    }
    return unknown();
}

std::string KvBlobFormat::why_not(std::span<const std::byte> state, std::uint32_t first,
                                  std::uint32_t cells) const {
    if (cells == 0 || state.size() != bytes(cells)) {
        return fmt::format("has {} bytes; {} tokens take {}", state.size(), cells, bytes(cells));
    }
    if (read<std::uint32_t>(state, 0) != magic_ || read<std::uint32_t>(state, 8) != 1 ||
        read<std::uint32_t>(state, 12) != cells) {
        return "has another header";
    }
    std::vector<bool> seen(cells);
    for (std::uint32_t i = 0; i < cells; ++i) {
        const std::size_t at = kHead + i * cell_bytes_;
        const std::int64_t position = read<std::int32_t>(state, at);
        const std::int64_t offset = position - std::int64_t{first};
        if (offset < 0 || offset >= cells || read<std::uint32_t>(state, at + 4) != 1) {
            return fmt::format("has position {} where {} tokens from {} on belong", position, cells,
                               first);
        }
        if (seen[static_cast<std::size_t>(offset)]) {
            return fmt::format("has position {} twice", position);
        }
        seen[static_cast<std::size_t>(offset)] = true;
    }
    std::size_t at = kHead + cells * cell_bytes_;
    if (!std::ranges::equal(state.subspan(at, kMiddle), middle_)) return "has other layers";
    at += kMiddle;
    for (const Rows& rows : rows_) {
        if (Rows{read<std::int32_t>(state, at), read<std::uint64_t>(state, at + 4)} != rows) {
            return "has rows of another form";
        }
        at += kRowsHead + static_cast<std::size_t>(rows.row_bytes) * cells;
    }
    return {};
}

std::string KvBlobFormat::text() const {
    std::string out = fmt::format("{:08x}/{}", magic_, cell_bytes_);
    for (std::size_t i = 0; i < middle_.size(); i += 4) {
        out += fmt::format(".{}", read<std::uint32_t>(middle_, i));
    }
    // Layers are mostly alike: runs of them.
    for (std::size_t i = 0; i < rows_.size();) {
        std::size_t end = i + 1;
        while (end < rows_.size() && rows_[end] == rows_[i]) ++end;
        out += fmt::format("/{}x{}t{}", end - i, rows_[i].row_bytes, rows_[i].type);
        i = end;
    }
    return out;
}

}  // namespace stator::engine::llama
