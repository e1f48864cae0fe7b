#include "stator/workload/draws.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "stator/workload/content.h"

namespace stator::workload {
namespace {

/// Beyond this many groups the tail is drawn evenly: their shares hardly differ any more.
constexpr std::size_t kMostPopularities = 1'000'000;

enum Content : std::uint64_t { kFresh = 1, kImage = 2 };

}  // namespace

Draws::Draws(const WorkloadOptions& options, std::uint64_t seed)
    : options_(options), seed_(seed), random_(seed ^ 0x5bd1e995U) {
    if (options_.zipf > 0) {
        double sum = 0;
        const std::size_t n = std::min<std::size_t>(options_.groups, kMostPopularities);
        for (std::size_t k = 1; k <= n; ++k) {
            sum += std::pow(static_cast<double>(k), -options_.zipf);
            popularity_.push_back(sum);
        }
    }
}

std::uint32_t Draws::length(std::uint32_t mean, double cv) {
    if (cv <= 0) return mean;
    const double variance = std::log1p(cv * cv);
    std::lognormal_distribution<double> draw(std::log(static_cast<double>(mean)) - variance / 2,
                                             std::sqrt(variance));
    return static_cast<std::uint32_t>(
        std::clamp(std::round(draw(random_)), 1.0, static_cast<double>(kMaxTokens)));
}

std::uint32_t Draws::group() {
    if (popularity_.empty()) {
        return std::uniform_int_distribution<std::uint32_t>(0, options_.groups - 1)(random_);
    }
    const double at = std::uniform_real_distribution<double>(0, popularity_.back())(random_);
    const auto found = std::ranges::upper_bound(popularity_, at);
    return static_cast<std::uint32_t>(std::min<std::ptrdiff_t>(
        found - popularity_.begin(), static_cast<std::ptrdiff_t>(popularity_.size()) - 1));
}

std::chrono::nanoseconds Draws::think() {
    if (options_.think_s <= 0) return std::chrono::nanoseconds(0);
    const double s = std::exponential_distribution<double>(1.0 / options_.think_s)(random_);
    return std::chrono::nanoseconds(std::llround(s * 1e9));
}

void Draws::decorate(RequestSpec& request) {
    if (options_.images > 0 &&
        std::uniform_real_distribution<double>(0, 1)(random_) < options_.image_share) {
        for (std::uint32_t i = 0; i < options_.images; ++i) {
            const std::uint64_t which = options_.image_pool == 0
                                            ? ++fresh_
                                            : std::uniform_int_distribution<std::uint64_t>(
                                                  0, options_.image_pool - 1)(random_);
            request.images.push_back(
                {content_id(kImage, which, options_.image_pool == 0 ? seed_ : 0),
                 options_.image_size, options_.image_size});
        }
    }
    if (options_.adapters > 0) {
        request.adapter = fmt::format("adapter-{}", std::uniform_int_distribution<std::uint32_t>(
                                                        1, options_.adapters)(random_));
    }
}

std::uint64_t Draws::fresh_content() { return content_id(kFresh, ++fresh_, seed_); }

}  // namespace stator::workload
