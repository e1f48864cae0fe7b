#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "stator/report/axis.h"

namespace stator::report {

struct PlotPoint {
    double x = 0;
    double y = 0;
};

enum class Stroke : std::uint8_t {
    kSolid = 1,
    kDashed,
    kFaint,   ///< thin, behind what matters
    kDots,    ///< no line: a point each
    kMarked,  ///< a line with a dot at each point
};

struct Curve {
    std::string name;
    std::string colour;  ///< a CSS value of ours, such as "var(--c0)"
    Stroke stroke = Stroke::kSolid;
    std::vector<PlotPoint> points;
    bool in_legend = true;
};

/// A limit: drawn across the plot with its label.
struct Limit {
    double value = 0;
    bool vertical = false;
    std::string label;
};

/// A plot as data. Names and titles are plain text, escaped when drawn.
struct Plot {
    std::string title;
    std::string note;  ///< small, below the title
    Axis x;
    Axis y;
    std::vector<Curve> curves;
    std::vector<Limit> limits;
    bool wide = false;  ///< takes two columns where the page has them: drawn twice, one is shown
};

/// An HTML figure: caption, legend and an SVG that fills its column. Points lie in the SVG's
/// coordinates with two decimals; attributes carry the axes, from which the page's script reads
/// values back.
[[nodiscard]] std::string figure_of(const Plot& plot);

}  // namespace stator::report
