#include "stator/codec/json_writer.h"

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

#include <array>
#include <bit>
#include <charconv>
#include <cmath>
#include <cstring>

#include "stator/base/check.h"
#include "stator/codec/utf8.h"

namespace stator::codec {
namespace {

#ifdef NDEBUG
constexpr bool kChecked = false;
#else
constexpr bool kChecked = true;
#endif

constexpr std::uint32_t kCheckedLevels = 128;

/// What follows the backslash; 0 where the byte stands for itself, 'u' where it takes \u00XX.
constexpr std::array<char, 256> kEscape = [] {
    std::array<char, 256> t{};
    for (std::size_t c = 0; c < 0x20; ++c) t[c] = 'u';
    t['\b'] = 'b';
    t['\f'] = 'f';
    t['\n'] = 'n';
    t['\r'] = 'r';
    t['\t'] = 't';
    t['"'] = '"';
    t['\\'] = '\\';
    return t;
}();

char escape_of(char c) { return kEscape[static_cast<unsigned char>(c)]; }

/// Which of 8 bytes need escaping: below 0x20, a quote or a backslash. The high bit of each byte
/// answers for it; borrows can only make a byte above a true one answer wrongly, so "none" and the
/// lowest one are exact (little-endian).
std::uint64_t escapes(const char* p) {
    constexpr std::uint64_t kOnes = 0x0101010101010101U;
    constexpr std::uint64_t kHigh = 0x80U * kOnes;
    std::uint64_t x = 0;
    std::memcpy(&x, p, sizeof(x));
    const std::uint64_t quote = x ^ (0x22U * kOnes);
    const std::uint64_t backslash = x ^ (0x5CU * kOnes);
    const std::uint64_t control = x - 0x20U * kOnes;
    return ((control & ~x) | ((quote - kOnes) & ~quote) | ((backslash - kOnes) & ~backslash)) &
           kHigh;
}

std::size_t plain_run(const char* p, std::size_t n) {
    std::size_t i = 0;
    static_assert(std::endian::native == std::endian::little);
#if defined(__SSE2__)
    const __m128i quote = _mm_set1_epi8('"');
    const __m128i backslash = _mm_set1_epi8('\\');
    const __m128i last_control = _mm_set1_epi8(0x1F);
    for (; i + 16 <= n; i += 16) {
        const __m128i x = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p + i));
        const __m128i control = _mm_cmpeq_epi8(_mm_min_epu8(x, last_control), x);
        const __m128i marks = _mm_or_si128(_mm_cmpeq_epi8(x, quote), _mm_cmpeq_epi8(x, backslash));
        const int found = _mm_movemask_epi8(_mm_or_si128(control, marks));
        if (found != 0)
            return i + static_cast<std::size_t>(std::countr_zero(static_cast<unsigned>(found)));
    }
#endif
    for (; i + 8 <= n; i += 8) {
        const std::uint64_t found = escapes(p + i);
        if (found != 0) return i + static_cast<std::size_t>(std::countr_zero(found)) / 8;
    }
    while (i < n && escape_of(p[i]) == 0) ++i;
    return i;
}

void append_escape(std::string& out, char c) {
    constexpr std::string_view kHex = "0123456789abcdef";
    const char e = escape_of(c);
    if (e != 'u') {
        const char two[] = {'\\', e};
        out.append(two, sizeof(two));
        return;
    }
    const char six[] = {'\\',        'u', '0', '0', kHex[static_cast<unsigned char>(c) >> 4],
                        kHex[c & 15]};
    out.append(six, sizeof(six));
}

template <typename Integer>
void append_integer(std::string& out, Integer n) {
    char buffer[24];
    const auto r = std::to_chars(buffer, buffer + sizeof(buffer), n);
    out.append(buffer, static_cast<std::size_t>(r.ptr - buffer));
}

}  // namespace

