#include "stator/codec/msgpack.h"

#include <array>
#include <bit>
#include <cmath>
#include <concepts>
#include <cstring>
#include <limits>
#include <utility>

#include "stator/base/check.h"
#include "stator/codec/json_writer.h"
#include "stator/codec/utf8.h"

namespace stator::codec {
namespace {

constexpr std::size_t kMaxLength = std::numeric_limits<std::uint32_t>::max();

// First bytes of the specification's table of formats.
enum Tag : std::uint8_t {
    kTagFixMap = 0x80,
    kTagFixArray = 0x90,
    kTagFixString = 0xa0,
    kTagNil = 0xc0,
    kTagNeverUsed = 0xc1,
    kTagFalse = 0xc2,
    kTagTrue = 0xc3,
    kTagBinary8 = 0xc4,
    kTagBinary16 = 0xc5,
    kTagBinary32 = 0xc6,
    kTagExtension8 = 0xc7,
    kTagExtension16 = 0xc8,
    kTagExtension32 = 0xc9,
    kTagFloat32 = 0xca,
    kTagFloat64 = 0xcb,
    kTagUint8 = 0xcc,
    kTagUint16 = 0xcd,
    kTagUint32 = 0xce,
    kTagUint64 = 0xcf,
    kTagInt8 = 0xd0,
    kTagInt16 = 0xd1,
    kTagInt32 = 0xd2,
    kTagInt64 = 0xd3,
    kTagFixExtension1 = 0xd4,
    kTagFixExtension16 = 0xd8,
    kTagString8 = 0xd9,
    kTagString16 = 0xda,
    kTagString32 = 0xdb,
    kTagArray16 = 0xdc,
    kTagArray32 = 0xdd,
    kTagMap16 = 0xde,
    kTagMap32 = 0xdf,
    kTagNegativeFixInt = 0xe0,
};

template <std::unsigned_integral T>
T swapped(T v) {
    static_assert(std::endian::native == std::endian::little, "lengths and hashes assume it");
    if constexpr (sizeof(T) == 1) return v;
    if constexpr (sizeof(T) == 2) return __builtin_bswap16(v);
    if constexpr (sizeof(T) == 4) return __builtin_bswap32(v);
    if constexpr (sizeof(T) == 8) return __builtin_bswap64(v);
}

template <std::unsigned_integral T>
void put(std::string& out, std::uint8_t tag, T v) {
    char bytes[1 + sizeof(T)];
    bytes[0] = static_cast<char>(tag);
    const T big = swapped(v);
    std::memcpy(bytes + 1, &big, sizeof(T));
    out.append(bytes, sizeof(bytes));
}

void put_byte(std::string& out, unsigned byte) { out.push_back(static_cast<char>(byte)); }

/// A length with its tag, where the tags of 16 and 32 bits follow each other.
void put_length16(std::string& out, std::uint8_t tag16, std::size_t n) {
    STATOR_CHECK(n <= kMaxLength, "MessagePack counts to 2^32 - 1");
    if (n <= 0xffff) {
        put(out, tag16, static_cast<std::uint16_t>(n));
    } else {
        put(out, static_cast<std::uint8_t>(tag16 + 1), static_cast<std::uint32_t>(n));
    }
}

void put_length8(std::string& out, std::uint8_t tag8, std::size_t n) {
    if (n <= 0xff) {
        put(out, tag8, static_cast<std::uint8_t>(n));
    } else {
        put_length16(out, static_cast<std::uint8_t>(tag8 + 1), n);
    }
}

MsgpackType type_of(std::uint8_t tag) {
    if (tag < kTagFixMap || tag >= kTagNegativeFixInt) return MsgpackType::kInteger;
    if (tag < kTagFixArray) return MsgpackType::kMap;
    if (tag < kTagFixString) return MsgpackType::kArray;
    if (tag < kTagNil) return MsgpackType::kString;
    if (tag == kTagNil) return MsgpackType::kNil;
    if (tag <= kTagTrue) return MsgpackType::kBoolean;
    if (tag <= kTagBinary32) return MsgpackType::kBinary;
    if (tag <= kTagExtension32) return MsgpackType::kExtension;
    if (tag <= kTagFloat64) return MsgpackType::kReal;
    if (tag <= kTagInt64) return MsgpackType::kInteger;
    if (tag <= kTagFixExtension16) return MsgpackType::kExtension;
    if (tag <= kTagString32) return MsgpackType::kString;
    if (tag <= kTagArray32) return MsgpackType::kArray;
    return MsgpackType::kMap;
}

/// What the first byte says of a value: the length field that follows it, or the number in it.
struct Head {
    std::uint8_t field_bytes = 0;
    std::uint32_t length = 0;  // where there is no field
};

Head head_of(std::uint8_t tag) {
    if (tag < kTagFixArray) return {0, tag & 0x0fU};
    if (tag < kTagFixString) return {0, tag & 0x0fU};
    if (tag < kTagNil) return {0, tag & 0x1fU};
    if (tag <= kTagBinary32) return {static_cast<std::uint8_t>(1U << (tag - kTagBinary8)), 0};
    if (tag <= kTagExtension32) {
        return {static_cast<std::uint8_t>(1U << (tag - kTagExtension8)), 0};
    }
    if (tag <= kTagFixExtension16) return {0, 1U << (tag - kTagFixExtension1)};
    if (tag <= kTagString32) return {static_cast<std::uint8_t>(1U << (tag - kTagString8)), 0};
    if (tag <= kTagArray32) return {static_cast<std::uint8_t>(2U << (tag - kTagArray16)), 0};
    return {static_cast<std::uint8_t>(2U << (tag - kTagMap16)), 0};
}

std::uint64_t load_big(const char* p, std::size_t bytes) {
    std::uint64_t v = 0;
    for (std::size_t i = 0; i < bytes; ++i) v = v << 8 | static_cast<unsigned char>(p[i]);
    return v;
}

std::string_view article(MsgpackType type) {
    switch (type) {
        case MsgpackType::kInteger:
        case MsgpackType::kArray:
        case MsgpackType::kExtension:
            return "an";
        case MsgpackType::kNil:
        case MsgpackType::kBoolean:
        case MsgpackType::kReal:
        case MsgpackType::kString:
        case MsgpackType::kBinary:
        case MsgpackType::kMap:
            return "a";
    }
    return "a";
}

bool holds_values(MsgpackType type) {
    return type == MsgpackType::kArray || type == MsgpackType::kMap;
}

tl::unexpected<Error> too_deep(std::size_t at) {
    return error(ErrorCode::kInvalidArgument,
                 "MessagePack, byte {}: expected at most {} arrays and maps in each other", at,
                 MsgpackReader::kMaxDepth);
}

}  // namespace

std::string_view to_string(MsgpackType type) {
    switch (type) {
        case MsgpackType::kNil:
            return "nil";
        case MsgpackType::kBoolean:
            return "boolean";
        case MsgpackType::kInteger:
            return "integer";
        case MsgpackType::kReal:
            return "real";
        case MsgpackType::kString:
            return "string";
        case MsgpackType::kBinary:
            return "binary";
        case MsgpackType::kArray:
            return "array";
        case MsgpackType::kMap:
            return "map";
        case MsgpackType::kExtension:
            return "extension";
    }
    return "unknown";
}

MsgpackWriter& MsgpackWriter::nil() {
    put_byte(out_, kTagNil);
    return *this;
}

MsgpackWriter& MsgpackWriter::boolean(bool v) {
    put_byte(out_, v ? kTagTrue : kTagFalse);
    return *this;
}

MsgpackWriter& MsgpackWriter::integer(std::int64_t v) {
    if (v >= 0) return number(static_cast<std::uint64_t>(v));
    if (v >= -32) {
        put_byte(out_, static_cast<std::uint8_t>(v));
    } else if (v >= std::numeric_limits<std::int8_t>::min()) {
        put(out_, kTagInt8, static_cast<std::uint8_t>(v));
    } else if (v >= std::numeric_limits<std::int16_t>::min()) {
        put(out_, kTagInt16, static_cast<std::uint16_t>(v));
    } else if (v >= std::numeric_limits<std::int32_t>::min()) {
        put(out_, kTagInt32, static_cast<std::uint32_t>(v));
    } else {
        put(out_, kTagInt64, static_cast<std::uint64_t>(v));
    }
    return *this;
}

MsgpackWriter& MsgpackWriter::number(std::uint64_t v) {
    if (v < 0x80) {
        put_byte(out_, static_cast<unsigned>(v));
    } else if (v <= 0xff) {
        put(out_, kTagUint8, static_cast<std::uint8_t>(v));
    } else if (v <= 0xffff) {
        put(out_, kTagUint16, static_cast<std::uint16_t>(v));
    } else if (v <= 0xffff'ffff) {
        put(out_, kTagUint32, static_cast<std::uint32_t>(v));
    } else {
        put(out_, kTagUint64, v);
    }
    return *this;
}

MsgpackWriter& MsgpackWriter::real(double v) {
    put(out_, kTagFloat64, std::bit_cast<std::uint64_t>(v));
    return *this;
}

MsgpackWriter& MsgpackWriter::real32(float v) {
    put(out_, kTagFloat32, std::bit_cast<std::uint32_t>(v));
    return *this;
}

MsgpackWriter& MsgpackWriter::string(std::string_view utf8) {
    STATOR_ASSERT(utf8_valid(utf8));
    if (utf8.size() < 32) {
        put_byte(out_, kTagFixString | static_cast<unsigned>(utf8.size()));
    } else {
        put_length8(out_, kTagString8, utf8.size());
    }
    out_.append(utf8);
    return *this;
}

MsgpackWriter& MsgpackWriter::binary(std::string_view bytes) {
    binary_head(bytes.size());
    out_.append(bytes);
    return *this;
}

MsgpackWriter& MsgpackWriter::binary_head(std::size_t n) {
    put_length8(out_, kTagBinary8, n);
    return *this;
}

MsgpackWriter& MsgpackWriter::array(std::size_t n) {
    if (n < 16) {
        put_byte(out_, kTagFixArray | static_cast<unsigned>(n));
    } else {
        put_length16(out_, kTagArray16, n);
    }
    return *this;
}

MsgpackWriter& MsgpackWriter::map(std::size_t n) {
    if (n < 16) {
        put_byte(out_, kTagFixMap | static_cast<unsigned>(n));
    } else {
        put_length16(out_, kTagMap16, n);
    }
    return *this;
}

Result<std::uint8_t> MsgpackReader::tag(MsgpackType expected) const {
    if (done()) {
        return error(ErrorCode::kInvalidArgument,
                     "MessagePack, byte {}: expected {} {}, found the end", at_, article(expected),
                     to_string(expected));
    }
    return static_cast<std::uint8_t>(bytes_[at_]);
}

Result<std::uint64_t> MsgpackReader::field(std::size_t bytes) const {
    if (left() < 1 + bytes) {
        return error(ErrorCode::kInvalidArgument,
                     "MessagePack, byte {}: expected {} more bytes of a number, found {}", at_ + 1,
                     bytes, left() - 1);
    }
    return load_big(bytes_.data() + at_ + 1, bytes);
}

tl::unexpected<Error> MsgpackReader::mismatch(MsgpackType expected, std::uint8_t found) const {
    if (found == kTagNeverUsed) {
        return error(ErrorCode::kInvalidArgument,
                     "MessagePack, byte {}: expected {} {}, found 0xc1, which begins no value", at_,
                     article(expected), to_string(expected));
    }
    return error(ErrorCode::kInvalidArgument, "MessagePack, byte {}: expected {} {}, found {} {}",
                 at_, article(expected), to_string(expected), article(type_of(found)),
                 to_string(type_of(found)));
}

Result<MsgpackType> MsgpackReader::peek() const {
    if (done()) {
        return error(ErrorCode::kInvalidArgument,
                     "MessagePack, byte {}: expected a value, found the end", at_);
    }
    const auto first = static_cast<std::uint8_t>(bytes_[at_]);
    if (first == kTagNeverUsed) {
        return error(ErrorCode::kInvalidArgument,
                     "MessagePack, byte {}: expected a value, found 0xc1, which begins none", at_);
    }
    return type_of(first);
}

Result<void> MsgpackReader::nil() {
    const auto first = tag(MsgpackType::kNil);
    if (!first) return tl::unexpected(first.error());
    if (*first != kTagNil) return mismatch(MsgpackType::kNil, *first);
    ++at_;
    return {};
}

Result<bool> MsgpackReader::boolean() {
    const auto first = tag(MsgpackType::kBoolean);
    if (!first) return tl::unexpected(first.error());
    if (*first != kTagTrue && *first != kTagFalse) return mismatch(MsgpackType::kBoolean, *first);
    ++at_;
    return *first == kTagTrue;
}

Result<MsgpackReader::Integer> MsgpackReader::any_integer() {
    const auto first = tag(MsgpackType::kInteger);
    if (!first) return tl::unexpected(first.error());
    const std::uint8_t t = *first;
    if (t < kTagFixMap) {
        ++at_;
        return Integer{t, false};
    }
    if (t >= kTagNegativeFixInt) {
        ++at_;
        return Integer{static_cast<std::uint64_t>(static_cast<std::int64_t>(t) - 256), true};
    }
    if (t < kTagUint8 || t > kTagInt64) return mismatch(MsgpackType::kInteger, t);
    const bool is_signed = t >= kTagInt8;
    const std::size_t bytes = std::size_t{1} << (t - (is_signed ? kTagInt8 : kTagUint8));
    const auto raw = field(bytes);
    if (!raw) return tl::unexpected(raw.error());
    at_ += 1 + bytes;
    if (!is_signed) return Integer{*raw, false};
    const auto unused_bits = static_cast<int>(64 - bytes * 8);
    const auto value = static_cast<std::int64_t>(*raw << unused_bits) >> unused_bits;
    return Integer{static_cast<std::uint64_t>(value), value < 0};
}

Result<std::int64_t> MsgpackReader::integer() {
    const std::size_t start = at_;
    const auto v = any_integer();
    if (!v) return tl::unexpected(v.error());
    if (!v->negative && v->bits > static_cast<std::uint64_t>(INT64_MAX)) {
        return error(ErrorCode::kInvalidArgument,
                     "MessagePack, byte {}: expected an integer of 64 bits with sign, found {}",
                     start, v->bits);
    }
    return static_cast<std::int64_t>(v->bits);
}

Result<std::uint64_t> MsgpackReader::number() {
    const std::size_t start = at_;
    const auto v = any_integer();
    if (!v) return tl::unexpected(v.error());
    if (v->negative) {
        return error(ErrorCode::kInvalidArgument,
                     "MessagePack, byte {}: expected an integer that is not negative, found {}",
                     start, static_cast<std::int64_t>(v->bits));
    }
    return v->bits;
}

Result<std::uint64_t> MsgpackReader::bits() {
    const auto v = any_integer();
    if (!v) return tl::unexpected(v.error());
    return v->bits;
}

Result<bool> MsgpackReader::u32_array(std::vector<std::uint32_t>& out) {
    auto left = array();
    if (!left) return tl::unexpected(left.error());
    bool all = true;
    out.reserve(out.size() + *left);
    for (std::size_t i = 0; i < *left; ++i) {
        // The short forms, which token ids mostly take, without a detour.
        const auto tag = at_ < bytes_.size() ? static_cast<std::uint8_t>(bytes_[at_]) : kTagNil;
        std::uint64_t value = tag;
        if (tag < kTagFixMap) {
            ++at_;
        } else if (tag == kTagUint16 && this->left() >= 3) {
            value = load_big(bytes_.data() + at_ + 1, 2);
            at_ += 3;
        } else {
            const auto type = peek();
            if (!type) return tl::unexpected(type.error());
            if (*type != MsgpackType::kInteger) {
                all = false;
                if (const auto passed = skip(1); !passed) return tl::unexpected(passed.error());
                continue;
            }
            const auto any = any_integer();
            if (!any) return tl::unexpected(any.error());
            all = all && !any->negative && any->bits <= UINT32_MAX;
            value = any->bits;
        }
        if (all) out.push_back(static_cast<std::uint32_t>(value));
    }
    return all;
}

Result<double> MsgpackReader::real() {
    const auto first = tag(MsgpackType::kReal);
    if (!first) return tl::unexpected(first.error());
    if (type_of(*first) == MsgpackType::kInteger) {
        const auto v = any_integer();
        if (!v) return tl::unexpected(v.error());
        return v->negative ? static_cast<double>(static_cast<std::int64_t>(v->bits))
                           : static_cast<double>(v->bits);
    }
    if (*first != kTagFloat32 && *first != kTagFloat64) {
        return mismatch(MsgpackType::kReal, *first);
    }
    const std::size_t bytes = *first == kTagFloat32 ? 4 : 8;
    const auto raw = field(bytes);
    if (!raw) return tl::unexpected(raw.error());
    at_ += 1 + bytes;
    if (bytes == 4) return std::bit_cast<float>(static_cast<std::uint32_t>(*raw));
    return std::bit_cast<double>(*raw);
}

Result<std::size_t> MsgpackReader::length(MsgpackType expected, std::size_t bytes_each,
                                          std::size_t bytes_more) {
    const auto first = tag(expected);
    if (!first) return tl::unexpected(first.error());
    if (*first == kTagNeverUsed || type_of(*first) != expected) return mismatch(expected, *first);
    const Head head = head_of(*first);
    std::size_t n = head.length;
    if (head.field_bytes != 0) {
        const auto raw = field(head.field_bytes);
        if (!raw) return tl::unexpected(raw.error());
        n = *raw;
    }
    const std::size_t behind = left() - 1 - head.field_bytes;
    // n < 2^32, so nothing overflows.
    if (n * bytes_each + bytes_more > behind) {
        return error(ErrorCode::kInvalidArgument,
                     "MessagePack, byte {}: expected {} {} of {}, found only {} bytes", at_,
                     article(expected), to_string(expected), n, behind);
    }
    at_ += 1 + head.field_bytes;
    return n;
}

Result<std::string_view> MsgpackReader::string() {
    const std::size_t start = at_;
    const auto n = length(MsgpackType::kString, 1, 0);
    if (!n) return tl::unexpected(n.error());
    const std::string_view text = bytes_.substr(at_, *n);
    if (!utf8_valid(text)) {
        return error(ErrorCode::kInvalidArgument,
                     "MessagePack, byte {}: expected a string in UTF-8, found other bytes at {}",
                     start, at_ + utf8_valid_prefix(text));
    }
    at_ += *n;
    return text;
}

Result<std::string_view> MsgpackReader::binary() {
    const auto n = length(MsgpackType::kBinary, 1, 0);
    if (!n) return tl::unexpected(n.error());
    const std::string_view bytes = bytes_.substr(at_, *n);
    at_ += *n;
    return bytes;
}

Result<std::size_t> MsgpackReader::array() { return length(MsgpackType::kArray, 1, 0); }

Result<std::size_t> MsgpackReader::map() { return length(MsgpackType::kMap, 2, 0); }

Result<MsgpackExtension> MsgpackReader::extension() {
    const auto n = length(MsgpackType::kExtension, 1, 1);
    if (!n) return tl::unexpected(n.error());
    const MsgpackExtension out{static_cast<std::int8_t>(bytes_[at_]), bytes_.substr(at_ + 1, *n)};
    at_ += 1 + *n;
    return out;
}

Result<std::size_t> MsgpackReader::skip_one(MsgpackType type) {
    const auto nothing_inside = [](const auto&) -> std::size_t { return 0; };
    switch (type) {
        case MsgpackType::kNil:
            return nil().map([] { return std::size_t{0}; });
        case MsgpackType::kBoolean:
            return boolean().map(nothing_inside);
        case MsgpackType::kInteger:
            return any_integer().map(nothing_inside);
        case MsgpackType::kReal:
            return real().map(nothing_inside);
        case MsgpackType::kString:
            return string().map(nothing_inside);
        case MsgpackType::kBinary:
            return binary().map(nothing_inside);
        case MsgpackType::kExtension:
            return extension().map(nothing_inside);
        case MsgpackType::kArray:
            return array();
        case MsgpackType::kMap:
            return map().map([](std::size_t pairs) { return 2 * pairs; });
    }
    return std::size_t{0};
}

Result<void> MsgpackReader::skip(std::size_t around) {
    std::array<std::size_t, kMaxDepth> owed{};  // values still to come, per open array or map
    std::size_t depth = 0;
    do {
        if (depth > 0) --owed[depth - 1];
        const auto type = peek();
        if (!type) return tl::unexpected(type.error());
        if (holds_values(*type) && around + depth >= kMaxDepth) return too_deep(at_);
        const auto inside = skip_one(*type);
        if (!inside) return tl::unexpected(inside.error());
        if (holds_values(*type)) owed[depth++] = *inside;
        while (depth > 0 && owed[depth - 1] == 0) --depth;
    } while (depth > 0);
    return {};
}

namespace {

/// Writes values as JSON; `depth` arrays and maps are around them.
class JsonPrinter {
  public:
    JsonPrinter(std::string_view bytes, std::string& out) : reader_(bytes), out_(out) {}

