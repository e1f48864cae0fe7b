#include "stator/engine/mock/step_time_file.h"

#include <algorithm>

namespace stator::engine::mock {
namespace {

constexpr double kMostMs = 3.6e6;
constexpr double kMost = 1e12;

bool ascends(const std::vector<double>& axis) {
    return std::ranges::adjacent_find(axis, std::ranges::greater_equal{}) == axis.end();
}

StepTime::Form read_table(config::YamlFields& f, const config::YamlTree& map) {
    TableTime t;
    f.numbers("prefill_tokens", t.prefill_tokens, 0, kMost);
    f.numbers("prefill_ms", t.prefill_ms, 0, kMostMs);
    f.numbers("decode_sequences", t.decode_sequences, 0, kMost);
    f.numbers("decode_context", t.decode_context, 0, kMost);
    f.numbers("decode_ms", t.decode_ms, 0, kMostMs);
    const bool whole = !t.prefill_tokens.empty() && !t.decode_sequences.empty() &&
                       !t.decode_context.empty() &&
                       t.prefill_ms.size() == t.prefill_tokens.size() &&
                       t.decode_ms.size() == t.decode_sequences.size() * t.decode_context.size();
    if (!whole) {
        f.problem(map,
                  "A table needs prefill_ms for each of prefill_tokens, and decode_ms for each of "
                  "decode_sequences and decode_context, row by row.");
        return ConstantTime{};
    }
    if (!ascends(t.prefill_tokens) || !ascends(t.decode_sequences) || !ascends(t.decode_context)) {
        f.problem(map, "The axes of a table must ascend.");
        return ConstantTime{};
    }
    return t;
}

StepTime::Form read_form(config::YamlFields& f, const config::YamlTree& map) {
    std::string form;
    f.text("form", form);
    if (form == "constant") {
        ConstantTime t;
        f.number("step_ms", t.step_ms, 0, kMostMs);
        return t;
    }
    if (form == "linear") {
        LinearTime t;
        f.number("base_ms", t.base_ms, 0, kMostMs);
        f.number("prefill_token_us", t.prefill_token_us, 0, kMost);
        f.number("prefill_context_ns", t.prefill_context_ns, 0, kMost);
        f.number("decode_sequence_us", t.decode_sequence_us, 0, kMost);
        f.number("decode_context_ns", t.decode_context_ns, 0, kMost);
        return t;
    }
    if (form == "polynomial") {
        PolynomialTime t;
        f.numbers("prefill_ms", t.prefill_ms, -kMost, kMost);
        f.numbers("decode_ms", t.decode_ms, -kMost, kMost);
        return t;
    }
    if (form == "table") return read_table(f, map);
    f.problem(map, "form must be constant, linear, polynomial or table.");
    return ConstantTime{};
}

}  // namespace

StepTime read_step_time(const config::YamlTree& map, std::string_view file,
                        config::Problems& problems) {
    config::YamlFields f(map, file, "the step time", problems);
    const auto form = read_form(f, map);
    EncoderTime encoder;
    if (const config::YamlTree* node = f.find("encoder")) {
        config::YamlFields e(*node, file, "encoder", problems);
        e.number("image_ms", encoder.image_ms, 0, kMostMs);
        e.number("token_us", encoder.token_us, 0, kMost);
        e.finish();
    }
    f.finish();
    return StepTime(form, encoder);
}

tl::expected<StepTime, config::Problems> read_step_time(std::string_view file,
                                                        std::string_view text) {
    auto tree = config::read_yaml_tree(file, text);
    if (!tree) return tl::unexpected(std::move(tree.error()));
    config::Problems problems;
    StepTime time = read_step_time(*tree, file, problems);
    if (!problems.empty()) return tl::unexpected(std::move(problems));
    return time;
}

}  // namespace stator::engine::mock