void append_json_string(std::string& out, std::string_view s) {
    STATOR_ASSERT(utf8_valid(s));
    out.push_back('"');
    const char* p = s.data();
    std::size_t left = s.size();
    for (;;) {
        const std::size_t run = plain_run(p, left);
        out.append(p, run);
        if (run == left) break;
        append_escape(out, p[run]);
        p += run + 1;
        left -= run + 1;
    }
    out.push_back('"');
}

bool JsonWriter::in_object() const {
    if (depth_ == 0 || depth_ > kCheckedLevels) return false;
    return (objects_[(depth_ - 1) / 64] >> ((depth_ - 1) % 64) & 1) != 0;
}

void JsonWriter::before_value() {
    if constexpr (kChecked) {
        STATOR_ASSERT(!done_);  // a second value after the first whole one
        if (depth_ <= kCheckedLevels) STATOR_ASSERT(in_object() == after_key_);
        after_key_ = false;
        if (depth_ == 0) done_ = true;
    }
    if (need_comma_) out_.push_back(',');
    need_comma_ = true;
}

void JsonWriter::open(bool object) {
    before_value();
    if constexpr (kChecked) {
        done_ = false;
        if (++depth_ <= kCheckedLevels) {
            std::uint64_t& word = objects_[(depth_ - 1) / 64];
            const std::uint64_t bit = std::uint64_t{1} << ((depth_ - 1) % 64);
            word = object ? word | bit : word & ~bit;
        }
    }
    need_comma_ = false;
    out_.push_back(object ? '{' : '[');
}

void JsonWriter::close(bool object) {
    if constexpr (kChecked) {
        STATOR_ASSERT(depth_ > 0);
        if (depth_ <= kCheckedLevels) STATOR_ASSERT(in_object() == object && !after_key_);
        if (--depth_ == 0) done_ = true;
    }
    out_.push_back(object ? '}' : ']');
    need_comma_ = true;
}

JsonWriter& JsonWriter::begin_object() {
    open(true);
    return *this;
}

JsonWriter& JsonWriter::end_object() {
    close(true);
    return *this;
}

JsonWriter& JsonWriter::begin_array() {
    open(false);
    return *this;
}

JsonWriter& JsonWriter::end_array() {
    close(false);
    return *this;
}

JsonWriter& JsonWriter::key(std::string_view k) {
    if constexpr (kChecked) {
        if (depth_ <= kCheckedLevels) STATOR_ASSERT(in_object() && !after_key_);
        after_key_ = true;
    }
    if (need_comma_) out_.push_back(',');
    need_comma_ = false;
    append_json_string(out_, k);
    out_.push_back(':');
    return *this;
}

JsonWriter& JsonWriter::string(std::string_view s) {
    before_value();
    append_json_string(out_, s);
    return *this;
}

JsonWriter& JsonWriter::number(std::int64_t n) {
    before_value();
    append_integer(out_, n);
    return *this;
}

JsonWriter& JsonWriter::number(std::uint64_t n) {
    before_value();
    append_integer(out_, n);
    return *this;
}

JsonWriter& JsonWriter::number(double d) {
    if (!std::isfinite(d)) return null();
    before_value();
    char buffer[32];
    const auto r = std::to_chars(buffer, buffer + sizeof(buffer) - 2, d);
    std::string_view text(buffer, static_cast<std::size_t>(r.ptr - buffer));
    out_.append(text);
    // Without a point it would read back as an integer: -0 would lose its sign, and above 2^64 it
    // would not read at all.
    if (text.find_first_of(".e") == std::string_view::npos) out_.append(".0");
    return *this;
}

JsonWriter& JsonWriter::boolean(bool b) {
    before_value();
    out_.append(b ? "true" : "false");
    return *this;
}

JsonWriter& JsonWriter::null() {
    before_value();
    out_.append("null");
    return *this;
}

JsonWriter& JsonWriter::raw(std::string_view json) {
    before_value();
    out_.append(json);
    return *this;
}

}  // namespace stator::codec