    Result<void> whole() {
        if (auto r = value(0); !r) return r;
        if (reader_.done()) return {};
        return error(ErrorCode::kInvalidArgument,
                     "MessagePack, byte {}: expected the end after one value, found more",
                     reader_.position());
    }

  private:
    Result<void> value(std::size_t depth) {
        const auto type = reader_.peek();
        if (!type) return tl::unexpected(type.error());
        JsonWriter w(out_);
        switch (*type) {
            case MsgpackType::kNil:
                return reader_.nil().map([&] { w.null(); });
            case MsgpackType::kBoolean:
                return reader_.boolean().map([&](bool v) { w.boolean(v); });
            case MsgpackType::kInteger:
                return integer(w);
            case MsgpackType::kReal:
                return reader_.real().map([&](double v) { real(w, v); });
            case MsgpackType::kString:
                return reader_.string().map([&](std::string_view v) { w.string(v); });
            case MsgpackType::kBinary:
                return reader_.binary().map(
                    [&](std::string_view v) { w.string(fmt::format("<{} bytes>", v.size())); });
            case MsgpackType::kExtension:
                return reader_.extension().map([&](const MsgpackExtension& v) {
                    w.string(fmt::format("<extension {}, {} bytes>", v.type, v.bytes.size()));
                });
            case MsgpackType::kArray:
            case MsgpackType::kMap:
                break;
        }
        if (depth == MsgpackReader::kMaxDepth) return too_deep(reader_.position());
        return *type == MsgpackType::kArray ? array(depth + 1) : map(depth + 1);
    }

