#include "stator/requests/step_codec.h"

#include <algorithm>
#include <cstring>

#include "stator/requests/messages.h"

namespace stator::requests {
namespace {

using protocol::FinishReason;
using protocol::StepEvent;
using protocol::TokenLogprob;
using protocol::TokenOutput;

enum : std::uint8_t { kCount = 1, kUsage = 2, kFinish = 4, kLogprobs = 8, kError = 16 };
constexpr std::uint8_t kAllFlags = 31;

/// Stream, flags, position, count, usage, finish and the error's length at their longest.
constexpr std::size_t kMaxHeadBytes = 5 + 1 + 5 + 5 + 10 + 1 + 5;
constexpr std::size_t kTopBytes = 8;

std::size_t top_count(const TokenOutput& token) {
    return std::min<std::size_t>(token.top_count, kMaxTopPerToken);
}

tl::unexpected<Error> truncated() {
    return error(ErrorCode::kInvalidArgument, "tokens: a share is cut short");
}

}  // namespace

void StepWriter::number(std::uint32_t v) {
    char* to = buffer_.data() + used_;
    while (v >= 0x80) {
        *to++ = static_cast<char>(v | 0x80);
        v >>= 7;
    }
    *to++ = static_cast<char>(v);
    used_ = static_cast<std::size_t>(to - buffer_.data());
}

template <typename T>
void StepWriter::raw(T v) {
    std::memcpy(buffer_.data() + used_, &v, sizeof v);
    used_ += sizeof v;
}

void StepWriter::head(std::uint32_t stream, std::uint32_t position, std::uint8_t flags,
                      std::uint32_t count) {
    const std::uint32_t difference = stream - last_;
    number((difference << 1) ^ (0U - (difference >> 31)));
    last_ = stream;
    if (count != 1) flags |= kCount;
    raw(flags);
    number(position);
    if (count != 1) number(count);
}

void StepWriter::add(std::string& out, std::uint32_t stream, std::uint32_t position, bool logprobs,
                     const StepEvent& event, std::span<const TokenOutput> tokens,
                     std::span<const TokenLogprob> top) {
    if (logprobs || event.error || tokens.size() > 256) {
        return add_long(out, stream, position, logprobs, event, tokens, top);
    }
    if (room() < kMaxHeadBytes + 4 * tokens.size()) finish(out);
    std::uint8_t flags = 0;
    if (event.prompt_tokens != 0) flags |= kUsage;
    if (event.finish) flags |= kFinish;
    head(stream, position, flags, static_cast<std::uint32_t>(tokens.size()));
    if (event.prompt_tokens != 0) {
        number(event.prompt_tokens);
        number(event.cached_tokens);
    }
    if (event.finish) raw(static_cast<std::uint8_t>(*event.finish));
    for (const TokenOutput& token : tokens) raw(token.token);
}

void StepWriter::add_long(std::string& out, std::uint32_t stream, std::uint32_t position,
                          bool logprobs, const StepEvent& event,
                          std::span<const TokenOutput> tokens, std::span<const TokenLogprob> top) {
    std::string map;
    if (event.error) append_error(map, *event.error);
    const auto bytes_of = [&](const TokenOutput& token) {
        return logprobs ? 4 + 4 + 5 + kTopBytes * top_count(token) : std::size_t{4};
    };
    bool first = true;
    while (true) {
        // An error's map is less than 5 KiB, a token's alternatives are at most 8 KiB: into an
        // empty frame there goes at least one token.
        std::size_t bytes = kMaxHeadBytes + map.size();
        std::size_t count = 0;
        while (count < tokens.size() && bytes + bytes_of(tokens[count]) <= room()) {
            bytes += bytes_of(tokens[count++]);
        }
        if ((count == 0 && !tokens.empty()) || bytes > room()) {
            finish(out);
            continue;
        }
        const bool last = count == tokens.size();
        std::uint8_t flags = logprobs ? kLogprobs : 0;
        if (first && event.prompt_tokens != 0) flags |= kUsage;
        if (last && event.prompt_tokens != 0) flags |= kUsage;
        if (last && event.finish) flags |= kFinish;
        if (last && event.error) flags |= kError;
        head(stream, position, flags, static_cast<std::uint32_t>(count));
        if ((flags & kUsage) != 0) {
            number(event.prompt_tokens);
            number(event.cached_tokens);
        }
        if ((flags & kFinish) != 0) raw(static_cast<std::uint8_t>(*event.finish));
        if ((flags & kError) != 0) {
            number(static_cast<std::uint32_t>(map.size()));
            std::memcpy(buffer_.data() + used_, map.data(), map.size());
            used_ += map.size();
        }
        for (const TokenOutput& token : tokens.first(count)) raw(token.token);
        for (const TokenOutput& token : tokens.first(logprobs ? count : 0)) {
            raw(token.logprob);
            number(static_cast<std::uint32_t>(top_count(token)));
            for (const TokenLogprob& best : top.subspan(token.top_first, top_count(token))) {
                raw(best.token);
                raw(best.logprob);
            }
        }
        if (last) return;
        first = false;
        position += static_cast<std::uint32_t>(count);
        tokens = tokens.subspan(count);
    }
}

void StepWriter::finish(std::string& out) {
    if (used_ > 0) {
        append_frame(out, FrameType::kTokens, kFlagCritical, 0, {buffer_.data(), used_});
    }
    used_ = 0;
    last_ = 0;
}

bool StepReader::number(std::uint32_t& v) {
    v = 0;
    for (unsigned shift = 0; shift < 35 && at_ != end_; shift += 7) {
        const auto byte = static_cast<std::uint8_t>(*at_++);
        if (shift == 28 && byte > 0x0F) return false;
        v |= static_cast<std::uint32_t>(byte & 0x7F) << shift;
        if (byte < 0x80) return true;
    }
    return false;
}

template <typename T>
bool StepReader::raw(T& v) {
    if (static_cast<std::size_t>(end_ - at_) < sizeof v) return false;
    std::memcpy(&v, at_, sizeof v);
    at_ += sizeof v;
    return true;
}

bool StepReader::tokens(Share& share, std::uint32_t count) {
    if (static_cast<std::size_t>(end_ - at_) / 4 < count) return false;
    share.tokens.resize(count);
    for (TokenOutput& token : share.tokens) {
        token = {};
        std::memcpy(&token.token, at_, 4);
        at_ += 4;
    }
    return true;
}

bool StepReader::logprobs(Share& share) {
    for (TokenOutput& token : share.tokens) {
        if (!raw(token.logprob) || !number(token.top_count)) return false;
        if (token.top_count > kMaxTopPerToken) return false;
        if (static_cast<std::size_t>(end_ - at_) / kTopBytes < token.top_count) return false;
        token.top_first = static_cast<std::uint32_t>(share.top.size());
        for (std::uint32_t i = 0; i < token.top_count; ++i) {
            TokenLogprob& best = share.top.emplace_back();
            if (!raw(best.token) || !raw(best.logprob)) return false;
        }
    }
    return true;
}

Result<void> StepReader::ending(Share& share, std::uint8_t flags) {
    if ((flags & kFinish) != 0) {
        std::uint8_t reason = 0;
        if (!raw(reason)) return truncated();
        if (reason < 1 || reason > static_cast<std::uint8_t>(FinishReason::kHandoff)) {
            return error(ErrorCode::kInvalidArgument, "tokens: {} is no finish reason", reason);
        }
        share.finish = static_cast<FinishReason>(reason);
    }
    if ((flags & kError) == 0) return {};
    std::uint32_t bytes = 0;
    if (!number(bytes) || static_cast<std::size_t>(end_ - at_) < bytes) return truncated();
    auto what = read_error({at_, bytes});
    if (!what) return tl::unexpected(std::move(what.error()));
    share.error = std::move(*what);
    at_ += bytes;
    return {};
}

Result<bool> StepReader::next(Share& share) {
    if (at_ == end_) return false;
    std::uint32_t zigzag = 0;
    std::uint8_t flags = 0;
    std::uint32_t count = 1;
    if (!number(zigzag) || !raw(flags) || !number(share.position)) return truncated();
    if ((flags & ~kAllFlags) != 0) {
        return error(ErrorCode::kInvalidArgument, "tokens: flags {:#x} are not known", flags);
    }
    share.stream = last_ + ((zigzag >> 1) ^ (0U - (zigzag & 1)));
    last_ = share.stream;
    if ((flags & kCount) != 0 && !number(count)) return truncated();
    share.prompt_tokens = 0;
    share.cached_tokens = 0;
    if ((flags & kUsage) != 0 && (!number(share.prompt_tokens) || !number(share.cached_tokens))) {
        return truncated();
    }
    share.finish.reset();
    share.error.reset();
    if ((flags & (kFinish | kError)) != 0) {
        if (auto ok = ending(share, flags); !ok) return tl::unexpected(std::move(ok.error()));
    }
    share.top.clear();
    if (!tokens(share, count)) return truncated();
    if ((flags & kLogprobs) != 0 && !logprobs(share)) return truncated();
    return true;
}

}  // namespace stator::requests
