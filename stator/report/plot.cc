#include "stator/report/plot.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <iterator>
#include <string_view>

#include "stator/report/markup.h"

namespace stator::report {
namespace {

/// The drawing's measures, in its own units: about a pixel each on a large screen.
struct Frame {
    double width = 460;
    double height = 280;
    double left = 62;
    double right = 16;
    double top = 22;
    double bottom = 44;

    [[nodiscard]] double x(const Axis& axis, double value) const {
        return left + axis.place(value) * (width - left - right);
    }
    [[nodiscard]] double y(const Axis& axis, double value) const {
        return height - bottom - axis.place(value) * (height - top - bottom);
    }
    [[nodiscard]] double floor() const { return height - bottom; }
};

std::string_view stroke_class(Stroke stroke) {
    switch (stroke) {
        case Stroke::kSolid:
            return "curve";
        case Stroke::kDashed:
            return "curve dashed";
        case Stroke::kFaint:
            return "curve faint";
        case Stroke::kDots:
            return "dots";
        case Stroke::kMarked:
            return "curve marked";
    }
    return "curve";
}

std::string_view scale_name(Scale scale) {
    switch (scale) {
        case Scale::kLinear:
            return "linear";
        case Scale::kLog:
            return "log";
        case Scale::kTail:
            return "tail";
    }
    return "linear";
}

std::string_view unit_name(Unit unit) {
    switch (unit) {
        case Unit::kPlain:
            return "plain";
        case Unit::kLatency:
            return "latency";
        case Unit::kTime:
            return "time";
        case Unit::kShare:
            return "share";
    }
    return "plain";
}

std::string axis_attribute(const Axis& axis) {
    return fmt::format("{} {} {} {}", scale_name(axis.scale), unit_name(axis.unit), axis.low,
                       axis.high);
}

void put_grid(std::string& out, const Frame& frame, const Plot& plot) {
    const double right = frame.width - frame.right;
    auto into = std::back_inserter(out);
    out += "<g class=\"grid\">";
    for (const Tick& tick : plot.y.ticks) {
        const double y = frame.y(plot.y, tick.value);
        fmt::format_to(into, "<path d=\"M{:.1f} {:.1f}H{:.1f}\"{}/>", frame.left, y, right,
                       tick.label.empty() ? " class=\"minor\"" : "");
    }
    for (const Tick& tick : plot.x.ticks) {
        const double x = frame.x(plot.x, tick.value);
        fmt::format_to(into, "<path d=\"M{:.1f} {:.1f}V{:.1f}\"{}/>", x, frame.top, frame.floor(),
                       tick.label.empty() ? " class=\"minor\"" : "");
    }
    fmt::format_to(into, "</g><path class=\"base\" d=\"M{:.1f} {:.1f}H{:.1f}\"/>", frame.left,
                   frame.floor(), right);
}

void put_labels(std::string& out, const Frame& frame, const Plot& plot) {
    auto into = std::back_inserter(out);
    out += "<g class=\"ticks\">";
    for (const Tick& tick : plot.y.ticks) {
        if (tick.label.empty()) continue;
        fmt::format_to(into, "<text x=\"{:.1f}\" y=\"{:.1f}\" class=\"y\">{}</text>",
                       frame.left - 7, frame.y(plot.y, tick.value) + 4, tick.label);
    }
    // A label that would run into the one before is left out; letters are some 7 units wide.
    double free_from = 0;
    for (const Tick& tick : plot.x.ticks) {
        if (tick.label.empty()) continue;
        const double half = 3.8 * static_cast<double>(tick.label.size());
        const double x = std::min(frame.x(plot.x, tick.value), frame.width - half - 1);
        if (x - half < free_from) continue;
        free_from = x + half + 6;
        fmt::format_to(into, "<text x=\"{:.1f}\" y=\"{:.1f}\" class=\"x\">{}</text>", x,
                       frame.floor() + 17, tick.label);
    }
    fmt::format_to(into, "<text x=\"{:.1f}\" y=\"{:.1f}\" class=\"x title\">{}</text></g>",
                   (frame.left + frame.width - frame.right) / 2, frame.height - 8,
                   escaped(plot.x.title));
}

void put_curve(std::string& out, const Frame& frame, const Plot& plot, const Curve& curve) {
    std::string path;
    auto into = std::back_inserter(path);
    std::string dots;
    bool pen_down = false;
    for (const PlotPoint& point : curve.points) {
        // Not a number: a gap in the curve.
        if (!std::isfinite(point.x) || !std::isfinite(point.y)) {
            pen_down = false;
            continue;
        }
        const double x = frame.x(plot.x, point.x);
        const double y = frame.y(plot.y, point.y);
        if (curve.stroke == Stroke::kDots) {
            fmt::format_to(into, "M{:.2f} {:.2f}h0", x, y);
        } else {
            fmt::format_to(into, "{}{:.2f} {:.2f}", pen_down ? 'L' : 'M', x, y);
        }
        pen_down = true;
        if (curve.stroke == Stroke::kMarked) {
            fmt::format_to(std::back_inserter(dots), "M{:.2f} {:.2f}h0", x, y);
        }
    }
    if (path.empty()) return;
    fmt::format_to(std::back_inserter(out),
                   "<path class=\"{}\" style=\"--c:{}\" data-name=\"{}\" d=\"{}\"/>",
                   stroke_class(curve.stroke), curve.colour, escaped(curve.name), path);
    if (!dots.empty()) {
        fmt::format_to(std::back_inserter(out), "<path class=\"marks\" style=\"--c:{}\" d=\"{}\"/>",
                       curve.colour, dots);
    }
}

void put_limit(std::string& out, const Frame& frame, const Plot& plot, const Limit& limit) {
    const Axis& axis = limit.vertical ? plot.x : plot.y;
    if (!(limit.value >= axis.low && limit.value <= axis.high)) return;
    auto into = std::back_inserter(out);
    const double right = frame.width - frame.right;
    if (limit.vertical) {
        const double x = frame.x(plot.x, limit.value);
        // Above the plot, where no curve is; bold letters are some 8 units wide.
        const double half = 4.3 * static_cast<double>(limit.label.size());
        fmt::format_to(into,
                       "<path class=\"limit\" d=\"M{0:.1f} {1:.1f}V{2:.1f}\"/><text "
                       "class=\"limit x\" x=\"{3:.1f}\" y=\"{4:.1f}\">{5}</text>",
                       x, frame.top, frame.floor(), std::min(x, frame.width - half), frame.top - 7,
                       escaped(limit.label));
        return;
    }
    const double y = frame.y(plot.y, limit.value);
    const bool below = y < frame.top + 20;
    fmt::format_to(into,
                   "<path class=\"limit\" d=\"M{0:.1f} {1:.1f}H{2:.1f}\"/><text "
                   "class=\"limit start\" x=\"{3:.1f}\" y=\"{4:.1f}\">{5}</text>",
                   frame.left, y, right, frame.left + 6, below ? y + 15 : y - 6,
                   escaped(limit.label));
}

void put_legend(std::string& out, const Plot& plot) {
    std::string items;
    for (const Curve& curve : plot.curves) {
        if (!curve.in_legend) continue;
        fmt::format_to(std::back_inserter(items),
                       "<li><i class=\"key {}\" style=\"--c:{}\"></i>{}</li>",
                       stroke_class(curve.stroke), curve.colour, escaped(curve.name));
    }
    if (!items.empty()) out += "<ul class=\"legend\">" + items + "</ul>";
}

void put_drawing(std::string& out, const Frame& frame, const Plot& plot, std::string_view name) {
    fmt::format_to(std::back_inserter(out),
                   "<svg class=\"{}\" viewBox=\"0 0 {:g} {:g}\" role=\"img\" aria-label=\"{}\" "
                   "data-x=\"{}\" data-of=\"{}\" data-y=\"{}\" data-frame=\"{:g} {:g} {:g} {:g}\">",
                   name, frame.width, frame.height, escaped(plot.title), axis_attribute(plot.x),
                   escaped(plot.x.unit == Unit::kPlain ? plot.x.title : ""), axis_attribute(plot.y),
                   frame.left, frame.width - frame.right, frame.top, frame.floor());
    put_grid(out, frame, plot);
    for (const Curve& curve : plot.curves) put_curve(out, frame, plot, curve);
    put_labels(out, frame, plot);
    for (const Limit& limit : plot.limits) put_limit(out, frame, plot, limit);
    out += "</svg>";
}

}  // namespace

std::string figure_of(const Plot& plot) {
    std::string out;
    auto into = std::back_inserter(out);
    fmt::format_to(into, "<figure{}><figcaption><h3>{}</h3>", plot.wide ? " class=\"wide\"" : "",
                   escaped(plot.title));
    if (!plot.note.empty()) fmt::format_to(into, "<p>{}</p>", escaped(plot.note));
    put_legend(out, plot);
    out += "</figcaption><div class=\"plot\">";
    put_drawing(out, Frame{}, plot, plot.wide ? "narrow" : "");
    if (plot.wide) {
        Frame broad;
        broad.width = 936;
        put_drawing(out, broad, plot, "broad");
    }
    out += "</div></figure>\n";
    return out;
}

}  // namespace stator::report