    Result<void> integer(JsonWriter& w) {
        MsgpackReader ahead = reader_;
        if (ahead.number()) return reader_.number().map([&](std::uint64_t v) { w.number(v); });
        return reader_.integer().map([&](std::int64_t v) { w.number(v); });
    }

    static void real(JsonWriter& w, double v) {
        if (std::isnan(v)) {
            w.string("NaN");
        } else if (std::isinf(v)) {
            w.string(v > 0 ? "Infinity" : "-Infinity");
        } else {
            w.number(v);
        }
    }

    Result<void> array(std::size_t depth) {
        const auto n = reader_.array();
        if (!n) return tl::unexpected(n.error());
        out_.push_back('[');
        for (std::size_t i = 0; i < *n; ++i) {
            if (i > 0) out_.push_back(',');
            if (auto r = value(depth); !r) return r;
        }
        out_.push_back(']');
        return {};
    }

    Result<void> map(std::size_t depth) {
        const auto n = reader_.map();
        if (!n) return tl::unexpected(n.error());
        out_.push_back('{');
        for (std::size_t i = 0; i < *n; ++i) {
            if (i > 0) out_.push_back(',');
            if (auto r = key(depth); !r) return r;
            out_.push_back(':');
            if (auto r = value(depth); !r) return r;
        }
        out_.push_back('}');
        return {};
    }

