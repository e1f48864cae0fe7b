#include "stator/metrics/registry.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <limits>
#include <map>
#include <memory>

#include "stator/base/check.h"

namespace stator::metrics {
namespace {

enum class Kind : std::uint8_t { kCounter, kGauge, kHistogram, kCounterCallback, kGaugeCallback };

std::string_view type_name(Kind kind) {
    switch (kind) {
        case Kind::kCounter:
        case Kind::kCounterCallback:
            return "counter";
        case Kind::kGauge:
        case Kind::kGaugeCallback:
            return "gauge";
        case Kind::kHistogram:
            return "histogram";
    }
    return "untyped";
}

bool good_name(std::string_view name) {
    const auto letter = [](char c) {
        return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
    };
    return !name.empty() && letter(name.front()) &&
           std::ranges::all_of(name, [&](char c) { return letter(c) || (c >= '0' && c <= '9'); });
}

void append_escaped(std::string& out, std::string_view text, bool quotes) {
    for (const char c : text) {
        if (c == '\\') {
            out += "\\\\";
        } else if (c == '\n') {
            out += "\\n";
        } else if (c == '"' && quotes) {
            out += "\\\"";
        } else {
            out += c;
        }
    }
}

/// `a="1",b="2"`, by label name. It is both the series' identity and what is printed between the
/// braces.
std::string label_text(Labels labels) {
    std::ranges::sort(labels);
    std::string text;
    for (std::size_t i = 0; i < labels.size(); ++i) {
        const auto& [name, value] = labels[i];
        STATOR_CHECK(good_name(name), "a label's name must match [a-zA-Z_][a-zA-Z0-9_]*");
        STATOR_CHECK(name != "le", "the label le belongs to histograms");
        STATOR_CHECK(i == 0 || labels[i - 1].first != name, "a label was given twice");
        if (i > 0) text += ',';
        text += name;
        text += "=\"";
        append_escaped(text, value, true);
        text += '"';
    }
    return text;
}

void append_number(std::string& out, std::uint64_t n) {
    char buffer[24];
    const auto r = std::to_chars(buffer, buffer + sizeof(buffer), n);
    out.append(buffer, r.ptr);
}

void append_number(std::string& out, double d) {
    if (std::isnan(d)) {
        out += "NaN";
    } else if (std::isinf(d)) {
        out += d > 0 ? "+Inf" : "-Inf";
    } else {
        char buffer[32];
        const auto r = std::to_chars(buffer, buffer + sizeof(buffer), d);
        out.append(buffer, r.ptr);
    }
}

/// `name_suffix{labels,extra} value`
template <typename Number>
void append_sample(std::string& out, std::string_view name, std::string_view suffix,
                   std::string_view labels, std::string_view extra, Number value) {
    out += name;
    out += suffix;
    if (!labels.empty() || !extra.empty()) {
        out += '{';
        out += labels;
        if (!labels.empty() && !extra.empty()) out += ',';
        out += extra;
        out += '}';
    }
    out += ' ';
    append_number(out, value);
    out += '\n';
}

void append_histogram(std::string& out, std::string_view name, std::string_view labels,
                      const Histogram& h) {
    // One walk up the buckets and a count taken from it, so that the text is consistent while
    // others observe.
    std::uint64_t below = 0;
    for (std::size_t i = 0; i <= h.bounds().size(); ++i) {
        below += h.in_bucket(i);
        std::string le = "le=\"";
        append_number(
            le, i < h.bounds().size() ? h.bounds()[i] : std::numeric_limits<double>::infinity());
        le += '"';
        append_sample(out, name, "_bucket", labels, le, below);
    }
    append_sample(out, name, "_sum", labels, {}, h.sum());
    append_sample(out, name, "_count", labels, {}, below);
}

}  // namespace

Histogram::Histogram(std::vector<double> upper_bounds)
    : bounds_(std::move(upper_bounds)),
      buckets_(std::make_unique<std::atomic<std::uint64_t>[]>(bounds_.size() + 1)) {
    for (std::size_t i = 0; i < bounds_.size(); ++i) {
        STATOR_CHECK(std::isfinite(bounds_[i]), "a histogram's bounds must be finite");
        STATOR_CHECK(i == 0 || bounds_[i - 1] < bounds_[i], "a histogram's bounds must ascend");
    }
}

void Histogram::observe(double v) {
    if (std::isnan(v)) return;
    const auto bucket = std::ranges::lower_bound(bounds_, v) - bounds_.begin();
    buckets_[static_cast<std::size_t>(bucket)].fetch_add(1, std::memory_order_relaxed);
    sum_.add(v);
}

std::uint64_t Histogram::in_bucket(std::size_t i) const {
    STATOR_ASSERT(i <= bounds_.size());
    return buckets_[i].load(std::memory_order_relaxed);
}

std::uint64_t Histogram::cumulative(std::size_t i) const {
    std::uint64_t n = 0;
    for (std::size_t b = 0; b <= i; ++b) n += in_bucket(b);
    return n;
}

std::uint64_t Histogram::count() const { return cumulative(bounds_.size()); }

// ---------------------------------------------------------------------------------------------------------------------

struct Registry::Impl {
    /// One time series; the family's kind says which member is used.
    struct Series {
        std::unique_ptr<Counter> counter;
        std::unique_ptr<Gauge> gauge;
        std::unique_ptr<Histogram> histogram;
        std::function<double()> callback;
    };
    struct Family {
        Kind kind;
        std::string help;
        std::map<std::string, Series> series;  // by label text
    };

