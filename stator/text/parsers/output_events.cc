#include "stator/text/parsers/output_parser.h"

namespace stator::text {

void OutputEvents::add(Kind kind, std::string_view piece, std::uint32_t tool) {
    const bool joins = kind != Kind::kToolBegin && kind != Kind::kToolEnd;
    if (joins && piece.empty()) return;
    const auto begin = static_cast<std::uint32_t>(text.size());
    text.append(piece);
    if (joins && !events.empty()) {
        Event& last = events.back();
        if (last.kind == kind && last.tool == tool) {
            last.size += static_cast<std::uint32_t>(piece.size());
            return;
        }
    }
    events.push_back({kind, tool, begin, static_cast<std::uint32_t>(piece.size())});
}

}  // namespace stator::text
