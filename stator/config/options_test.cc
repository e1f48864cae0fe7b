#include "stator/config/options.h"

#include <gtest/gtest.h>

#include <set>
#include <string>

#include "stator/config/value.h"

namespace stator::config {
namespace {

TEST(Options, NamesAreUniqueAndWellFormed) {
    std::set<std::string> keys;
    std::set<std::string> flags;
    for (const Option& o : options()) {
        EXPECT_TRUE(keys.emplace(o.key).second) << o.key;
        EXPECT_TRUE(flags.emplace(o.flag).second) << o.flag;
        EXPECT_TRUE(o.flag.starts_with("--")) << o.flag;
        EXPECT_EQ(o.flag.find_first_not_of("abcdefghijklmnopqrstuvwxyz-"), std::string::npos)
            << o.flag;
        EXPECT_EQ(o.key.find_first_not_of("abcdefghijklmnopqrstuvwxyz._"), std::string::npos)
            << o.key;
        EXPECT_FALSE(o.flag.starts_with("--no-")) << "would clash with the denial of a flag";
    }
}

TEST(Options, EveryOneBelongsToASectionAndEverySectionHasSome) {
    std::set<std::string> used;
    for (const Option& o : options()) used.emplace(o.section());
    std::set<std::string> listed;
    for (const Section& s : sections()) listed.emplace(s.name);
    EXPECT_EQ(used, listed);
}

TEST(Options, MeaningsAreSentences) {
    for (const Option& o : options()) {
        ASSERT_FALSE(o.meaning.empty()) << o.key;
        EXPECT_EQ(o.meaning.back(), '.') << o.key;
    }
}

TEST(Options, DefaultsLieInTheirRangesAndSurviveWritingAndReading) {
    for (const Option& o : options()) {
        const Value value = o.get(Settings{});
        if (std::holds_alternative<std::monostate>(value)) {
            EXPECT_FALSE(o.unset_means.empty()) << o.key;
            continue;
        }
        const std::string text = format_value(o, value);
        const auto again = parse_value(o, text);
        ASSERT_TRUE(again.has_value()) << o.key << ": " << again.error().message;
        EXPECT_EQ(*again, value) << o.key << ": " << text;
    }
}

/// Some value other than the default, in range.
Value other_value(const Option& o) {
    switch (o.type) {
        case OptionType::kBool:
            return !std::get<bool>(o.get(Settings{}));
        case OptionType::kInt:
            return static_cast<std::int64_t>(o.min) + 5;
        case OptionType::kFloat:
            return 0.375;
        case OptionType::kString:
            return std::string("something else");
        case OptionType::kDuration:
            return std::chrono::milliseconds(static_cast<int>(o.min) + 17);
        case OptionType::kBytes:
            return ByteSize{static_cast<std::uint64_t>(o.min) + 1};
        case OptionType::kChoice:
            return Choice{1};
        case OptionType::kList:
            if (o.check != nullptr)
                return std::vector<std::string>{"vllm=http://a", "trtllm=http://b"};
            return std::vector<std::string>{"a", "b"};
    }
    return {};
}

// A copied line in the table that names the wrong member would set one option and change another.
TEST(Options, EachOneSetsItsOwnMemberAndNoOther) {
    for (const Option& o : options()) {
        Settings settings;
        Value value = other_value(o);
        if (value == o.get(settings)) value = Choice{0};
        o.set(settings, value);
        EXPECT_EQ(o.get(settings), value) << o.key;
        for (const Option& p : options()) {
            if (&p == &o) continue;
            EXPECT_EQ(p.get(settings), p.get(Settings{})) << o.key << " changed " << p.key;
        }
    }
}

TEST(Options, EnvironmentNameFollowsTheFlag) {
    EXPECT_EQ(find_option("server.port")->environment(), "STATOR_PORT");
    EXPECT_EQ(find_option("log.level")->environment(), "STATOR_LOG_LEVEL");
    EXPECT_EQ(find_option("server.port")->section(), "server");
}

TEST(Options, AreFoundByKey) {
    EXPECT_EQ(find_option("server.prot"), nullptr);
    EXPECT_EQ(find_option(""), nullptr);
    for (const Option& o : options()) {
        EXPECT_EQ(find_option(o.key), &o);
        EXPECT_EQ(&options()[index_of(o)], &o);
    }
}

}  // namespace
}  // namespace stator::config
