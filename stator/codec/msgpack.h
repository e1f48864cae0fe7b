#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "stator/base/error.h"

namespace stator::codec {

/// MessagePack (https://github.com/msgpack/msgpack/blob/master/spec.md) appended to a string. Every
/// value takes its shortest form. The caller counts: array(n) must be followed by n values, map(n)
/// by n pairs.
class MsgpackWriter {
  public:
    explicit MsgpackWriter(std::string& out) : out_(out) {}

    MsgpackWriter& nil();
    MsgpackWriter& boolean(bool v);
    MsgpackWriter& integer(std::int64_t v);
    MsgpackWriter& number(std::uint64_t v);
    MsgpackWriter& real(double v);  ///< always 64 bits
    MsgpackWriter& real32(float v);
    MsgpackWriter& string(std::string_view utf8);  ///< STATOR_CHECK: below 4 GiB
    MsgpackWriter& binary(std::string_view bytes);
    /// The head of a binary whose n bytes the caller appends to the string itself.
    MsgpackWriter& binary_head(std::size_t n);
    MsgpackWriter& array(std::size_t n);
    MsgpackWriter& map(std::size_t n);

  private:
    std::string& out_;
};

enum class MsgpackType : std::uint8_t {
    kNil,
    kBoolean,
    kInteger,  ///< of either sign
    kReal,
    kString,
    kBinary,
    kArray,
    kMap,
    kExtension,
};
std::string_view to_string(MsgpackType type);

/// An application's own type; the specification's timestamps are type -1.
struct MsgpackExtension {
    std::int8_t type = 0;
    std::string_view bytes;
};

/// Reads MessagePack in order, without allocating: texts and binaries are views into the input,
/// which must outlive them. Input is untrusted: every length is checked against what is left before
/// it is used, nesting is bounded, strings must be valid UTF-8. After an error the reader is of no
/// further use. Errors are kInvalidArgument with the byte's position and what was expected.
class MsgpackReader {
  public:
    static constexpr std::size_t kMaxDepth = 32;

    explicit MsgpackReader(std::string_view bytes) : bytes_(bytes) {}

    [[nodiscard]] Result<MsgpackType> peek() const;
    [[nodiscard]] Result<void> nil();
    [[nodiscard]] Result<bool> boolean();
    [[nodiscard]] Result<std::int64_t> integer();
    [[nodiscard]] Result<std::uint64_t> number();  ///< an integer that is not negative
    /// An integer of either sign as two's complement: of ids that some write signed, some unsigned.
    [[nodiscard]] Result<std::uint64_t> bits();
    /// An array of integers, appended to `out`. False: not all are integers from 0 to 2^32 - 1;
    /// then `out` has those before the first that is not, and the array is passed over.
    [[nodiscard]] Result<bool> u32_array(std::vector<std::uint32_t>& out);
    [[nodiscard]] Result<double> real();  ///< integers too
    [[nodiscard]] Result<std::string_view> string();
    [[nodiscard]] Result<std::string_view> binary();
    /// The number of values (or pairs) that follow; never more than there are bytes left for.
    [[nodiscard]] Result<std::size_t> array();
    [[nodiscard]] Result<std::size_t> map();
    [[nodiscard]] Result<MsgpackExtension> extension();
    /// Passes over one value, whatever it is, at most kMaxDepth deep, with the arrays and maps that
    /// the caller knows to be around it.
    [[nodiscard]] Result<void> skip(std::size_t around = 0);

    [[nodiscard]] bool done() const { return at_ == bytes_.size(); }
    [[nodiscard]] std::size_t position() const { return at_; }

  private:
    struct Integer {
        std::uint64_t bits = 0;  // two's complement where negative
        bool negative = false;
    };
    [[nodiscard]] std::size_t left() const { return bytes_.size() - at_; }
    [[nodiscard]] Result<std::uint8_t> tag(MsgpackType expected) const;
    [[nodiscard]] Result<std::uint64_t> field(std::size_t bytes) const;
    [[nodiscard]] Result<Integer> any_integer();
    [[nodiscard]] Result<std::size_t> length(MsgpackType expected, std::size_t bytes_each,
                                             std::size_t bytes_more);
    [[nodiscard]] Result<std::size_t> skip_one(MsgpackType type);
    [[nodiscard]] tl::unexpected<Error> mismatch(MsgpackType expected, std::uint8_t found) const;

    std::string_view bytes_;
    std::size_t at_ = 0;
};

/// One value as JSON text, for people (`stator events tail`): binaries as "<N bytes>", extensions
/// as "<extension T, N bytes>", integers over 2^53 exactly, map keys that are no strings as their
/// JSON text in quotes, a map or array as a key of such a key as "<map>" or "<array>", reals that
/// JSON has no word for as strings. Same errors as MsgpackReader.
[[nodiscard]] Result<void> append_msgpack_as_json(std::string_view bytes, std::string& out);

/// Numbers as a binary of 8 (4) bytes each, little-endian: how hashes and token ids travel, because
/// a copy is all it takes to read them.
void append_u64_binary(MsgpackWriter& w, const std::vector<std::uint64_t>& values);
void append_u32_binary(MsgpackWriter& w, const std::vector<std::uint32_t>& values);
/// kInvalidArgument where the binary's size is no multiple.
[[nodiscard]] Result<std::vector<std::uint64_t>> read_u64_binary(MsgpackReader& r);
[[nodiscard]] Result<std::vector<std::uint32_t>> read_u32_binary(MsgpackReader& r);

}  // namespace stator::codec
