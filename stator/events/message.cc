#include "stator/events/message.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <optional>

#include "stator/base/check.h"
#include "stator/codec/msgpack.h"

namespace stator::events {
namespace {

constexpr std::uint8_t kFlagHeartbeat = 0x01;
constexpr std::uint8_t kCriticalFlags = 0xf0;

static_assert(std::endian::native == std::endian::little, "numbers are copied as they are");

template <typename T>
void put(char* at, T value) {
    std::memcpy(at, &value, sizeof(value));
}

template <typename T>
T get(const char* at) {
    T value{};
    std::memcpy(&value, at, sizeof(value));
    return value;
}

/// The fields that both kinds of answers have, and one of their own.
struct Answer {
    std::optional<std::string_view> topic;
    std::optional<std::uint64_t> incarnation;
    std::optional<std::uint64_t> rank;
    std::optional<std::uint64_t> sequence;
    std::optional<std::string_view> state;
    std::optional<std::vector<std::string_view>> payloads;
};

template <typename T>
Result<void> take(Result<T> value, std::optional<T>& into) {
    if (!value) return tl::unexpected(value.error());
    into = *std::move(value);
    return {};
}

Result<std::vector<std::string_view>> read_payloads(codec::MsgpackReader& r) {
    const auto n = r.array();
    if (!n) return tl::unexpected(n.error());
    std::vector<std::string_view> out;
    for (std::size_t i = 0; i < *n; ++i) {
        auto payload = r.binary();
        if (!payload) return tl::unexpected(payload.error());
        out.push_back(*payload);
    }
    return out;
}

Result<void> read_field(codec::MsgpackReader& r, std::string_view key, Answer& into) {
    if (key == "topic") return take(r.string(), into.topic);
    if (key == "inc") return take(r.number(), into.incarnation);
    if (key == "rank") return take(r.number(), into.rank);
    if (key == "seq") return take(r.number(), into.sequence);
    if (key == "state") return take(r.binary(), into.state);
    if (key == "payloads") return take(read_payloads(r), into.payloads);
    return r.skip();
}

Result<Answer> read_answer(std::string_view bytes) {
    codec::MsgpackReader r(bytes);
    Answer out;
    const auto pairs = r.map();
    if (!pairs) return tl::unexpected(pairs.error());
    for (std::size_t i = 0; i < *pairs; ++i) {
        const auto key = r.string();
        if (!key) return tl::unexpected(key.error());
        if (auto ok = read_field(r, *key, out); !ok) return tl::unexpected(ok.error());
    }
    if (!r.done()) {
        return error(ErrorCode::kInvalidArgument, "{} bytes follow the map of an answer",
                     bytes.size() - r.position());
    }
    if (!out.topic || !out.incarnation || !out.rank || *out.rank > UINT32_MAX || !out.sequence) {
        return error(ErrorCode::kInvalidArgument,
                     "an answer to a fetch needs the keys topic, inc, rank and seq");
    }
    return out;
}

void append_answer_head(codec::MsgpackWriter& w, std::string_view topic,
                        protocol::Incarnation incarnation, std::uint32_t rank,
                        std::uint64_t sequence) {
    w.map(5).string("topic").string(topic).string("inc").number(incarnation.value);
    w.string("rank").number(rank).string("seq").number(sequence);
}

}  // namespace

bool is_topic(std::string_view text) {
    return !text.empty() && text.size() <= kMaxTopicBytes && std::ranges::all_of(text, [](char c) {
        return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_' || c == '-';
    });
}

void append_message(std::string& out, const Message& message) {
    STATOR_CHECK(is_topic(message.topic), "a topic is 1 to 32 of [a-z0-9_-]");
    out.reserve(out.size() + message.topic.size() + 1 + kMessageHeaderBytes +
                message.payload.size());
    out.append(message.topic);
    out.push_back('\0');
    char header[kMessageHeaderBytes] = {};
    header[0] = static_cast<char>(kMessageVersion);
    header[1] = static_cast<char>(message.heartbeat ? kFlagHeartbeat : 0);
    put(header + 4, message.rank);
    put(header + 8, message.incarnation.value);
    put(header + 16, message.sequence);
    out.append(header, sizeof(header));
    out.append(message.payload);
}

Result<Message> parse_message(std::string_view bytes) {
    const std::size_t end = bytes.substr(0, kMaxTopicBytes + 1).find('\0');
    if (end == std::string_view::npos || !is_topic(bytes.substr(0, end))) {
        return error(ErrorCode::kInvalidArgument,
                     "a message begins with a topic of 1 to 32 of [a-z0-9_-] and a byte 0");
    }
    Message out;
    out.topic = bytes.substr(0, end);
    bytes.remove_prefix(end + 1);
    if (bytes.size() < kMessageHeaderBytes) {
        return error(ErrorCode::kInvalidArgument,
                     "a message's header has {} bytes behind the topic, found {}",
                     kMessageHeaderBytes, bytes.size());
    }
    const auto version = static_cast<std::uint8_t>(bytes[0]);
    if (version != kMessageVersion) {
        return error(ErrorCode::kInvalidArgument, "messages of version {} are read, found {}",
                     kMessageVersion, version);
    }
    const auto flags = static_cast<std::uint8_t>(bytes[1]);
    if ((flags & kCriticalFlags) != 0) {
        return error(ErrorCode::kInvalidArgument, "a critical flag is not known: {:#x}", flags);
    }
    out.heartbeat = (flags & kFlagHeartbeat) != 0;
    out.rank = get<std::uint32_t>(bytes.data() + 4);
    out.incarnation = protocol::Incarnation(get<std::uint64_t>(bytes.data() + 8));
    out.sequence = get<std::uint64_t>(bytes.data() + 16);
    out.payload = bytes.substr(kMessageHeaderBytes);
    if (!out.heartbeat && out.sequence == 0) {
        return error(ErrorCode::kInvalidArgument, "sequences begin at 1, found 0");
    }
    return out;
}

void append_snapshot(std::string& out, const Snapshot& snapshot) {
    codec::MsgpackWriter w(out);
    append_answer_head(w, snapshot.topic, snapshot.incarnation, snapshot.rank, snapshot.sequence);
    w.string("state").binary(snapshot.state);
}

Result<Snapshot> parse_snapshot(std::string_view bytes) {
    const auto answer = read_answer(bytes);
    if (!answer) return tl::unexpected(answer.error());
    if (!answer->state) {
        return error(ErrorCode::kInvalidArgument, "a snapshot needs the key state");
    }
    return Snapshot{*answer->topic, protocol::Incarnation(*answer->incarnation),
                    static_cast<std::uint32_t>(*answer->rank), *answer->sequence, *answer->state};
}

void append_range(std::string& out, const Range& range) {
    codec::MsgpackWriter w(out);
    append_answer_head(w, range.topic, range.incarnation, range.rank, range.from);
    w.string("payloads").array(range.payloads.size());
    for (const std::string_view payload : range.payloads) w.binary(payload);
}

Result<Range> parse_range(std::string_view bytes) {
    auto answer = read_answer(bytes);
    if (!answer) return tl::unexpected(answer.error());
    if (!answer->payloads) {
        return error(ErrorCode::kInvalidArgument, "a range needs the key payloads");
    }
    return Range{*answer->topic, protocol::Incarnation(*answer->incarnation),
                 static_cast<std::uint32_t>(*answer->rank), *answer->sequence,
                 *std::move(answer->payloads)};
}

}  // namespace stator::events
