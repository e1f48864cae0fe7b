// What a predictor says of a series, window by window. Reads a value a line from stdin, `-` for a
// missing one; behind each writes a line with, for every horizon asked for, the mean and the
// quantiles of stator/estimate/forecast. Nothing is read ahead of what is written. At its end
// writes to stderr the mean and the largest time of observing and of forecasting, in microseconds.
//
//     bench_forecasts PREDICTOR WINDOW_S counts|values HORIZON… < SERIES

#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <iostream>
#include <string>
#include <vector>

#include "stator/base/clock.h"
#include "stator/estimate/forecast/predictor.h"

int main(int argc, char** argv) {
    if (argc < 5) {
        fmt::print(stderr, "usage: bench_forecasts PREDICTOR WINDOW_S counts|values HORIZON…\n");
        return 2;
    }
    const stator::forecast::PredictorOptions options{
        .window_s = std::atof(argv[2]), .counts = std::string_view(argv[3]) == "counts"};
    auto made = stator::forecast::make_predictor(argv[1], options);
    if (!made) {
        fmt::print(stderr, "{}\n", made.error().message);
        return 2;
    }
    std::vector<int> horizons;
    for (int i = 4; i < argc; ++i) horizons.push_back(std::max(1, std::atoi(argv[i])));

    const auto& clock = stator::Clock::real();
    double sum_us = 0;
    double most_us = 0;
    double windows = 0;
    std::string line;
    std::string out;
    while (std::getline(std::cin, line)) {
        const auto start = clock.now();
        if (line == "-") {
            (*made)->observe_missing();
        } else {
            (*made)->observe(std::strtod(line.c_str(), nullptr));
        }
        std::vector<stator::forecast::Forecast> said;
        for (const int steps : horizons) said.push_back((*made)->forecast(steps));
        const double us = stator::to_ms(clock.now() - start) * 1000;
        sum_us += us;
        most_us = std::max(most_us, us);
        windows += 1;
        out.clear();
        for (const auto& forecast : said) {
            out += fmt::format("{:.9g}", forecast.mean);
            for (const double value : forecast.quantiles) out += fmt::format(" {:.9g}", value);
            out += '\t';
        }
        std::cout << out << '\n';
    }
    fmt::print(stderr, "{:.3f} {:.3f}\n", windows > 0 ? sum_us / windows : 0.0, most_us);
    return 0;
}
