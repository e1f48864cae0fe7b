#include "stator/cli/transfer_figures.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "stator/codec/json.h"

namespace stator::cli {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

HandoffSample sample(double claim_s) {
    HandoffSample s;
    s.seconds_to_claim = claim_s;
    s.seconds_to_arrive = 2 * claim_s;
    s.seconds_to_read = 4 * claim_s;
    s.cpu_seconds = 0.5;
    return s;
}

TEST(TransferFigures, AreMediansAndTheLatest) {
    std::vector<HandoffSample> samples;
    for (int ms = 100; ms >= 1; --ms) samples.push_back(sample(ms * 1e-3));
    const auto f = figures_of("tcp", 1'000'000'000, sample(1), samples, 50);
    EXPECT_EQ(f.handoffs, 100U);
    EXPECT_DOUBLE_EQ(f.claim_ms, 50);
    EXPECT_DOUBLE_EQ(f.gb_per_second, 20);
    EXPECT_DOUBLE_EQ(f.gb_per_second_read, 5);
    EXPECT_DOUBLE_EQ(f.arrive_p50_ms, 100);
    EXPECT_DOUBLE_EQ(f.arrive_p99_ms, 198);
    EXPECT_DOUBLE_EQ(f.first_claim_ms, 1000);
    EXPECT_NEAR(f.cpu_consumer_s, 0.5, 1e-9);
    EXPECT_DOUBLE_EQ(f.cpu_producer_s, 0.5);
    EXPECT_EQ(figures_of("shm", 1, sample(1), samples, 0).gb_per_second, 0) << "nothing is moved";
    EXPECT_DOUBLE_EQ(figures_of("tcp", 1, sample(1), {sample(2)}, 0).arrive_p99_ms, 4000);
}

TEST(TransferFigures, MemcpyIsMeasuredForASecondAtMost) {
    const auto f = measure_memcpy(1000, 5);
    EXPECT_EQ(f.handoffs, 5U);
    EXPECT_GT(f.gb_per_second, 0);
    EXPECT_LT(measure_memcpy(32 << 20, 1'000'000).handoffs, 1'000'000U);
}

TEST(TransferFigures, SizesAreWrittenAsPeopleDo) {
    EXPECT_EQ(size_text(1), "1 byte");
    EXPECT_EQ(size_text(147'456), "144 KiB");
    EXPECT_EQ(size_text(64 << 20), "64 MiB");
    EXPECT_EQ(size_text(3ULL << 30), "3 GiB");
    EXPECT_EQ(size_text((1 << 20) + 1), "1,048,577 bytes");
}

TransferResults some_results() {
    TransferResults r;
    r.other = "somewhere";
    TransferFigures copy;
    copy.method = "memcpy";
    copy.bytes = 1 << 20;
    copy.gb_per_second = copy.gb_per_second_read = 12.5;
    r.rows.push_back(copy);
    r.rows.push_back(figures_of("shm", 1 << 20, sample(1), {sample(1e-3)}, 0));
    r.rows.push_back(figures_of("tcp", 64 << 20, sample(1), {sample(1e-2)}, 0));
    r.off["nixl"] = "no library \"here\"";
    return r;
}

TEST(TransferFigures, TheTableHasASectionForEachSizeAndSaysWhatIsOff) {
    auto r = some_results();
    const std::string text = to_table(r);
    EXPECT_THAT(text, HasSubstr("Handoffs from somewhere\n"));
    EXPECT_LT(text.find("1 MiB"), text.find("64 MiB"));
    EXPECT_THAT(text, HasSubstr("mapped"));
    EXPECT_THAT(text, HasSubstr("memcpy"));
    EXPECT_THAT(text, HasSubstr("nixl is off: no library \"here\"\n"));
    EXPECT_THAT(text, Not(HasSubstr("broken off")));
    r.complete = false;
    EXPECT_THAT(to_table(r), HasSubstr("broken off"));
}

TEST(TransferFigures, JsonHasEveryRow) {
    codec::JsonDocument document;
    const auto root = document.parse(to_json(some_results()));
    ASSERT_TRUE(root);
    EXPECT_EQ(root->find("complete").as_bool(), true);
    EXPECT_EQ(root->find("off").find("nixl").as_string(), "no library \"here\"");
    ASSERT_EQ(root->find("rows").size(), 3U);
    root->find("rows").each_element([](std::size_t i, codec::JsonView row) {
        EXPECT_EQ(row.find("gb_per_second").is_null(), i == 1) << "shared memory moves nothing";
        EXPECT_EQ(row.find("arrive_p50_ms").present(), i != 0);
        return true;
    });
}

TEST(HandoffFacts, AreReadAsWritten) {
    const HandoffFacts facts{.cpu_seconds = 1.25,
                             .resident_bytes = 1ULL << 40,
                             .fill = 255,
                             .why_off = {{"nixl", "it is not there"}}};
    const auto read = read_handoff_facts(to_json(facts));
    ASSERT_TRUE(read);
    EXPECT_EQ(read->cpu_seconds, facts.cpu_seconds);
    EXPECT_EQ(read->resident_bytes, facts.resident_bytes);
    EXPECT_EQ(read->fill, facts.fill);
    EXPECT_EQ(read->why_off, facts.why_off);
    for (const char* text : {"", "{}", "[]", R"({"cpu_seconds":1,"resident_bytes":1,"fill":256})",
                             R"({"cpu_seconds":"1","resident_bytes":1,"fill":2})"}) {
        EXPECT_FALSE(read_handoff_facts(text)) << text;
    }
}

}  // namespace
}  // namespace stator::cli
