#include "stator/codec/msgpack.h"

#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <bit>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <limits>
#include <random>

#include "stator/codec/json.h"
#include "stator/codec/utf8.h"

namespace stator::codec {
namespace {

/// test/data/msgpack: what PyPI's msgpack packs and refuses (make_vectors.py there).
std::string vectors_text() {
    const auto path =
        std::filesystem::path(__FILE__).parent_path() / "../../test/data/msgpack" / "vectors.json";
    std::ifstream in(path);
    return {std::istreambuf_iterator<char>(in), {}};
}

std::string from_hex(std::string_view hex) {
    std::string out;
    for (std::size_t i = 0; i + 1 < hex.size(); i += 2) {
        out.push_back(static_cast<char>(std::stoi(std::string(hex.substr(i, 2)), nullptr, 16)));
    }
    return out;
}

std::string member(JsonView object, std::string_view key) {
    return std::string(object.find(key).as_string().value_or("?"));
}

/// The same value in the same spelling, whoever wrote it.
std::string canonical(std::string_view json) {
    JsonDocument doc;
    const auto root = doc.parse(json);
    if (!root) return "no JSON: " + root.error().message;
    std::string out;
    root->write_to(out);
    return out;
}

/// Reads one value and writes it again; false where it has an extension, which we never write.
bool copy(MsgpackReader& r, MsgpackWriter& w) {
    switch (*r.peek()) {
        case MsgpackType::kNil:
            EXPECT_TRUE(r.nil());
            w.nil();
            return true;
        case MsgpackType::kBoolean:
            w.boolean(*r.boolean());
            return true;
        case MsgpackType::kInteger: {
            MsgpackReader ahead = r;
            if (ahead.number()) {
                w.number(*r.number());
            } else {
                w.integer(*r.integer());
            }
            return true;
        }
        case MsgpackType::kReal:
            w.real(*r.real());
            return true;
        case MsgpackType::kString:
            w.string(*r.string());
            return true;
        case MsgpackType::kBinary:
            w.binary(*r.binary());
            return true;
        case MsgpackType::kArray: {
            const std::size_t n = *r.array();
            w.array(n);
            for (std::size_t i = 0; i < n; ++i) {
                if (!copy(r, w)) return false;
            }
            return true;
        }
        case MsgpackType::kMap: {
            const std::size_t n = *r.map();
            w.map(n);
            for (std::size_t i = 0; i < 2 * n; ++i) {
                if (!copy(r, w)) return false;
            }
            return true;
        }
        case MsgpackType::kExtension:
            return false;
    }
    return false;
}

TEST(Msgpack, ReadsAndWritesWhatTheOracleDoes) {
    JsonDocument doc;
    const std::string text = vectors_text();
    const auto root = doc.parse(text);
    ASSERT_TRUE(root) << root.error().message;
    std::size_t copied = 0;
    root->find("documents").each_element([&](std::size_t, JsonView v) {
        const std::string bytes = from_hex(member(v, "hex"));
        std::string json;
        const auto ok = append_msgpack_as_json(bytes, json);
        EXPECT_TRUE(ok) << ok.error().message << " " << member(v, "hex");
        EXPECT_EQ(canonical(json), canonical(member(v, "json"))) << member(v, "hex");
        MsgpackReader whole(bytes);
        EXPECT_TRUE(whole.skip());
        EXPECT_TRUE(whole.done());
        std::string again;
        MsgpackWriter w(again);
        MsgpackReader r(bytes);
        if (!v.find("shortest").as_bool().value_or(false) || !copy(r, w)) return true;
        EXPECT_EQ(again, bytes) << member(v, "hex");
        ++copied;
        return true;
    });
    EXPECT_GT(copied, 200U);
}

TEST(Msgpack, RefusesWhatTheOracleRefuses) {
    JsonDocument doc;
    const std::string text = vectors_text();
    const auto root = doc.parse(text);
    ASSERT_TRUE(root);
    std::size_t seen = 0;
    root->find("refusals").each_element([&](std::size_t, JsonView v) {
        std::string json;
        const auto ok = append_msgpack_as_json(from_hex(member(v, "hex")), json);
        EXPECT_FALSE(ok) << member(v, "hex") << " " << member(v, "why");
        if (!ok) EXPECT_EQ(ok.error().code, ErrorCode::kInvalidArgument);
        ++seen;
        return true;
    });
    EXPECT_EQ(seen, 200U);
}

TEST(Msgpack, AnyTruncationIsAnError) {
    JsonDocument doc;
    const std::string text = vectors_text();
    const auto root = doc.parse(text);
    ASSERT_TRUE(root);
    root->find("documents").each_element([&](std::size_t, JsonView v) {
        const std::string bytes = from_hex(member(v, "hex"));
        const std::size_t stride = bytes.size() < 100 ? 1 : 7;
        for (std::size_t n = 0; n < bytes.size(); n += stride) {
            // Its own memory, so that a read behind the end is seen.
            const std::vector<char> cut(bytes.begin(),
                                        bytes.begin() + static_cast<std::ptrdiff_t>(n));
            MsgpackReader r({cut.data(), cut.size()});
            EXPECT_FALSE(r.skip()) << member(v, "hex") << " cut at " << n;
        }
        return true;
    });
}

TEST(Msgpack, AnyBytesAreAValueOrAnError) {
    std::mt19937_64 rng(1);
    for (int i = 0; i < 50'000; ++i) {
        std::string bytes(rng() % 24, '\0');
        for (char& c : bytes) c = static_cast<char>(rng());
        MsgpackReader r(bytes);
        const bool whole = r.skip() && r.done();
        std::string json;
        const auto printed = append_msgpack_as_json(bytes, json);
        ASSERT_EQ(whole, printed.has_value());
        if (printed) ASSERT_EQ(canonical(json).substr(0, 7) == "no JSON", false) << json;
    }
}

TEST(Msgpack, RoundTrips) {
    EXPECT_TRUE(rc::check(
        "values come back as they were written",
        [](std::int64_t i, std::uint64_t u, double d, float f, const std::string& b) {
            std::string text;
            utf8_append_lossy(text, b);
            std::string out;
            MsgpackWriter(out).integer(i).number(u).real(d).real32(f).string(text).binary(b).nil();
            MsgpackReader r(out);
            RC_ASSERT(*r.integer() == i);
            RC_ASSERT(*r.number() == u);
            RC_ASSERT(std::bit_cast<std::uint64_t>(*r.real()) == std::bit_cast<std::uint64_t>(d));
            RC_ASSERT(*r.real() == static_cast<double>(f));
            RC_ASSERT(*r.string() == text);
            RC_ASSERT(*r.binary() == b);
            RC_ASSERT(r.nil().has_value());
            RC_ASSERT(r.done());
        }));
}

TEST(Msgpack, NumbersInBinaries) {
    EXPECT_TRUE(rc::check("they come back", [](const std::vector<std::uint64_t>& a,
                                               const std::vector<std::uint32_t>& b) {
        std::string out;
        MsgpackWriter w(out);
        append_u64_binary(w, a);
        append_u32_binary(w, b);
        MsgpackReader r(out);
        RC_ASSERT(*read_u64_binary(r) == a);
        RC_ASSERT(*read_u32_binary(r) == b);
    }));
    MsgpackReader odd(
        std::string_view("\xc4\x03"
                         "abc"));
    EXPECT_FALSE(read_u64_binary(odd));
}

TEST(Msgpack, ArraysOfSmallNumbersAreReadAtOnce) {
    EXPECT_TRUE(rc::check("as one by one",
                          [](const std::vector<std::uint32_t>& a, bool odd, std::int64_t other) {
                              std::string out;
                              MsgpackWriter w(out);
                              w.array(a.size() + (odd ? 2 : 0));
                              for (const auto v : a) w.number(v);
                              if (odd) w.integer(other).array(1).nil();
                              w.string("behind");
                              std::vector<std::uint32_t> read{7};
                              MsgpackReader r(out);
                              RC_ASSERT(*r.u32_array(read) == !odd);
                              RC_ASSERT(read.size() >= a.size() + 1);
                              RC_ASSERT(std::equal(a.begin(), a.end(), read.begin() + 1));
                              RC_ASSERT(*r.string() == "behind");
                          }));
    std::vector<std::uint32_t> read;
    EXPECT_FALSE(MsgpackReader("\x92\x01").u32_array(read));
    EXPECT_FALSE(MsgpackReader("\x91\xcd\x01").u32_array(read));
}

TEST(Msgpack, BitsAreOfEitherSign) {
    EXPECT_TRUE(rc::check("as it was written", [](std::int64_t v) {
        std::string out;
        MsgpackWriter w(out);
        w.integer(v).number(static_cast<std::uint64_t>(v));
        MsgpackReader r(out);
        RC_ASSERT(*r.bits() == static_cast<std::uint64_t>(v));
        RC_ASSERT(*r.bits() == static_cast<std::uint64_t>(v));
    }));
}

TEST(Msgpack, LengthsTakeTheirShortestForm) {
    const auto head = [](auto write) {
        std::string out;
        MsgpackWriter w(out);
        write(w);
        return out.substr(0, 5);
    };
    const auto starts = [&](std::string_view want, auto write) {
        EXPECT_EQ(head(write).substr(0, want.size()), want);
    };
    using W = MsgpackWriter;
    starts({"\xda\xff\xff", 3}, [](W& w) { w.string(std::string(65'535, 'x')); });
    starts({"\xdb\x00\x01\x00\x00", 5}, [](W& w) { w.string(std::string(65'536, 'x')); });
    starts({"\xc5\xff\xff", 3}, [](W& w) { w.binary(std::string(65'535, 'x')); });
    starts({"\xc6\x00\x01\x00\x00", 5}, [](W& w) { w.binary(std::string(65'536, 'x')); });
    starts({"\xdc\xff\xff", 3}, [](W& w) { w.array(65'535); });
    starts({"\xdd\x00\x01\x00\x00", 5}, [](W& w) { w.array(65'536); });
    starts({"\xde\xff\xff", 3}, [](W& w) { w.map(65'535); });
    starts({"\xdf\x00\x01\x00\x00", 5}, [](W& w) { w.map(65'536); });
}

std::string refusal(const auto& result) { return result ? "accepted" : result.error().message; }

TEST(Msgpack, RefusalsSayWhereAndWhatWasExpected) {
    EXPECT_EQ(refusal(MsgpackReader("").nil()),
              "MessagePack, byte 0: expected a nil, found the end");
    EXPECT_EQ(refusal(MsgpackReader("\x93").array()),
              "MessagePack, byte 0: expected an array of 3, found only 0 bytes");
    EXPECT_EQ(refusal(MsgpackReader("\x81\x01").map()),
              "MessagePack, byte 0: expected a map of 1, found only 1 bytes");
    EXPECT_EQ(refusal(MsgpackReader("\xa1x").number()),
              "MessagePack, byte 0: expected an integer, found a string");
    EXPECT_EQ(refusal(MsgpackReader("\xff").number()),
              "MessagePack, byte 0: expected an integer that is not negative, found -1");
    EXPECT_EQ(refusal(MsgpackReader("\xcf\xff\xff\xff\xff\xff\xff\xff\xff").integer()),
              "MessagePack, byte 0: expected an integer of 64 bits with sign, found "
              "18446744073709551615");
    EXPECT_EQ(refusal(MsgpackReader("\xa2y\xff").string()),
              "MessagePack, byte 0: expected a string in UTF-8, found other bytes at 2");
    EXPECT_EQ(refusal(MsgpackReader("\xdd\xff\xff\xff\xff").array()),
              "MessagePack, byte 0: expected an array of 4294967295, found only 0 bytes");
}

TEST(Msgpack, NestingIsBounded) {
    const auto nested = [](std::size_t depth) { return std::string(depth, '\x91') + '\x01'; };
    EXPECT_TRUE(MsgpackReader(nested(32)).skip());
    const std::string deep = nested(33);
    EXPECT_FALSE(MsgpackReader(deep).skip());
    std::string json;
    EXPECT_FALSE(append_msgpack_as_json(deep, json));
    EXPECT_FALSE(MsgpackReader(std::string(1'000'000, '\x91')).skip());
    // A key in a key is passed over, not printed; what is around it counts all the same.
    std::string keys(3, '\x81');
    keys += nested(30) + std::string(3, '\0');
    EXPECT_FALSE(MsgpackReader(keys).skip());
    EXPECT_FALSE(append_msgpack_as_json(keys, json));
}

TEST(Msgpack, KeysInKeysDoNotGrowTheText) {
    // {{{…: 0}: 0}: 0}: quoted at every level, the text would double each time.
    std::string bytes(30, '\x81');
    bytes += "\xa1k";
    bytes += std::string(30, '\0');
    std::string json;
    ASSERT_TRUE(append_msgpack_as_json(bytes, json));
    EXPECT_EQ(json, R"({"{\"<map>\":0}":0})");
}

}  // namespace
}  // namespace stator::codec
