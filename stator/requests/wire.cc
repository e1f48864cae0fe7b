#include "stator/requests/wire.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

#include <algorithm>
#include <bit>
#include <cstring>

#include "stator/base/check.h"

namespace stator::requests {
namespace {

static_assert(std::endian::native == std::endian::little, "headers are copied as they lie");

constexpr std::size_t kCheckBytes = 4;

struct Header {
    std::uint32_t check = 0;
    std::uint16_t size = 0;
    std::uint8_t type = 0;
    std::uint8_t flags = 0;
    std::uint32_t stream = 0;
};
static_assert(sizeof(Header) == kFrameHeaderBytes);

std::uint32_t check_of(const char* frame, std::size_t bytes) {
    return static_cast<std::uint32_t>(XXH3_64bits(frame + kCheckBytes, bytes - kCheckBytes));
}

Header read_header(const char* bytes) {
    Header header;
    std::memcpy(&header, bytes, sizeof header);
    return header;
}

Result<void> check_size(const Header& header) {
    if (header.size <= kMaxPayloadBytes) return {};
    return error(ErrorCode::kDataLoss,
                 "a frame of type {} says it has {} payload bytes, at most {}", header.type,
                 header.size, kMaxPayloadBytes);
}

Result<void> read_frame(std::string_view whole, Frame& frame) {
    const Header header = read_header(whole.data());
    if (header.check != check_of(whole.data(), whole.size())) {
        return error(ErrorCode::kDataLoss, "checksum of a frame of type {} with {} bytes is wrong",
                     header.type, header.size);
    }
    frame.type = static_cast<FrameType>(header.type);
    frame.flags = header.flags;
    frame.stream = header.stream;
    frame.payload = whole.substr(kFrameHeaderBytes);
    return {};
}

/// Moves bytes from the front of `from` to `to` until `to` has `size`. False: not enough.
bool fill(std::string& to, std::string_view& from, std::size_t size) {
    const std::size_t n = std::min(size - to.size(), from.size());
    to.append(from.substr(0, n));
    from.remove_prefix(n);
    return to.size() == size;
}

}  // namespace

std::string_view to_string(FrameType type) {
    switch (type) {
        case FrameType::kHello:
            return "hello";
        case FrameType::kAuth:
            return "auth";
        case FrameType::kInfo:
            return "info";
        case FrameType::kOpen:
            return "open";
        case FrameType::kData:
            return "data";
        case FrameType::kTokens:
            return "tokens";
        case FrameType::kError:
            return "error";
        case FrameType::kCancel:
            return "cancel";
        case FrameType::kCredit:
            return "credit";
        case FrameType::kLoad:
            return "load";
        case FrameType::kGoAway:
            return "go-away";
        case FrameType::kPing:
            return "ping";
        case FrameType::kPong:
            return "pong";
        case FrameType::kFetch:
            return "fetch";
        case FrameType::kHandoff:
            return "handoff";
    }
    return "unknown";
}

std::size_t begin_frame(std::string& out) {
    const std::size_t at = out.size();
    out.append(kFrameHeaderBytes, '\0');
    return at;
}

void end_frame(std::string& out, std::size_t at, FrameType type, std::uint8_t flags,
               std::uint32_t stream) {
    const std::size_t bytes = out.size() - at;
    STATOR_CHECK(bytes >= kFrameHeaderBytes && bytes <= kMaxFrameBytes, "a frame's payload fits");
    Header header;
    header.size = static_cast<std::uint16_t>(bytes - kFrameHeaderBytes);
    header.type = static_cast<std::uint8_t>(type);
    header.flags = flags;
    header.stream = stream;
    char* const frame = out.data() + at;
    std::memcpy(frame, &header, sizeof header);
    header.check = check_of(frame, bytes);
    std::memcpy(frame, &header.check, kCheckBytes);
}

void append_frame(std::string& out, FrameType type, std::uint8_t flags, std::uint32_t stream,
                  std::string_view payload) {
    const std::size_t at = begin_frame(out);
    out.append(payload);
    end_frame(out, at, type, flags, stream);
}

Result<bool> FrameReader::next(std::string_view& bytes, Frame& frame) {
    if (held_given_) {
        held_.clear();
        held_given_ = false;
    }
    if (preface_) {
        const bool whole = fill(held_, bytes, kPreface.size());
        if (!kPreface.starts_with(held_)) {
            return error(ErrorCode::kDataLoss, "the connection does not begin like a link");
        }
        if (!whole) return false;
        held_.clear();
        preface_ = false;
    }
    if (held_.empty() && bytes.size() >= kFrameHeaderBytes) {
        const Header header = read_header(bytes.data());
        if (auto ok = check_size(header); !ok) return tl::unexpected(std::move(ok.error()));
        const std::size_t size = kFrameHeaderBytes + header.size;
        if (bytes.size() >= size) {
            if (auto ok = read_frame(bytes.substr(0, size), frame); !ok) {
                return tl::unexpected(std::move(ok.error()));
            }
            bytes.remove_prefix(size);
            return true;
        }
    }
    if (held_.size() < kFrameHeaderBytes && !fill(held_, bytes, kFrameHeaderBytes)) return false;
    const Header header = read_header(held_.data());
    if (auto ok = check_size(header); !ok) return tl::unexpected(std::move(ok.error()));
    if (!fill(held_, bytes, kFrameHeaderBytes + header.size)) return false;
    if (auto ok = read_frame(held_, frame); !ok) return tl::unexpected(std::move(ok.error()));
    held_given_ = true;
    return true;
}

}  // namespace stator::requests
