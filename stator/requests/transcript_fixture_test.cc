#include "stator/requests/transcript_fixture.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <charconv>

#include "stator/codec/msgpack.h"
#include "stator/requests/step_codec.h"

namespace stator::requests {
namespace {

constexpr std::size_t kUnit = 4;      // bytes that are looked at for repetition
constexpr std::size_t kMinTimes = 8;  // fewer are written out

std::string describe_tokens(std::string_view payload) {
    std::string text;
    StepReader reader(payload);
    Share share;
    while (true) {
        const auto got = reader.next(share);
        if (!got) return got.error().message;
        if (!*got) return text;
        std::vector<std::uint32_t> tokens;
        for (const auto& token : share.tokens) tokens.push_back(token.token);
        text += fmt::format("{}stream {} from {}: [{}]", text.empty() ? "" : "; ", share.stream,
                            share.position, fmt::join(tokens, " "));
        if (share.prompt_tokens != 0) {
            text += fmt::format(" usage {}/{}", share.prompt_tokens, share.cached_tokens);
        }
        if (!share.top.empty()) text += fmt::format(" {} alternatives", share.top.size());
        if (share.finish) text += fmt::format(" {}", protocol::to_string(*share.finish));
        if (share.error) text += fmt::format(" \"{}\"", share.error->message);
    }
}

/// The payload's map, and how many bytes follow it.
std::string describe_map(std::string_view payload) {
    codec::MsgpackReader r(payload);
    std::string text;
    if (!r.skip() || !codec::append_msgpack_as_json(payload.substr(0, r.position()), text)) {
        return fmt::format("{} bytes", payload.size());
    }
    const std::size_t rest = payload.size() - r.position();
    if (rest > 0) text += fmt::format(" and {} bytes", rest);
    return text;
}

std::string bytes_as_text(std::string_view bytes) {
    std::string text;
    std::size_t plain = 0;  // from here on not yet written
    std::size_t at = 0;
    while (at + kUnit <= bytes.size()) {
        const auto unit = bytes.substr(at, kUnit);
        std::size_t times = 1;
        while (bytes.substr(at + times * kUnit, kUnit) == unit) ++times;
        if (times < kMinTimes) {
            ++at;
            continue;
        }
        text += hex(bytes.substr(plain, at - plain)) + fmt::format("({})*{}", hex(unit), times);
        at += times * kUnit;
        plain = at;
        if (at < bytes.size()) text += ' ';
    }
    return text + hex(bytes.substr(plain));
}

std::optional<std::size_t> number(std::string_view text) {
    std::size_t n = 0;
    const auto end = text.data() + text.size();
    const auto [at, ec] = std::from_chars(text.data(), end, n);
    if (ec != std::errc{} || at != end || text.empty() || n > 1'000'000) return std::nullopt;
    return n;
}

std::optional<std::string> text_as_bytes(std::string_view text) {
    std::string bytes;
    while (!text.empty()) {
        const auto open = text.find('(');
        const auto plain = unhex(text.substr(0, open));
        if (!plain) return std::nullopt;
        bytes += *plain;
        if (open == std::string_view::npos) break;
        const auto close = text.find(")*", open);
        if (close == std::string_view::npos) return std::nullopt;
        const auto end = std::min(text.find_first_not_of("0123456789", close + 2), text.size());
        const auto unit = unhex(text.substr(open + 1, close - open - 1));
        // The next plain piece begins behind a space, since digits are hex too.
        const auto times = number(text.substr(close + 2, end - close - 2));
        if (!unit || !times) return std::nullopt;
        for (std::size_t i = 0; i < *times; ++i) bytes += *unit;
        text.remove_prefix(end);
        if (text.starts_with(' ')) text.remove_prefix(1);
    }
    return bytes;
}

std::string fact(const protocol::Handoff& h) {
    return fmt::format("a handoff of {} tokens in {} parts, {} pieces, {} bytes at {} places{}",
                       h.tokens, h.parts.size(), h.pieces.size(), h.bytes, h.places.size(),
                       h.expires.is_never() ? "" : ", expires");
}

}  // namespace

std::string Transcript::setting(std::string_view name) const {
    for (const auto& s : settings) {
        if (s.starts_with(name) && s.size() > name.size() && s[name.size()] == ' ') {
            return s.substr(name.size() + 1);
        }
    }
    return {};
}

std::string hex(std::string_view bytes) {
    std::string text;
    for (const char c : bytes) text += fmt::format("{:02x}", static_cast<unsigned char>(c));
    return text;
}

std::optional<std::string> unhex(std::string_view text) {
    if (text.size() % 2 != 0) return std::nullopt;
    std::string bytes;
    for (; !text.empty(); text.remove_prefix(2)) {
        std::uint8_t byte = 0;
        const auto [at, ec] = std::from_chars(text.data(), text.data() + 2, byte, 16);
        if (ec != std::errc{} || at != text.data() + 2) return std::nullopt;
        bytes += static_cast<char>(byte);
    }
    return bytes;
}

std::string describe(const Frame& f) {
    std::string text(to_string(f.type));
    if ((f.flags & kFlagMore) != 0) text += ", more follows";
    if (f.stream != 0) text += fmt::format(", stream {}", f.stream);
    switch (f.type) {
        case FrameType::kTokens:
            return text + ": " + describe_tokens(f.payload);
        case FrameType::kAuth:
        case FrameType::kData:
            return text + fmt::format(": {} bytes", f.payload.size());
        case FrameType::kCancel:
        case FrameType::kPing:
        case FrameType::kPong:
            return text;
        case FrameType::kHello:
        case FrameType::kInfo:
        case FrameType::kOpen:
        case FrameType::kError:
        case FrameType::kCredit:
        case FrameType::kLoad:
        case FrameType::kGoAway:
        case FrameType::kFetch:
        case FrameType::kHandoff:
            break;
    }
    return text + ": " + describe_map(f.payload);
}

std::string print(const Transcript& transcript, std::string_view title) {
    std::string text = fmt::format("# {}\n", title);
    for (const auto& setting : transcript.settings) text += fmt::format("set {}\n", setting);
    for (const auto& line : transcript.lines) {
        FrameReader reader(line.bytes.starts_with(kPreface));
        if (line.bytes == kPreface) text += "# preface\n";
        const auto read = reader.feed(line.bytes, [&](const Frame& f) -> Result<void> {
            text += "# " + describe(f) + "\n";
            return {};
        });
        if (!read) text += "# " + read.error().message + "\n";
        text += fmt::format("{} {} {}\n", line.to_worker ? '>' : '<', line.lane.value,
                            bytes_as_text(line.bytes));
    }
    for (const auto& fact : transcript.client) text += fmt::format("client: {}\n", fact);
    for (const auto& fact : transcript.worker) text += fmt::format("worker: {}\n", fact);
    return text;
}

Result<Transcript> parse_transcript(std::string_view text) {
    Transcript t;
    for (std::size_t n = 1; !text.empty(); ++n) {
        const auto line = text.substr(0, text.find('\n'));
        text.remove_prefix(std::min(line.size() + 1, text.size()));
        if (line.empty() || line.starts_with('#')) continue;
        if (line.starts_with("set ")) {
            t.settings.emplace_back(line.substr(4));
        } else if (line.starts_with("client: ")) {
            t.client.emplace_back(line.substr(8));
        } else if (line.starts_with("worker: ")) {
            t.worker.emplace_back(line.substr(8));
        } else {
            const auto space = line.find(' ', 2);
            const auto lane = number(line.substr(2, space - 2));
            const auto bytes = space == std::string_view::npos
                                   ? std::nullopt
                                   : text_as_bytes(line.substr(space + 1));
            if ((line[0] != '>' && line[0] != '<') || !lane || !bytes) {
                return error(ErrorCode::kInvalidArgument, "line {} is none of a transcript", n);
            }
            t.lines.push_back({.to_worker = line[0] == '>',
                               .lane = LaneId(static_cast<std::uint32_t>(*lane)),
                               .bytes = *bytes});
        }
    }
    return t;
}

std::vector<std::string> facts(const ClientRecord& r) {
    std::vector<std::string> all;
    for (const auto& i : r.infos) {
        all.push_back(fmt::format("info of {} with {} ranks, model {}, context {}", i.name,
                                  i.ranks.size(), i.card.name, i.card.context_tokens));
    }
    for (const auto& l : r.loads) {
        all.push_back(fmt::format("load of rank {}: {} running, {} waiting, booking {}, step {}",
                                  l.rank, l.load.running, l.load.waiting, l.booking, l.steps));
    }
    for (const auto& [id, s] : r.streams) {
        all.push_back(fmt::format("stream {}: [{}], {} alternatives, sum of logprobs {}, {}{}", id,
                                  fmt::join(s.tokens, " "), s.top, s.logprob_sum,
                                  s.finish ? protocol::to_string(*s.finish) : "open",
                                  s.error ? " \"" + s.error->message + "\"" : ""));
        if (s.handoff) all.push_back(fmt::format("stream {}: {}", id, fact(*s.handoff)));
    }
    for (const auto& [id, body] : r.fetched) {
        all.push_back(body ? fmt::format("fetched {}: {} bytes", id, body->size())
                           : fmt::format("fetch {} failed: {}", id, body.error().message));
    }
    if (r.go_away) {
        all.push_back(fmt::format("go-away: {}, {} ms", r.go_away->reason, r.go_away->grace_ms));
    }
    for (const auto& why : r.lost) all.push_back("lost: " + why.message);
    return all;
}

std::vector<std::string> facts(const WorkerRecord& r) {
    std::vector<std::string> all;
    if (r.client) all.push_back("client " + r.client->name);
    for (const auto& [id, open] : r.opens) {
        const auto& q = open.request;
        all.push_back(fmt::format(
            "open {}: rank {}, booking {}, a prompt of {}, at most {} tokens, logprobs {}, "
            "temperature {}, tenant \"{}\", trace \"{}\"{}",
            id, open.rank, open.booking, q.prompt.size(), q.max_tokens, q.top_logprobs,
            q.sampling.temperature, q.tenant, q.traceparent,
            q.deadline.is_never() ? "" : ", a deadline"));
        if (q.leg != protocol::Leg::kWhole) {
            all.push_back(fmt::format("open {}: a {} leg", id, to_string(q.leg)));
        }
        if (q.handoff) all.push_back(fmt::format("open {}: {}", id, fact(*q.handoff)));
        for (const auto& m : q.media) {
            all.push_back(
                fmt::format("open {}: media at {} of {} tokens", id, m.position, m.tokens));
            if (m.content) {
                all.push_back(fmt::format("open {}: {} x {} pixels, {} frames, {} bytes", id,
                                          m.content->width, m.content->height, m.content->frames,
                                          m.content->pixels.size()));
            }
            if (m.embeddings) all.push_back(fmt::format("open {}: {}", id, fact(*m.embeddings)));
        }
    }
    for (const auto id : r.cancelled) all.push_back(fmt::format("cancelled {}", id));
    for (const auto id : r.late_cancelled) all.push_back(fmt::format("cancelled {}", id));
    for (const auto& [id, f] : r.fetches) {
        all.push_back(fmt::format("fetch {}: kind {} {}{} rank {} from {} to {}", id,
                                  static_cast<int>(f.kind), f.sha256, f.topic, f.rank, f.from,
                                  f.to));
    }
    for (const auto& why : r.lost) all.push_back("lost: " + why.message);
    return all;
}

}  // namespace stator::requests