    mutable std::mutex mutex;
    std::map<std::string, Family, std::less<>> families;

    /// With the mutex held.
    Series& series(Kind kind, std::string_view name, std::string_view help, Labels labels) {
        STATOR_CHECK(good_name(name), "a metric's name must match [a-zA-Z_][a-zA-Z0-9_]*");
        auto it = families.find(name);
        if (it == families.end()) {
            it = families.emplace(name, Family{kind, std::string(help), {}}).first;
        }
        STATOR_CHECK(it->second.kind == kind, "a metric was registered before as another kind");
        STATOR_CHECK(it->second.help == help, "a metric was registered before with other help");
        return it->second.series[label_text(std::move(labels))];
    }
};

Registry::Registry() : impl_(std::make_unique<Impl>()) {}
Registry::~Registry() = default;

Counter& Registry::counter(std::string_view name, std::string_view help, Labels labels) {
    const std::lock_guard lock(impl_->mutex);
    auto& s = impl_->series(Kind::kCounter, name, help, std::move(labels));
    if (!s.counter) s.counter = std::make_unique<Counter>();
    return *s.counter;
}

Gauge& Registry::gauge(std::string_view name, std::string_view help, Labels labels) {
    const std::lock_guard lock(impl_->mutex);
    auto& s = impl_->series(Kind::kGauge, name, help, std::move(labels));
    if (!s.gauge) s.gauge = std::make_unique<Gauge>();
    return *s.gauge;
}

Histogram& Registry::histogram(std::string_view name, std::string_view help,
                               std::vector<double> upper_bounds, Labels labels) {
    const std::lock_guard lock(impl_->mutex);
    auto& s = impl_->series(Kind::kHistogram, name, help, std::move(labels));
    const auto& siblings = impl_->families.find(name)->second.series;
    for (const auto& [text, sibling] : siblings) {
        if (!sibling.histogram) continue;
        STATOR_CHECK(std::ranges::equal(sibling.histogram->bounds(), upper_bounds),
                     "a histogram was registered before with other bounds");
        break;
    }
    if (!s.histogram) s.histogram = std::make_unique<Histogram>(std::move(upper_bounds));
    return *s.histogram;
}

void Registry::callback(std::string_view name, std::string_view help, bool is_counter,
                        std::function<double()> f, Labels labels) {
    STATOR_CHECK(f != nullptr, "a metric's callback is empty");
    const std::lock_guard lock(impl_->mutex);
    const Kind kind = is_counter ? Kind::kCounterCallback : Kind::kGaugeCallback;
    impl_->series(kind, name, help, std::move(labels)).callback = std::move(f);
}

std::string Registry::render() const {
    const std::lock_guard lock(impl_->mutex);
    std::string out;
    for (const auto& [name, family] : impl_->families) {
        out += "# HELP " + name + ' ';
        append_escaped(out, family.help, false);
        out += "\n# TYPE " + name + ' ';
        out += type_name(family.kind);
        out += '\n';
        for (const auto& [labels, s] : family.series) {
            switch (family.kind) {
                case Kind::kCounter:
                    append_sample(out, name, {}, labels, {}, s.counter->value());
                    break;
                case Kind::kGauge:
                    append_sample(out, name, {}, labels, {}, s.gauge->value());
                    break;
                case Kind::kHistogram:
                    append_histogram(out, name, labels, *s.histogram);
                    break;
                case Kind::kCounterCallback:
                case Kind::kGaugeCallback:
                    append_sample(out, name, {}, labels, {}, s.callback());
                    break;
            }
        }
    }
    return out;
}

std::vector<double> exponential_bounds(double first, double factor, std::size_t n) {
    STATOR_CHECK(first > 0 && factor > 1, "bounds must start above 0 and grow");
    std::vector<double> bounds;
    bounds.reserve(n);
    for (double bound = first; bounds.size() < n; bound *= factor) bounds.push_back(bound);
    return bounds;
}

}  // namespace stator::metrics
