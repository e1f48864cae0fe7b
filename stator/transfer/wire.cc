#include "stator/transfer/wire.h"

#include <bit>
#include <concepts>
#include <cstring>
#include <type_traits>
#include <utility>

#include "stator/base/check.h"

namespace stator::transfer {
namespace {

static_assert(std::endian::native == std::endian::little);

constexpr std::size_t kMaxRanges = protocol::kMaxHandoffParts;

class Writer {
  public:
    explicit Writer(std::string& out) : out_(out) {}
    template <std::integral T>
    bool operator()(const T& value) {
        out_.append(reinterpret_cast<const char*>(&value), sizeof value);
        return true;
    }
    template <std::size_t n>
    bool operator()(const std::array<std::uint8_t, n>& value) {
        out_.append(reinterpret_cast<const char*>(value.data()), n);
        return true;
    }
    bool text(const std::string& value, std::size_t /*most*/) {
        (*this)(static_cast<std::uint32_t>(value.size()));
        out_ += value;
        return true;
    }
    bool ranges(const std::vector<Write::Range>& value) {
        (*this)(static_cast<std::uint32_t>(value.size()));
        for (const Write::Range& r : value) (*this)(r.offset), (*this)(r.bytes), (*this)(r.address);
        return true;
    }

  private:
    std::string& out_;
};

/// The same calls, each false where the bytes do not hold what is asked for.
class Reader {
  public:
    explicit Reader(std::string_view bytes) : bytes_(bytes) {}
    template <std::integral T>
    bool operator()(T& value) {
        return raw(&value, sizeof value);
    }
    template <std::size_t n>
    bool operator()(std::array<std::uint8_t, n>& value) {
        return raw(value.data(), n);
    }
    bool text(std::string& value, std::size_t most) {
        std::uint32_t size = 0;
        if (!(*this)(size) || size > most || size > bytes_.size()) return false;
        value = bytes_.substr(0, size);
        bytes_.remove_prefix(size);
        return true;
    }
    bool ranges(std::vector<Write::Range>& value) {
        std::uint32_t size = 0;
        if (!(*this)(size) || size > kMaxRanges || size > bytes_.size() / 24) return false;
        value.resize(size);
        for (Write::Range& r : value) {
            if (!(*this)(r.offset) || !(*this)(r.bytes) || !(*this)(r.address)) return false;
        }
        return true;
    }
    [[nodiscard]] bool at_end() const { return bytes_.empty(); }

  private:
    bool raw(void* to, std::size_t n) {
        if (bytes_.size() < n) return false;
        std::memcpy(to, bytes_.data(), n);
        bytes_.remove_prefix(n);
        return true;
    }
    std::string_view bytes_;
};

// Fields in the order in which they travel; F is a Writer with M const, or a Reader.
template <typename F>
bool fields(F& f, auto& m) {
    using M = std::remove_cvref_t<decltype(m)>;
    if constexpr (std::same_as<M, Hello>) {
        return f(m.magic) && f(m.version) && f(m.plane) && f(m.nonce);
    } else if constexpr (std::same_as<M, Welcome>) {
        return f(m.version) && f(m.prove) && f(m.nonce);
    } else if constexpr (std::same_as<M, Proof>) {
        return f(m.proof);
    } else if constexpr (std::same_as<M, Claim>) {
        return f(m.request) && f(m.id) && f(m.key) && f(m.push_from) && f(m.push_bytes) &&
               f(m.check);
    } else if constexpr (std::same_as<M, Grant>) {
        return f(m.request) && f(m.grant) && f(m.offset) && f(m.bytes) && f(m.arena_bytes);
    } else if constexpr (std::same_as<M, Refusal>) {
        return f(m.request) && f(m.code) && f.text(m.text, kMaxRefusalBytes);
    } else if constexpr (std::same_as<M, Fetch>) {
        return f(m.grant) && f(m.offset) && f(m.bytes) && f(m.check);
    } else if constexpr (std::same_as<M, Chunk>) {
        return f(m.grant) && f(m.offset) && f(m.bytes) && f(m.checked) && f(m.check);
    } else if constexpr (std::same_as<M, Done>) {
        return f(m.grant);
    } else if constexpr (std::same_as<M, Release>) {
        return f(m.id);
    } else if constexpr (std::same_as<M, Write>) {
        return f(m.grant) && f.text(m.metadata, kMaxMetadataBytes) && f.ranges(m.ranges);
    } else {
        static_assert(std::same_as<M, Written>);
        return f(m.grant) && f(m.code) && f.text(m.text, kMaxRefusalBytes);
    }
}

template <typename M>
std::optional<Message> read(std::string_view payload) {
    M m;
    Reader reader(payload);
    if (!fields(reader, m) || !reader.at_end()) return std::nullopt;
    if constexpr (std::same_as<M, Chunk>) {
        if (m.bytes == 0 || m.bytes > kMaxChunkBytes || m.checked > 1) return std::nullopt;
    }
    if constexpr (std::same_as<M, Hello>) {
        if (m.magic != Hello{}.magic) return std::nullopt;
    }
    return m;
}

template <std::size_t... I>
std::optional<Message> read_type(std::size_t type, std::string_view payload,
                                 std::index_sequence<I...> /*types*/) {
    std::optional<Message> out;
    (void)((type == I + 1 &&
            ((out = read<std::variant_alternative_t<I, Message>>(payload)), true)) ||
           ...);
    return out;
}

}  // namespace

void append_message(std::string& out, const Message& message) {
    const std::size_t at = out.size();
    out.append(kFrameHeaderBytes, '\0');
    Writer writer(out);
    std::visit([&writer](const auto& m) { fields(writer, m); }, message);
    const std::size_t size = out.size() - at - kFrameHeaderBytes;
    STATOR_CHECK(size <= kMaxPayloadBytes, "messages are small");
    const auto size32 = static_cast<std::uint32_t>(size);
    std::memcpy(out.data() + at, &size32, sizeof size32);
    out[at + 4] = static_cast<char>(message.index() + 1);
}

Result<std::optional<Message>> take_message(std::string_view& bytes) {
    if (bytes.size() < kFrameHeaderBytes) return std::optional<Message>();
    std::uint32_t size = 0;
    std::memcpy(&size, bytes.data(), sizeof size);
    if (size > kMaxPayloadBytes || bytes.substr(5, 3) != std::string_view("\0\0\0", 3)) {
        return error(ErrorCode::kDataLoss, "what came is no frame of the transfer plane");
    }
    if (bytes.size() - kFrameHeaderBytes < size) return std::optional<Message>();
    const auto type = static_cast<std::uint8_t>(bytes[4]);
    auto message = read_type(type, bytes.substr(kFrameHeaderBytes, size),
                             std::make_index_sequence<std::variant_size_v<Message>>());
    if (!message) {
        return error(ErrorCode::kDataLoss, "a frame of type {} with {} bytes makes no sense", type,
                     size);
    }
    bytes.remove_prefix(kFrameHeaderBytes + size);
    return message;
}

}  // namespace stator::transfer
