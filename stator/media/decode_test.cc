// The decoders themselves, in this process and under its sanitizers.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "stator/media/decode/decode.h"
#include "stator/media/decode/video.h"
#include "stator/media/picture_fixture.h"

namespace stator::media {
namespace {

using helper::Decoded;
using helper::Outcome;

helper::Limits limits() {
    return {.max_bytes = 60'000'000,
            .max_pixels = 20'000'000,
            .max_side = 32'768,
            .max_frames = 8,
            .max_duration_ms = 60'000,
            .max_packets = 10'000};
}

Decoded decode(const std::string& bytes, const helper::Limits& l = limits()) {
    return helper::decode_image({reinterpret_cast<const std::uint8_t*>(bytes.data()), bytes.size()},
                                l);
}

Picture picture_of(const Decoded& d) {
    EXPECT_EQ(d.outcome, Outcome::kOk);
    if (d.outcome != Outcome::kOk) return {};
    return {d.width, d.height,
            std::string(reinterpret_cast<const char*>(d.pixels.get()), d.pixel_bytes())};
}

/// The largest difference of any channel of any pixel.
int difference(const Picture& a, const Picture& b) {
    if (a.width != b.width || a.height != b.height) return 1000;
    int most = 0;
    for (std::size_t i = 0; i < a.rgb.size(); ++i) {
        most = std::max(most, std::abs(static_cast<std::uint8_t>(a.rgb[i]) -
                                       static_cast<std::uint8_t>(b.rgb[i])));
    }
    return most;
}

Picture mapped(const Picture& from, auto&& f) {
    Picture out = from;
    for (std::size_t i = 0; i < out.rgb.size(); i += 3) {
        std::array<int, 3> c = {static_cast<std::uint8_t>(from.rgb[i]),
                                static_cast<std::uint8_t>(from.rgb[i + 1]),
                                static_cast<std::uint8_t>(from.rgb[i + 2])};
        c = f(c);
        for (std::size_t k = 0; k < 3; ++k) out.rgb[i + k] = static_cast<char>(c[k]);
    }
    return out;
}

std::array<int, 3> gray(std::array<int, 3> c) { return {c[0], c[0], c[0]}; }
std::array<int, 3> faded(std::array<int, 3> c) {
    for (int& v : c) v = (v * 128 + 255 * 127 + 127) / 255;
    return c;
}

constexpr int kLossy = 10;

TEST(DecodeJpeg, ColoursAreWhatTheyWere) {
    const Picture picture = gradient(67, 41);
    EXPECT_LE(difference(picture_of(decode(to_jpeg(picture))), picture), kLossy);
    EXPECT_LE(difference(picture_of(decode(to_jpeg(picture, {.progressive = true}))), picture),
              kLossy);
    EXPECT_LE(difference(picture_of(decode(to_jpeg(picture, {.cmyk = true}))), picture), kLossy);
    EXPECT_LE(
        difference(picture_of(decode(to_jpeg(picture, {.gray = true}))), mapped(picture, gray)),
        kLossy);
}

TEST(DecodeJpeg, OrientationIsApplied) {
    // Where the file's top left corner (black but for blue) ends up: EXIF's table.
    const Picture picture = gradient(40, 20);
    struct Case {
        unsigned orientation;
        bool turned;
        bool right;
        bool bottom;
    };
    for (const Case& c :
         {Case{1, false, false, false}, Case{2, false, true, false}, Case{3, false, true, true},
          Case{4, false, false, true}, Case{5, true, false, false}, Case{6, true, true, false},
          Case{7, true, true, true}, Case{8, true, false, true}}) {
        const Picture out = picture_of(decode(to_jpeg(picture, {.orientation = c.orientation})));
        ASSERT_EQ(out.width, c.turned ? 20U : 40U) << c.orientation;
        ASSERT_EQ(out.height, c.turned ? 40U : 20U) << c.orientation;
        const auto corner = out.at(c.right ? out.width - 1 : 0, c.bottom ? out.height - 1 : 0);
        EXPECT_LE(corner[0] + corner[1], 2 * kLossy) << c.orientation;
        const auto opposite = out.at(c.right ? 0 : out.width - 1, c.bottom ? 0 : out.height - 1);
        EXPECT_GE(opposite[0] + opposite[1], 510 - 2 * kLossy) << c.orientation;
        // The file's upper right corner (red) lies along the first row, or the first column.
        const auto red = c.turned
                             ? out.at(c.right ? out.width - 1 : 0, c.bottom ? 0 : out.height - 1)
                             : out.at(c.right ? 0 : out.width - 1, c.bottom ? out.height - 1 : 0);
        EXPECT_GE(red[0], 255 - kLossy) << c.orientation;
        EXPECT_LE(red[1], kLossy) << c.orientation;
    }
}

TEST(DecodePng, EveryKindBecomesRgb) {
    using Kind = PngStyle::Kind;
    const Picture picture = gradient(37, 23);
    const Picture palette =
        mapped(picture, [](auto c) { return std::array<int, 3>{c[0], 255 - c[0], 7}; });
    for (const bool interlaced : {false, true}) {
        for (const int depth : {8, 16}) {
            const auto read = [&](Kind kind) {
                return picture_of(decode(
                    to_png(picture, {.kind = kind, .depth = depth, .interlaced = interlaced})));
            };
            EXPECT_EQ(difference(read(Kind::kRgb), picture), 0);
            EXPECT_EQ(difference(read(Kind::kGray), mapped(picture, gray)), 0);
            EXPECT_EQ(difference(read(Kind::kRgba), mapped(picture, faded)), 0);
            EXPECT_EQ(difference(read(Kind::kGrayAlpha), mapped(mapped(picture, gray), faded)), 0);
        }
        const auto read = [&](Kind kind) {
            return picture_of(decode(to_png(picture, {.kind = kind, .interlaced = interlaced})));
        };
        EXPECT_EQ(difference(read(Kind::kPalette), palette), 0);
        EXPECT_EQ(difference(read(Kind::kPaletteAlpha), mapped(palette, faded)), 0);
    }
}

TEST(DecodeWebp, LosslessAndSeeThrough) {
    const Picture picture = gradient(50, 31);
    EXPECT_EQ(difference(picture_of(decode(to_webp(picture))), picture), 0);
    EXPECT_EQ(difference(picture_of(decode(to_webp(picture, true))), mapped(picture, faded)), 0);
}

TEST(Decode, SizesAreCheckedBeforeAnythingIsAllocated) {
    helper::Limits small = limits();
    small.max_pixels = 1000;
    for (const std::string& file :
         {to_jpeg(gradient(40, 40)), to_png(gradient(40, 40)), to_webp(gradient(40, 40))}) {
        const Decoded d = decode(file, small);
        EXPECT_EQ(d.outcome, Outcome::kTooManyPixels);
        EXPECT_EQ(d.width, 40U);
        EXPECT_EQ(d.pixels, nullptr);
    }
    small = limits();
    small.max_side = 39;
    EXPECT_EQ(decode(to_png(gradient(40, 1)), small).outcome, Outcome::kTooManyPixels);
}

TEST(Decode, EveryPrefixIsRefused) {
    for (const std::string& file :
         {to_jpeg(gradient(33, 17)), to_jpeg(gradient(33, 17), {.progressive = true}),
          to_png(gradient(33, 17), {.interlaced = true}), to_webp(gradient(33, 17))}) {
        // Behind the pixels a PNG has 12 bytes of IEND and a checksum, which nobody needs.
        for (std::size_t n = 0; n + 40 < file.size(); n += 7) {
            EXPECT_NE(decode(file.substr(0, n)).outcome, Outcome::kOk)
                << n << " of " << file.size();
        }
    }
}

TEST(Decode, BytesThatWereFlippedDoNoHarm) {
    unsigned state = 12345;
    const auto random = [&state] { return state = state * 1664525U + 1013904223U; };
    for (const std::string& whole :
         {to_jpeg(gradient(33, 17)), to_jpeg(gradient(33, 17), {.progressive = true}),
          to_png(gradient(33, 17), {.kind = PngStyle::Kind::kRgba, .interlaced = true}),
          to_webp(gradient(33, 17), true)}) {
        for (int i = 0; i < 300; ++i) {
            std::string file = whole;
            for (int k = 0; k < 3; ++k)
                file[random() / 7 % file.size()] = static_cast<char>(random());
            const Decoded d = decode(file);
            if (d.outcome == Outcome::kOk) {
                EXPECT_NE(d.pixels, nullptr);
            }
        }
    }
}

TEST(Decode, ManyScansAreTooComplex) {
    EXPECT_EQ(decode(to_jpeg(gradient(64, 64), {.progressive = true, .scans = 20})).outcome,
              Outcome::kOk);
    EXPECT_EQ(decode(to_jpeg(gradient(64, 64), {.progressive = true, .scans = 2000})).outcome,
              Outcome::kTooComplex);
}

// ---- videos that were cut short, by what they say of their own length

std::string little(std::uint32_t n) {
    std::string out;
    for (int i = 0; i < 4; ++i) out += static_cast<char>(n >> (8 * i) & 0xFFU);
    return out;
}
std::string big(std::uint32_t n) {
    const std::string out = little(n);
    return {out.rbegin(), out.rend()};
}
bool cut_short(const std::string& bytes) {
    return helper::is_cut_short(
        {reinterpret_cast<const std::uint8_t*>(bytes.data()), bytes.size()});
}

TEST(CutShort, Avi) {
    const std::string body = "AVI LIST0123456789";
    const std::string whole = "RIFF" + little(18) + body;
    EXPECT_FALSE(cut_short(whole));
    EXPECT_FALSE(cut_short(whole + "what follows"));
    EXPECT_TRUE(cut_short(whole.substr(0, whole.size() - 1)));
    EXPECT_TRUE(cut_short("RIFF" + little(19) + body));
    EXPECT_FALSE(cut_short("RIFF" + little(0xFFFFFFFF) + body)) << "it does not say";
    // Large files go on in more RIFFs.
    const std::string more = "RIFF" + little(8) + "AVIX0123";
    EXPECT_FALSE(cut_short(whole + more));
    EXPECT_TRUE(cut_short(whole + more.substr(0, 14)));
}

TEST(CutShort, Mp4) {
    const auto box = [](const char* type, const std::string& body) {
        return big(static_cast<std::uint32_t>(8 + body.size())) + type + body;
    };
    const std::string whole =
        box("ftyp", "isom0000") + box("moov", std::string(30, 'm')) + box("mdat", "0123456789");
    EXPECT_FALSE(cut_short(whole));
    EXPECT_TRUE(cut_short(whole.substr(0, whole.size() - 1)));
    EXPECT_TRUE(cut_short(whole.substr(0, 30)));
    EXPECT_FALSE(cut_short(whole + "junk behind it is no box")) << "nor does it matter";
    EXPECT_FALSE(cut_short(box("ftyp", "isom0000") + big(0) + "mdat" + "to the end"));
    const std::string large = box("ftyp", "isom0000") + big(1) + "mdat" + big(0) + big(26);
    EXPECT_FALSE(cut_short(large + std::string(10, 'x')));
    EXPECT_TRUE(cut_short(large + std::string(9, 'x')));
    EXPECT_TRUE(cut_short(box("ftyp", "isom0000") + big(1) + "mdat" + big(0xFFFFFFFF) + big(1)));
    EXPECT_FALSE(cut_short(box("ftyp", "isom0000") + big(7) + "mdat" + "smaller than its head"));
}

TEST(CutShort, Matroska) {
    const std::string head = "\x1A\x45\xDF\xA3\x84webm";
    const std::string segment = "\x18\x53\x80\x67";
    EXPECT_FALSE(cut_short(head + segment + "\x85" + "01234"));
    EXPECT_TRUE(cut_short(head + segment + "\x85" + "0123"));
    EXPECT_TRUE(cut_short(head + segment + "\x40\x06" + "01234"));
    EXPECT_FALSE(cut_short(head + segment + "\xFF" + "a live stream does not say"));
    EXPECT_FALSE(cut_short(head + segment + std::string(1, '\0') + "no size at all"));
    EXPECT_FALSE(cut_short(head + segment));
}

TEST(CutShort, AnythingElse) {
    EXPECT_FALSE(cut_short(""));
    EXPECT_FALSE(cut_short("RIFF"));
    EXPECT_FALSE(cut_short("RIFF" + little(1000) + "WAVE"));
    EXPECT_FALSE(cut_short(std::string(100, '\0')));
}

}  // namespace
}  // namespace stator::media
