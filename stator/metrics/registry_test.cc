#include "stator/metrics/registry.h"

#include <gtest/gtest.h>

#include <cmath>
#include <latch>
#include <limits>
#include <thread>

namespace stator::metrics {
namespace {

TEST(Registry, RendersCountersAndGaugesSorted) {
    Registry r;
    r.gauge("b_gauge", "A gauge.").set(2.5);
    r.counter("a_total", "Requests.", {{"route", "/z"}}).add(3);
    r.counter("a_total", "Requests.", {{"status", "200"}, {"route", "/a"}}).add();
    EXPECT_EQ(r.render(),
              "# HELP a_total Requests.\n"
              "# TYPE a_total counter\n"
              "a_total{route=\"/a\",status=\"200\"} 1\n"
              "a_total{route=\"/z\"} 3\n"
              "# HELP b_gauge A gauge.\n"
              "# TYPE b_gauge gauge\n"
              "b_gauge 2.5\n");
}

TEST(Registry, SameNameAndLabelsIsTheSameMetric) {
    Registry r;
    Counter& one = r.counter("x_total", "X.", {{"a", "1"}, {"b", "2"}});
    EXPECT_EQ(&one, &r.counter("x_total", "X.", {{"b", "2"}, {"a", "1"}}));
    EXPECT_NE(&one, &r.counter("x_total", "X.", {{"a", "1"}, {"b", "3"}}));
    EXPECT_NE(&one, &r.counter("x_total", "X."));
    // A quote in a value can't make two series look like one.
    EXPECT_NE(&r.counter("x_total", "X.", {{"a", "1\",b=\"2"}}), &one);
}

TEST(Registry, EscapesHelpAndLabelValues) {
    Registry r;
    r.gauge("g", "Back\\slash,\nnew line and \"quotes\".", {{"path", "C:\\x\n\"y\""}}).set(1);
    EXPECT_EQ(r.render(),
              "# HELP g Back\\\\slash,\\nnew line and \"quotes\".\n"
              "# TYPE g gauge\n"
              "g{path=\"C:\\\\x\\n\\\"y\\\"\"} 1\n");
}

TEST(Registry, SpecialNumbers) {
    Registry r;
    Gauge& g = r.gauge("g", "G.");
    const auto shown = [&](double v) {
        g.set(v);
        const std::string text = r.render();
        const std::size_t at = text.rfind("g ") + 2;
        return text.substr(at, text.size() - 1 - at);
    };
    EXPECT_EQ(shown(std::numeric_limits<double>::infinity()), "+Inf");
    EXPECT_EQ(shown(-std::numeric_limits<double>::infinity()), "-Inf");
    EXPECT_EQ(shown(std::nan("")), "NaN");
    EXPECT_EQ(shown(1e21), "1e+21");
    EXPECT_EQ(shown(0.1), "0.1");
    EXPECT_EQ(shown(-3), "-3");
    r.counter("c_total", "C.").add(std::numeric_limits<std::uint64_t>::max());
    EXPECT_NE(r.render().find("c_total 18446744073709551615\n"), std::string::npos);
}

TEST(Registry, HistogramBucketsAreCumulativeAndBoundsInclusive) {
    Registry r;
    Histogram& h = r.histogram("t_seconds", "T.", {0.5, 1, 10}, {{"route", "/a"}});
    for (const double v : {0.1, 0.5, 0.6, 10.0, 11.0, -1.0}) h.observe(v);
    h.observe(std::nan(""));
    EXPECT_EQ(h.count(), 6U);
    EXPECT_EQ(h.cumulative(0), 3U);
    EXPECT_EQ(h.cumulative(1), 4U);
    EXPECT_EQ(h.cumulative(2), 5U);
    EXPECT_EQ(h.cumulative(3), 6U);
    EXPECT_EQ(h.in_bucket(3), 1U);
    EXPECT_EQ(&h, &r.histogram("t_seconds", "T.", {0.5, 1, 10}, {{"route", "/a"}}));
    EXPECT_EQ(r.render(),
              "# HELP t_seconds T.\n"
              "# TYPE t_seconds histogram\n"
              "t_seconds_bucket{route=\"/a\",le=\"0.5\"} 3\n"
              "t_seconds_bucket{route=\"/a\",le=\"1\"} 4\n"
              "t_seconds_bucket{route=\"/a\",le=\"10\"} 5\n"
              "t_seconds_bucket{route=\"/a\",le=\"+Inf\"} 6\n"
              "t_seconds_sum{route=\"/a\"} 21.2\n"
              "t_seconds_count{route=\"/a\"} 6\n");
}

TEST(Registry, HistogramWithoutLabelsOrBounds) {
    Registry r;
    r.histogram("t", "T.", {}).observe(1);
    EXPECT_EQ(r.render(),
              "# HELP t T.\n# TYPE t histogram\nt_bucket{le=\"+Inf\"} 1\nt_sum 1\nt_count 1\n");
}

TEST(Registry, CallbacksAreAskedAtRendering) {
    Registry r;
    double value = 1;
    r.callback("depth", "Depth.", false, [&] { return value; });
    r.callback("seen_total", "Seen.", true, [&] { return value * 10; }, {{"of", "x"}});
    value = 4;
    EXPECT_EQ(r.render(),
              "# HELP depth Depth.\n# TYPE depth gauge\ndepth 4\n"
              "# HELP seen_total Seen.\n# TYPE seen_total counter\nseen_total{of=\"x\"} 40\n");
    r.callback("depth", "Depth.", false, [] { return -1.0; });
    EXPECT_NE(r.render().find("depth -1\n"), std::string::npos);
}

TEST(Registry, ExponentialBounds) {
    EXPECT_EQ(exponential_bounds(0.5, 2, 4), (std::vector<double>{0.5, 1, 2, 4}));
    EXPECT_TRUE(exponential_bounds(1, 2, 0).empty());
}

/// Runs under ThreadSanitizer too: updates, registration and rendering at once.
TEST(Registry, ConcurrentUpdatesLoseNothing) {
    constexpr int kThreads = 4;
    constexpr int kRounds = 5000;
    Registry r;
    Histogram& h = r.histogram("h", "H.", {1, 2, 3});
    Gauge& g = r.gauge("g", "G.");
    std::latch start(kThreads + 1);
    std::vector<std::jthread> threads;
    for (int t = 0; t < kThreads; ++t) {
        threads.emplace_back([&, t] {
            start.arrive_and_wait();
            for (int i = 0; i < kRounds; ++i) {
                r.counter("c_total", "C.", {{"thread", std::to_string(i % 8)}}).add();
                g.add(t % 2 == 0 ? 2 : -1);
                h.observe(i % 5);
            }
        });
    }
    start.arrive_and_wait();
    for (int i = 0; i < 50; ++i) {
        const std::string text = r.render();
        const auto value_of = [&](std::string_view line) {
            const std::size_t at = text.find(line);
            return at == std::string::npos
                       ? std::string("none")
                       : text.substr(at + line.size(), text.find('\n', at) - at - line.size());
        };
        EXPECT_EQ(value_of("h_bucket{le=\"+Inf\"} "), value_of("h_count "));
    }
    threads.clear();  // joins
    std::uint64_t counted = 0;
    for (int i = 0; i < 8; ++i) {
        counted += r.counter("c_total", "C.", {{"thread", std::to_string(i)}}).value();
    }
    EXPECT_EQ(counted, std::uint64_t{kThreads} * kRounds);
    EXPECT_EQ(h.count(), std::uint64_t{kThreads} * kRounds);
    EXPECT_EQ(h.sum(), kThreads * kRounds * 2.0);
    EXPECT_EQ(g.value(), kRounds * (2 * 2.0 - 2 * 1.0));
}

TEST(RegistryDeathTest, ProgrammingErrorsAreCaught) {
    GTEST_FLAG_SET(death_test_style, "threadsafe");
    Registry r;
    r.counter("c_total", "C.");
    r.histogram("h", "H.", {1, 2}, {{"a", "1"}});
    EXPECT_DEATH(r.gauge("c_total", "C."), "another kind");
    EXPECT_DEATH(r.counter("c_total", "Other."), "other help");
    EXPECT_DEATH(r.counter("1x", "X."), "name must match");
    EXPECT_DEATH(r.counter("", "X."), "name must match");
    EXPECT_DEATH(r.counter("x", "X.", {{"a-b", "1"}}), "label's name");
    EXPECT_DEATH(r.counter("x", "X.", {{"a", "1"}, {"a", "2"}}), "given twice");
    EXPECT_DEATH(r.histogram("h2", "H.", {1}, {{"le", "1"}}), "le belongs");
    EXPECT_DEATH(r.histogram("h", "H.", {1, 3}, {{"a", "2"}}), "other bounds");
    EXPECT_DEATH(Histogram({2, 1}), "must ascend");
    EXPECT_DEATH(Histogram({1, std::numeric_limits<double>::infinity()}), "finite");
}

}  // namespace
}  // namespace stator::metrics
