#include "stator/net/http_chunks.h"

#include <algorithm>

#include "stator/net/http_names.h"

namespace stator::net {
namespace {

constexpr unsigned kMaxDigits = 16;

int hex_value(char c) {
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    return -1;
}

bool is_control(char c) { return (c >= 0 && c < ' ' && c != '\t') || c == 127; }

}  // namespace

ChunkDecoder::Outcome ChunkDecoder::bad(const char* reason) {
    reason_ = reason;
    return Outcome::kMalformed;
}

ChunkDecoder::Outcome ChunkDecoder::next(std::string_view& bytes, std::string_view& data) {
    data = {};
    while (!bytes.empty()) {
        if (state_ == State::kData) {
            data = bytes.substr(
                0, static_cast<std::size_t>(std::min<std::uint64_t>(size_, bytes.size())));
            bytes.remove_prefix(data.size());
            size_ -= data.size();
            if (size_ == 0) state_ = State::kDataCr;
            return Outcome::kMore;
        }
        const Outcome outcome = step(bytes.front());
        bytes.remove_prefix(1);
        if (outcome != Outcome::kMore) return outcome;
    }
    return Outcome::kMore;
}

ChunkDecoder::Outcome ChunkDecoder::step(char c) {
    switch (state_) {
        case State::kSizeFirst:
        case State::kSize:
        case State::kExtension:
        case State::kSizeLf:
            return on_size(c);
        case State::kDataCr:
            if (c != '\r') return bad("A chunk is longer than its announced length.");
            state_ = State::kDataLf;
            return Outcome::kMore;
        case State::kDataLf:
            if (c != '\n') return bad("A chunk must end with CR LF.");
            state_ = State::kSizeFirst;
            return Outcome::kMore;
        case State::kTrailerFirst:
        case State::kTrailerName:
        case State::kTrailerValue:
        case State::kTrailerLf:
        case State::kLastLf:
            return on_trailer(c);
        case State::kData:
            break;  // not a byte's matter, see next()
    }
    return Outcome::kMore;
}

ChunkDecoder::Outcome ChunkDecoder::on_size(char c) {
    if (state_ == State::kSizeLf) {
        if (c != '\n') return bad("A chunk's first line must end with CR LF.");
        if (size_ > body_left_) return Outcome::kTooLong;
        body_left_ -= static_cast<std::size_t>(size_);
        state_ = size_ == 0 ? State::kTrailerFirst : State::kData;
        return Outcome::kMore;
    }
    if (state_ == State::kExtension) {
        if (framing_left_-- == 0) return Outcome::kTooMuchAround;
        if (c == '\r') {
            state_ = State::kSizeLf;
        } else if (is_control(c) || c == '"') {
            // A quote might hide a line break from a parser that looks for its end.
            return bad("A chunk's extension has a control character or a quote.");
        }
        return Outcome::kMore;
    }
    if (state_ == State::kSizeFirst) {
        size_ = 0;
        digits_ = 0;
        state_ = State::kSize;
    }
    if (const int digit = hex_value(c); digit >= 0) {
        if (++digits_ > kMaxDigits) return bad("A chunk's length has more than 16 digits.");
        size_ = size_ * 16 + static_cast<std::uint64_t>(digit);
        return Outcome::kMore;
    }
    if (digits_ == 0) return bad("A chunk must start with its length in hexadecimal.");
    if (c != '\r' && c != ';') return bad("A chunk's length must end with CR LF or ';'.");
    state_ = c == ';' ? State::kExtension : State::kSizeLf;
    return Outcome::kMore;
}

ChunkDecoder::Outcome ChunkDecoder::on_trailer(char c) {
    if (framing_left_-- == 0) return Outcome::kTooMuchAround;
    switch (state_) {
        case State::kLastLf:
            return c == '\n' ? Outcome::kEnd : bad("The last line must end with CR LF.");
        case State::kTrailerLf:
            if (c != '\n') return bad("A trailer must end with CR LF.");
            state_ = State::kTrailerFirst;
            return Outcome::kMore;
        case State::kTrailerValue:
            if (c == '\r') {
                state_ = State::kTrailerLf;
            } else if (is_control(c)) {
                return bad("A trailer has a control character.");
            }
            return Outcome::kMore;
        case State::kTrailerName:
            if (c == ':') {
                state_ = State::kTrailerValue;
            } else if (!is_token({&c, 1})) {
                return bad("A trailer's name is not a token.");
            }
            return Outcome::kMore;
        case State::kTrailerFirst:
            if (c == '\r') {
                state_ = State::kLastLf;
            } else if (is_token({&c, 1})) {
                state_ = State::kTrailerName;
            } else {
                return bad("A trailer's name is empty or not a token.");
            }
            return Outcome::kMore;
        case State::kSizeFirst:
        case State::kSize:
        case State::kExtension:
        case State::kSizeLf:
        case State::kData:
        case State::kDataCr:
        case State::kDataLf:
            break;  // see step()
    }
    return Outcome::kMore;
}

}  // namespace stator::net
