#include "stator/engine/mock/step_time.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "stator/base/clock.h"
#include "stator/engine/mock/step_time_file.h"

namespace stator::engine::mock {
namespace {

using ::testing::HasSubstr;

double ms(const StepTime& time, const StepShape& shape) { return to_ms(time.of(shape)); }

StepShape prefill(std::uint32_t tokens, std::uint64_t context = 0) {
    StepShape s;
    s.prefill_tokens = tokens;
    s.prefill_context = context;
    return s;
}

StepShape decode(std::uint32_t sequences, std::uint64_t context) {
    StepShape s;
    s.decode_sequences = sequences;
    s.decode_context = context;
    return s;
}

TEST(StepTime, LinearAddsItsParts) {
    const StepTime time(LinearTime{2, 10, 4, 100, 50}, EncoderTime{3, 7});
    StepShape s = prefill(100, 1'000'000);
    s.decode_sequences = 5;
    s.decode_context = 20'000;
    s.images = 2;
    s.image_tokens = 1000;
    EXPECT_DOUBLE_EQ(ms(time, s), 2 + 1 + 4 + 0.5 + 1 + 6 + 7);
}

TEST(StepTime, PolynomialCountsOnlyWhatIsThere) {
    const StepTime time(PolynomialTime{{1, 0.5, 0.01}, {3, 0.001}});
    EXPECT_DOUBLE_EQ(ms(time, prefill(10)), 1 + 5 + 1);
    EXPECT_DOUBLE_EQ(ms(time, decode(2, 4000)), 3 + 4);
}

TEST(StepTime, TableInterpolatesAndHoldsAtTheEdges) {
    const StepTime time(TableTime{{100, 200}, {10, 30}, {1, 3}, {10, 20}, {1, 2, 3, 6}});
    EXPECT_DOUBLE_EQ(ms(time, prefill(150)), 20);
    EXPECT_DOUBLE_EQ(ms(time, prefill(1)), 10);
    EXPECT_DOUBLE_EQ(ms(time, prefill(900)), 30);
    EXPECT_DOUBLE_EQ(ms(time, decode(2, 30)), 3);  // the mean of the four corners
    EXPECT_DOUBLE_EQ(ms(time, decode(9, 9)), 3);
    EXPECT_DOUBLE_EQ(ms(time, decode(3, 3000)), 6);
}

TEST(StepTime, NeverRunsBackwards) {
    EXPECT_DOUBLE_EQ(ms(StepTime(PolynomialTime{{-50}, {}}), prefill(1)), 0);
}

TEST(StepTimeFile, ReadsEachForm) {
    const auto linear = read_step_time("t.yaml",
                                       "form: linear\nbase_ms: 2\nprefill_token_us: 10\n"
                                       "encoder: {image_ms: 3}\n");
    ASSERT_TRUE(linear);
    StepShape s = prefill(100);
    s.images = 1;
    EXPECT_DOUBLE_EQ(ms(*linear, s), 6);
    const auto table = read_step_time("t.yaml",
                                      "form: table\nprefill_tokens: [1, 3]\nprefill_ms: [1, 5]\n"
                                      "decode_sequences: [1]\ndecode_context: [1]\n"
                                      "decode_ms: [7]\n");
    ASSERT_TRUE(table);
    EXPECT_DOUBLE_EQ(ms(*table, prefill(2)), 3);
    EXPECT_TRUE(read_step_time("t.yaml", "form: polynomial\nprefill_ms: [1]\ndecode_ms: [2]"));
}

std::string first_problem(std::string_view text) {
    const auto read = read_step_time("t.yaml", text);
    return read ? "" : read.error().front().text();
}

TEST(StepTime, AnotherEncoderLeavesTheRest) {
    StepTime time(ConstantTime{10});
    time.set_encoder({3, 500});
    EXPECT_DOUBLE_EQ(ms(time, prefill(5)), 10);
    StepShape pictures;
    pictures.images = 2;
    pictures.image_tokens = 4;
    EXPECT_DOUBLE_EQ(ms(time, pictures), 18);
    EXPECT_EQ(time.encoder().image_ms, 3);
}

TEST(StepTimeFile, SaysWhatIsWrongAndWhere) {
    EXPECT_EQ(first_problem("form: cubic\n"),
              "t.yaml:1: form must be constant, linear, polynomial or table.");
    EXPECT_EQ(first_problem("form: linear\nbase_ms: fast\n"),
              "t.yaml:2: base_ms in the step time is \"fast\"; it must be a number from 0 to "
              "3600000.");
    EXPECT_THAT(first_problem("form: linear\nbase: 3\n"),
                HasSubstr("t.yaml:2: There is nothing called \"base\" in the step time; it takes"));
    EXPECT_THAT(first_problem("form: table\nprefill_tokens: [1, 2]\nprefill_ms: [1]\n"),
                HasSubstr("A table needs prefill_ms for each"));
    EXPECT_THAT(first_problem("form: table\nprefill_tokens: [2, 1]\nprefill_ms: [1, 1]\n"
                              "decode_sequences: [1]\ndecode_context: [1]\ndecode_ms: [1]\n"),
                HasSubstr("must ascend"));
    EXPECT_THAT(first_problem("form: [\n"), HasSubstr("This is no YAML"));
    EXPECT_THAT(first_problem("form: linear\nform: linear\n"), HasSubstr("stands here twice"));
}

}  // namespace
}  // namespace stator::engine::mock
