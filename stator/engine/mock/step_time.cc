#include "stator/engine/mock/step_time.h"

#include <algorithm>
#include <cmath>

#include "stator/base/check.h"

namespace stator::engine::mock {
namespace {

double polynomial(const std::vector<double>& coefficients, double x) {
    double sum = 0;
    for (std::size_t i = coefficients.size(); i-- > 0;) sum = sum * x + coefficients[i];
    return sum;
}

/// Where x lies on an ascending axis: between points `low` and `low + 1`, a share of the way.
struct Place {
    std::size_t low = 0;
    double share = 0;
};

Place place(const std::vector<double>& axis, double x) {
    STATOR_ASSERT(!axis.empty());
    if (x <= axis.front() || axis.size() == 1) return {0, 0};
    if (x >= axis.back()) return {axis.size() - 2, 1};
    const auto above = static_cast<std::size_t>(std::ranges::upper_bound(axis, x) - axis.begin());
    const double low = axis[above - 1];
    return {above - 1, (x - low) / (axis[above] - low)};
}

double between(double a, double b, double share) { return a + (b - a) * share; }

double at(const std::vector<double>& values, Place p) {
    return p.share == 0 ? values[p.low] : between(values[p.low], values[p.low + 1], p.share);
}

double ms_of(const ConstantTime& t, const StepShape&) { return t.step_ms; }

double ms_of(const LinearTime& t, const StepShape& s) {
    return t.base_ms + 1e-3 * t.prefill_token_us * s.prefill_tokens +
           1e-6 * t.prefill_context_ns * static_cast<double>(s.prefill_context) +
           1e-3 * t.decode_sequence_us * s.decode_sequences +
           1e-6 * t.decode_context_ns * static_cast<double>(s.decode_context);
}

double ms_of(const PolynomialTime& t, const StepShape& s) {
    double ms = 0;
    if (s.prefill_tokens > 0) ms += polynomial(t.prefill_ms, s.prefill_tokens);
    if (s.decode_sequences > 0) {
        ms += polynomial(t.decode_ms, static_cast<double>(s.decode_context));
    }
    return ms;
}

double ms_of(const TableTime& t, const StepShape& s) {
    double ms = 0;
    if (s.prefill_tokens > 0) ms += at(t.prefill_ms, place(t.prefill_tokens, s.prefill_tokens));
    if (s.decode_sequences > 0) {
        const double mean = static_cast<double>(s.decode_context) / s.decode_sequences;
        const Place row = place(t.decode_sequences, s.decode_sequences);
        const Place column = place(t.decode_context, mean);
        const std::size_t width = t.decode_context.size();
        const auto in_row = [&](std::size_t r) {
            const double* values = t.decode_ms.data() + r * width;
            return column.share == 0
                       ? values[column.low]
                       : between(values[column.low], values[column.low + 1], column.share);
        };
        ms += row.share == 0 ? in_row(row.low)
                             : between(in_row(row.low), in_row(row.low + 1), row.share);
    }
    return ms;
}

}  // namespace

std::chrono::nanoseconds StepTime::of(const StepShape& shape) const {
    double ms = std::visit([&](const auto& form) { return ms_of(form, shape); }, form_);
    ms += encoder_.image_ms * shape.images + 1e-3 * encoder_.token_us * shape.image_tokens;
    constexpr double kLongestMs = 3.6e6;  // an hour; what a badly fitted polynomial may say
    return std::chrono::nanoseconds(std::llround(std::clamp(ms, 0.0, kLongestMs) * 1e6));
}

}  // namespace stator::engine::mock