    Result<void> key(std::size_t depth) {
        const auto type = reader_.peek();
        if (!type) return tl::unexpected(type.error());
        if (in_key_ && holds_values(*type)) {
            // Quotes in quotes in quotes would double the text with every level.
            append_json_string(out_, fmt::format("<{}>", to_string(*type)));
            return reader_.skip(depth);
        }
        const std::size_t start = out_.size();
        const bool outer = std::exchange(in_key_, true);
        auto r = value(depth);
        in_key_ = outer;
        if (!r) return r;
        if (out_[start] == '"') return {};
        const std::string text = out_.substr(start);
        out_.resize(start);
        append_json_string(out_, text);
        return {};
    }

    MsgpackReader reader_;
    std::string& out_;
    bool in_key_ = false;
};

template <typename T>
void append_integers(MsgpackWriter& w, const std::vector<T>& values) {
    static_assert(std::endian::native == std::endian::little, "they travel little-endian");
    w.binary({reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T)});
}

template <typename T>
Result<std::vector<T>> read_integers(MsgpackReader& r) {
    const std::size_t start = r.position();
    const auto bytes = r.binary();
    if (!bytes) return tl::unexpected(bytes.error());
    if (bytes->size() % sizeof(T) != 0) {
        return error(ErrorCode::kInvalidArgument,
                     "MessagePack, byte {}: expected a binary of numbers of {} bytes, found {} "
                     "bytes",
                     start, sizeof(T), bytes->size());
    }
    std::vector<T> out(bytes->size() / sizeof(T));
    if (!out.empty()) std::memcpy(out.data(), bytes->data(), bytes->size());
    return out;
}

}  // namespace

Result<void> append_msgpack_as_json(std::string_view bytes, std::string& out) {
    return JsonPrinter(bytes, out).whole();
}

void append_u64_binary(MsgpackWriter& w, const std::vector<std::uint64_t>& values) {
    append_integers(w, values);
}

void append_u32_binary(MsgpackWriter& w, const std::vector<std::uint32_t>& values) {
    append_integers(w, values);
}

Result<std::vector<std::uint64_t>> read_u64_binary(MsgpackReader& r) {
    return read_integers<std::uint64_t>(r);
}

Result<std::vector<std::uint32_t>> read_u32_binary(MsgpackReader& r) {
    return read_integers<std::uint32_t>(r);
}

}  // namespace stator::codec
