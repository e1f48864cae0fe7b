#include "stator/report/knee.h"

#include <gmock/gmock.h>
#include <rapidcheck.h>

#include <cmath>
#include <random>

namespace stator::report {
namespace {

template <typename Server>
KneeResult search(const KneeOptions& options, Server met) {
    KneeSearch search(options);
    while (const auto rate = search.next()) search.tell(*rate, met(*rate));
    return search.result();
}

KneeOptions wide() {
    KneeOptions options;
    options.max_runs = 60;
    return options;
}

/// A knee anywhere from 0.05 to 20,000 requests/s, evenly on a logarithmic scale.
double some_knee() { return std::pow(10.0, *rc::gen::inRange(-130, 430) / 100.0); }

TEST(Knee, FindsTheKneeOfAServerThatIsSure) {
    EXPECT_TRUE(rc::check([] {
        const double knee = some_knee();
        KneeOptions options = wide();
        options.start_rate = std::pow(10.0, *rc::gen::inRange(-100, 300) / 100.0);
        const KneeResult result = search(options, [knee](double rate) { return rate <= knee; });
        RC_ASSERT(result.end == KneeEnd::kConverged);
        RC_ASSERT(*result.met <= knee);
        RC_ASSERT(*result.unmet > knee);
        RC_ASSERT(*result.unmet - *result.met <= options.tolerance * *result.unmet);
        // Steps to bracket it, five halvings of a factor of 2, two re-checks.
        const double steps = std::abs(std::log2(knee / options.start_rate));
        RC_ASSERT(static_cast<double>(result.runs.size()) <= steps + 10);
    }));
}

TEST(Knee, OneWrongVerdictAnywhereChangesNothing) {
    EXPECT_TRUE(rc::check([] {
        const double knee = some_knee();
        const int wrong = *rc::gen::inRange(0, 25);
        int run = 0;
        const KneeResult result =
            search(wide(), [&](double rate) { return (rate <= knee) != (run++ == wrong); });
        RC_ASSERT(result.end == KneeEnd::kConverged);
        RC_ASSERT(*result.met <= knee);
        RC_ASSERT(*result.unmet > knee);
    }));
}

TEST(Knee, ComesCloseWhereVerdictsNearTheKneeAreNoise) {
    std::mt19937_64 engine(3);
    int close = 0;
    constexpr int kTrials = 500;
    for (int trial = 0; trial < kTrials; ++trial) {
        constexpr double kKnee = 17.3;
        const KneeResult result = search({}, [&](double rate) {
            // One in nine wrong at 10 % from the knee.
            const double meets = 1 / (1 + std::pow(rate / kKnee, 22));
            return static_cast<double>(engine() >> 11) * 0x1p-53 < meets;
        });
        if (result.met && std::abs(*result.met / kKnee - 1) < 0.15) ++close;
    }
    EXPECT_GE(close, kTrials * 95 / 100);
}

TEST(Knee, SaysWhereThereIsNone) {
    KneeOptions options = wide();
    options.max_rate = 100;
    options.min_rate = 0.5;
    const KneeResult all = search(options, [](double) { return true; });
    EXPECT_EQ(all.end, KneeEnd::kAllMet);
    EXPECT_EQ(all.met, 100);
    EXPECT_FALSE(all.unmet.has_value());
    const KneeResult none = search(options, [](double) { return false; });
    EXPECT_EQ(none.end, KneeEnd::kNoneMet);
    EXPECT_FALSE(none.met.has_value());
    EXPECT_EQ(none.unmet, 0.5);
}

TEST(Knee, NeverRunsMoreThanAllowedWhateverTheVerdicts) {
    EXPECT_TRUE(rc::check([] {
        KneeOptions options;
        options.max_runs = *rc::gen::inRange<std::size_t>(0, 30);
        options.start_rate = *rc::gen::inRange(-5, 1000);
        options.growth = *rc::gen::inRange(-1, 5);
        const auto verdicts =
            *rc::gen::container<std::vector<bool>>(30, rc::gen::arbitrary<bool>());
        std::size_t run = 0;
        const KneeResult result = search(options, [&](double rate) {
            RC_ASSERT(rate >= options.min_rate && rate <= options.max_rate);
            return verdicts[run++];
        });
        RC_ASSERT(result.runs.size() <= options.max_runs);
        RC_ASSERT(result.end != KneeEnd::kSearching);
        RC_ASSERT(!result.met || !result.unmet || *result.met < *result.unmet);
    }));
}

TEST(Knee, TakesRunsMadeBefore) {
    KneeSearch search({});
    search.tell(16, true);
    search.tell(32, false);
    ASSERT_TRUE(search.next().has_value());
    EXPECT_NEAR(*search.next(), 22.63, 0.01);
    EXPECT_EQ(search.next(), search.next());
    EXPECT_EQ(search.result().runs.size(), 2u);
}

}  // namespace
}  // namespace stator::report
