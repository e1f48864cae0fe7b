#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <set>
#include <sstream>

#include "stator/workload/content.h"
#include "stator/workload/options.h"

namespace stator::workload {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::vector<RequestSpec> all_of(const WorkloadOptions& o, std::string_view trace = {},
                                std::uint64_t seed = 1) {
    auto made = make_workload(o, trace, seed);
    EXPECT_TRUE(made) << made.error().message;
    std::vector<RequestSpec> requests;
    if (!made) return requests;
    while (auto r = (*made)->next()) requests.push_back(std::move(*r));
    for (std::size_t i = 0; i < requests.size(); ++i) EXPECT_EQ(requests[i].index, i);
    return requests;
}

std::string why_not(const WorkloadOptions& o, std::string_view trace = {}) {
    auto made = make_workload(o, trace, 1);
    return made ? "" : made.error().message;
}

WorkloadOptions with(std::initializer_list<std::pair<std::string_view, std::string_view>> set) {
    WorkloadOptions o;
    for (const auto& [name, text] : set) {
        const auto ok = set_option(o, name, text);
        EXPECT_TRUE(ok) << ok.error().message;
    }
    return o;
}

TEST(Workload, SameSeedSameRequests) {
    for (const char* kind : {"fixed", "shared-prefix", "chat", "agent"}) {
        const auto o = with({{"kind", kind},
                             {"requests", "50"},
                             {"isl-cv", "0.5"},
                             {"isl", "600"},
                             {"images", "1"},
                             {"adapters", "3"}});
        EXPECT_EQ(all_of(o), all_of(o)) << kind;
        EXPECT_NE(all_of(o), all_of(o, {}, 2)) << kind;
        EXPECT_EQ(all_of(o).size(), 50U);
    }
}

TEST(Workload, ArrivalsHaveTheirRateAndSpread) {
    for (const auto& [kind, cv] : {std::pair{"constant", 0.0}, {"poisson", 1.0}, {"gamma", 3.0}}) {
        const auto requests =
            all_of(with({{"arrivals", kind}, {"rate", "50"}, {"cv", "3"}, {"requests", "20000"}}));
        double sum = 0;
        double squares = 0;
        double last = 0;
        for (const RequestSpec& r : requests) {
            const double at = static_cast<double>(r.start.count()) * 1e-9;
            sum += at - last;
            squares += (at - last) * (at - last);
            last = at;
        }
        const double n = static_cast<double>(requests.size());
        const double mean = sum / n;
        EXPECT_NEAR(mean, 0.02, 0.002) << kind;
        EXPECT_NEAR(std::sqrt(std::max(0.0, squares / n - mean * mean)) / mean, cv, 0.15) << kind;
    }
}

TEST(Workload, RateGoesFromOneToTheOther) {
    const auto requests =
        all_of(with({{"rate", "10"}, {"rate-end", "30"}, {"duration", "1000s"}, {"isl", "1"}}));
    const auto half = std::ranges::count_if(
        requests, [](const RequestSpec& r) { return r.start < std::chrono::seconds(500); });
    EXPECT_NEAR(static_cast<double>(requests.size()), 20'000, 600);
    EXPECT_NEAR(static_cast<double>(half), 7'500, 400);
}

TEST(Workload, LengthsHaveTheirMeanAndSpread) {
    const auto requests =
        all_of(with({{"requests", "20000"}, {"isl", "200"}, {"isl-cv", "0.5"}, {"osl", "80"}}));
    double sum = 0;
    double squares = 0;
    for (const RequestSpec& r : requests) {
        const auto n = static_cast<double>(r.prompt_tokens());
        sum += n;
        squares += n * n;
        EXPECT_EQ(r.output_tokens, 80U);
    }
    const double mean = sum / 20'000;
    EXPECT_NEAR(mean, 200, 5);
    EXPECT_NEAR(std::sqrt(squares / 20'000 - mean * mean) / mean, 0.5, 0.03);
}

TEST(Workload, GroupsShareTheirPrefix) {
    const auto requests = all_of(with({{"kind", "shared-prefix"},
                                       {"groups", "3"},
                                       {"isl", "100"},
                                       {"prefix", "60"},
                                       {"requests", "300"},
                                       {"zipf", "1"}}));
    std::map<std::uint64_t, int> groups;
    std::set<std::uint64_t> own;
    for (const RequestSpec& r : requests) {
        ASSERT_EQ(r.prompt.size(), 2U);
        EXPECT_EQ(r.prompt[0].tokens, 60U);
        EXPECT_EQ(r.prompt[1].tokens, 40U);
        ++groups[r.prompt[0].content];
        EXPECT_TRUE(own.insert(r.prompt[1].content).second);
    }
    ASSERT_EQ(groups.size(), 3U);
    std::vector<int> counts;
    for (auto& [content, n] : groups) counts.push_back(n);
    std::ranges::sort(counts);
    EXPECT_NEAR(counts[2], 300 / (1 + 0.5 + 1.0 / 3), 30);
    EXPECT_NEAR(counts[0], 100 / (1 + 0.5 + 1.0 / 3), 25);
}

TEST(Workload, ChatTurnsRepeatWhatWasSaid) {
    const auto requests = all_of(with({{"kind", "chat"},
                                       {"turns", "3"},
                                       {"requests", "6"},
                                       {"isl", "50"},
                                       {"osl", "20"},
                                       {"system", "100"}}));
    ASSERT_EQ(requests.size(), 6U);
    const RequestSpec& third = requests[2];
    EXPECT_EQ(third.after, 1U);
    EXPECT_EQ(third.session, requests[0].session);
    ASSERT_EQ(third.prompt.size(), 6U);  // system, user, answer, user, answer, user
    EXPECT_EQ(third.prompt[2].output_of, 0U);
    EXPECT_EQ(third.prompt[4].output_of, 1U);
    EXPECT_EQ(third.prompt_tokens(), 100U + 3 * 50 + 2 * 20);
    EXPECT_TRUE(
        std::equal(requests[1].prompt.begin(), requests[1].prompt.end(), third.prompt.begin()));
    EXPECT_FALSE(requests[3].after);
    EXPECT_NE(requests[3].session, third.session);
}

TEST(Workload, AgentsSendBurstsOverWhatTheyKnow) {
    const auto requests = all_of(with({{"kind", "agent"},
                                       {"turns", "2"},
                                       {"calls", "3"},
                                       {"requests", "6"},
                                       {"isl", "10"},
                                       {"system", "200"}}));
    EXPECT_EQ(requests[0].start, requests[2].start);
    EXPECT_FALSE(requests[2].after);
    for (std::size_t i = 3; i < 6; ++i) {
        EXPECT_EQ(requests[i].after, 2U);
        ASSERT_EQ(requests[i].prompt.size(), 5U);  // context, three results, its own
        EXPECT_EQ(requests[i].prompt[1].output_of, 0U);
        EXPECT_EQ(requests[i].prompt[3].output_of, 2U);
    }
}

TEST(Workload, ImagesComeFromAPool) {
    const auto requests = all_of(with({{"requests", "400"},
                                       {"images", "2"},
                                       {"image-pool", "5"},
                                       {"image-share", "0.5"},
                                       {"image-size", "64"}}));
    std::set<std::uint64_t> contents;
    int with_images = 0;
    for (const RequestSpec& r : requests) {
        with_images += r.images.empty() ? 0 : 1;
        for (const ImageSpec& image : r.images) contents.insert(image.content);
    }
    EXPECT_EQ(contents.size(), 5U);
    EXPECT_NEAR(with_images, 200, 40);
}

constexpr std::string_view kMooncakeLines =
    "{\"timestamp\": 1000, \"input_length\": 600, \"output_length\": 5, \"hash_ids\": [0, 7]}\n"
    "{\"timestamp\": 3000, \"input_length\": 512, \"output_length\": 9, \"hash_ids\": [0]}\n";

TEST(Workload, MooncakeBlocksBecomeSegments) {
    auto o = with({{"kind", "mooncake"}, {"speed", "2"}});
    const auto requests = all_of(o, kMooncakeLines);
    ASSERT_EQ(requests.size(), 2U);
    EXPECT_EQ(requests[0].start, std::chrono::seconds(0));
    EXPECT_EQ(requests[1].start, std::chrono::seconds(1));
    ASSERT_EQ(requests[0].prompt.size(), 2U);
    EXPECT_EQ(requests[0].prompt[0], requests[1].prompt[0]);
    EXPECT_EQ(requests[0].prompt[1].tokens, 88U);
    EXPECT_EQ(requests[1].output_tokens, 9U);
    o.max_isl = 550;
    EXPECT_EQ(all_of(o, kMooncakeLines).size(), 1U);
    o.max_isl = 0;
    o.skip = 1;
    o.osl = 3;
    EXPECT_EQ(all_of(o, kMooncakeLines).front().output_tokens, 3U);
    o.arrivals = Arrivals::kConstant;
    o.rate = 4;
    EXPECT_EQ(all_of(o, kMooncakeLines).front().start, std::chrono::milliseconds(250));
}

TEST(Workload, EqualTimesOfATraceAreSpreadIfWished) {
    std::string trace;
    for (const char* at : {"1000", "1000", "1000", "1000", "3000", "3000"}) {
        trace += std::string("{\"timestamp\": ") + at +
                 ", \"input_length\": 5, \"output_length\": 1, \"hash_ids\": [1]}\n";
    }
    const auto starts =
        [&](std::initializer_list<std::pair<std::string_view, std::string_view>> set) {
            std::vector<std::int64_t> ms;
            for (const auto& r : all_of(with(set), trace))
                ms.push_back(r.start.count() / 1'000'000);
            return ms;
        };
    EXPECT_THAT(starts({{"kind", "mooncake"}}), ElementsAre(0, 0, 0, 0, 2000, 2000));
    EXPECT_THAT(starts({{"kind", "mooncake"}, {"spread-ties", "true"}}),
                ElementsAre(0, 500, 1000, 1500, 2000, 3000));
    EXPECT_THAT(
        starts({{"kind", "mooncake"}, {"spread-ties", "true"}, {"speed", "2"}, {"skip", "1"}}),
        ElementsAre(0, 250, 500, 750, 1250));
}

TEST(Workload, BadLinesAreNamedAndMayBeSkipped) {
    auto o = with({{"kind", "mooncake"}});
    const auto bad = [&](std::string_view line) {
        return why_not(o, std::string(kMooncakeLines) + std::string(line) + "\n");
    };
    EXPECT_THAT(bad("{"), HasSubstr("line 3 of the trace: "));
    EXPECT_EQ(bad("7"), "line 3 of the trace: it must be a JSON object");
    EXPECT_EQ(bad(R"({"timestamp": 1, "output_length": 1, "hash_ids": []})"),
              "line 3 of the trace: input_length is missing");
    EXPECT_EQ(bad(R"({"timestamp": 1, "input_length": 0, "output_length": 1, "hash_ids": []})"),
              "line 3 of the trace: input_length must be a whole number from 1 to 10000000");
    EXPECT_EQ(bad(R"({"timestamp": 1, "input_length": 513, "output_length": 1, "hash_ids": [4]})"),
              "line 3 of the trace: hash_ids must be a list with an id for each 512 tokens: 2 ids "
              "for 513 tokens, there are 1");
    EXPECT_EQ(bad(R"({"timestamp": "x", "input_length": 5, "output_length": 1, "hash_ids": [4]})"),
              "line 3 of the trace: timestamp must be a number of milliseconds");
    o.skip_bad = true;
    SkippedLines skipped;
    auto made = make_workload(o, std::string(kMooncakeLines) + "{\n7\n", 1, &skipped);
    ASSERT_TRUE(made);
    EXPECT_EQ(skipped.count, 2U);
    EXPECT_THAT(skipped.first, HasSubstr("line 3"));
}

TEST(Workload, ImpossibleSpansAreRefused) {
    EXPECT_THAT(why_not(with({{"kind", "azure"}}),
                        "TIMESTAMP,ContextTokens,GeneratedTokens\n"
                        "4046-11-16 23:59:59.5,4808,10\n"
                        "2023-11-17 00:00:01.25,3180,8\n"),
                HasSubstr("some of its times must be wrong"));
    // A year at a millionth of the speed is longer than nanoseconds can count.
    const auto slow =
        all_of(with({{"kind", "mooncake"}, {"speed", "0.000001"}}),
               R"({"timestamp": 0, "input_length": 1, "output_length": 1, "hash_ids": [1]})"
               "\n"
               R"({"timestamp": 3e10, "input_length": 1, "output_length": 1, "hash_ids": [1]})");
    ASSERT_EQ(slow.size(), 2U);
    EXPECT_GT(slow[1].start, slow[0].start);
}

TEST(Workload, AzureTimesAreRead) {
    const auto o = with({{"kind", "azure"}});
    const auto requests = all_of(o,
                                 "TIMESTAMP,ContextTokens,GeneratedTokens\r\n"
                                 "2023-11-16 23:59:59.5000000,4808,10\r\n"
                                 "2023-11-17 00:00:01.2500000,3180,8\r\n");
    ASSERT_EQ(requests.size(), 2U);
    EXPECT_EQ(requests[1].start, std::chrono::milliseconds(1750));
    EXPECT_EQ(requests[0].prompt_tokens(), 4808U);
    EXPECT_EQ(requests[1].output_tokens, 8U);
    EXPECT_EQ(why_not(o, "2023-11-16 23:59:59,1\n"),
              "line 1 of the trace: it must have three fields: "
              "TIMESTAMP,ContextTokens,GeneratedTokens");
    EXPECT_EQ(why_not(o, "2023-13-16 23:59:59,1,1\n"),
              "line 1 of the trace: \"2023-13-16 23:59:59\" is no time such as 2023-11-16 "
              "18:17:03.9799600");
    EXPECT_EQ(why_not(o, "2023-11-16 23:59:59,1,-1\n"),
              "line 1 of the trace: \"-1\" is no number of tokens from 1 to 10000000");
}

TEST(Workload, PromptsAreSentAsTheyAre) {
    const auto o = with({{"kind", "prompts"}, {"rate", "10"}});
    const auto requests = all_of(o,
                                 "Hello there\n{\"prompt\": \"a\\nb\", \"output_tokens\": 7}\n"
                                 "{\"messages\": [{\"role\": \"user\", \"content\": \"x\"}]}\n");
    ASSERT_EQ(requests.size(), 3U);
    EXPECT_EQ(requests[0].text, "Hello there");
    EXPECT_EQ(requests[0].output_tokens, 100U);
    EXPECT_EQ(requests[1].text, "a\nb");
    EXPECT_EQ(requests[1].output_tokens, 7U);
    EXPECT_EQ(requests[2].messages, R"([{"role":"user","content":"x"}])");
    EXPECT_THAT(why_not(o, "{\"x\": 1}\n"), HasSubstr("must have \"prompt\""));
}

TEST(Workload, OptionsThatDoNotGoTogetherAreRefused) {
    EXPECT_EQ(why_not({}), "the run has no end: give requests or duration");
    EXPECT_THAT(why_not(with({{"arrivals", "trace"}, {"requests", "1"}})), HasSubstr("poisson"));
    EXPECT_THAT(
        why_not(
            with({{"kind", "shared-prefix"}, {"isl", "10"}, {"prefix", "10"}, {"requests", "1"}})),
        HasSubstr("leaves nothing"));
    EXPECT_THAT(why_not(with({{"kind", "azure"}})), HasSubstr("needs the text of a trace"));
    WorkloadOptions o;
    EXPECT_EQ(set_option(o, "isl", "many").error().message,
              "isl is \"many\"; it must be a whole number from 1 to 10000000");
    EXPECT_EQ(set_option(o, "kind", "random").error().message,
              "kind is \"random\"; it must be one of fixed, shared-prefix, chat, agent, mooncake, "
              "azure, prompts");
    EXPECT_EQ(set_option(o, "isll", "1").error().message,
              "there is no option \"isll\" of a workload. Did you mean isl?");
}

TEST(WorkloadContent, SegmentsAreAFunctionOfContentAndPosition) {
    std::vector<tokens::TokenId> longer;
    std::vector<tokens::TokenId> shorter;
    append_tokens(longer, {42, 100, std::nullopt}, {});
    append_tokens(shorter, {42, 37, std::nullopt}, {});
    EXPECT_TRUE(std::equal(shorter.begin(), shorter.end(), longer.begin()));
    for (const tokens::TokenId t : longer) {
        EXPECT_GE(t, 33U);
        EXPECT_LE(t, 126U);
    }
    std::vector<tokens::TokenId> other;
    append_tokens(other, {43, 100, std::nullopt}, {});
    EXPECT_NE(longer, other);
    std::string words;
    std::string fewer;
    append_words(words, 42, 30);
    append_words(fewer, 42, 11);
    EXPECT_EQ(std::ranges::count(words, ' '), 30);
    EXPECT_TRUE(words.starts_with(fewer));
}

TEST(WorkloadContent, PicturesAreWholePngs) {
    const std::string png = make_png({7, 300, 250});
    EXPECT_TRUE(png.starts_with("\x89PNG"));
    EXPECT_TRUE(png.ends_with("IEND\xae\x42\x60\x82"));
    EXPECT_NE(png, make_png({8, 300, 250}));
    if (const char* folder = std::getenv("STATOR_TEST_PNG")) {
        std::ofstream(folder) << png;
    }
}

std::string data_file(const char* name) {
    const char* folder = std::getenv("STATOR_DATA");
    if (folder == nullptr) return {};
    std::ifstream in(std::filesystem::path(folder) / name);
    std::stringstream text;
    text << in.rdbuf();
    return text.str();
}

TEST(WorkloadTraces, TheConversationTraceIsRead) {
    const std::string text = data_file("mooncake_conversation.jsonl");
    if (text.empty()) GTEST_SKIP() << "STATOR_DATA does not name a folder with the trace";
    const auto requests = all_of(with({{"kind", "mooncake"}}), text);
    ASSERT_EQ(requests.size(), 12'031U);
    std::uint64_t input = 0;
    std::uint64_t output = 0;
    std::set<std::uint64_t> blocks;
    for (const RequestSpec& r : requests) {
        input += r.prompt_tokens();
        output += r.output_tokens;
        for (const Segment& s : r.prompt) blocks.insert(s.content);
    }
    EXPECT_EQ(input / requests.size(), 12'035U);
    EXPECT_EQ(output / requests.size(), 342U);
    EXPECT_EQ(blocks.size(), 182'790U);
}

TEST(WorkloadTraces, TheAzureTraceIsRead) {
    const std::string text = data_file("azure_llm_2023_code.csv");
    if (text.empty()) GTEST_SKIP() << "STATOR_DATA does not name a folder with the trace";
    EXPECT_EQ(all_of(with({{"kind", "azure"}}), text).size(), 8'819U);
}

}  // namespace
}  // namespace stator::workload
