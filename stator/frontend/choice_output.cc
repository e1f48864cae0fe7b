#include "stator/frontend/choice_output.h"

#include <algorithm>
#include <utility>

#include "stator/codec/json.h"

namespace stator::frontend {

Result<ChoiceOutput> ChoiceOutput::make(const OutputPlan& plan) {
    auto parser = text::make_output_parser(plan.parser);
    if (!parser) return tl::unexpected<Error>(std::move(parser.error()));
    return ChoiceOutput(plan, std::move(*parser));
}

ChoiceOutput::ChoiceOutput(const OutputPlan& plan, std::unique_ptr<text::OutputParser> parser)
    : plan_(&plan), parser_(std::move(parser)), in_reasoning_(plan.parser.begins_in_reasoning) {}

void ChoiceOutput::push(std::string_view text, text::OutputEvents& out) {
    if (complete_) return;
    raw_.clear();
    parser_->push(text, raw_);
    const auto is_reasoning = [](const auto& e) { return e.kind == Kind::kReasoning; };
    if (raw_.events.empty() ? in_reasoning_ : std::ranges::any_of(raw_.events, is_reasoning)) {
        ++reasoning_tokens_;
    }
    if (!raw_.events.empty()) in_reasoning_ = is_reasoning(raw_.events.back());
    sort(out);
}

void ChoiceOutput::finish(std::string_view rest, text::OutputEvents& out) {
    if (complete_) return;
    raw_.clear();
    if (!rest.empty()) parser_->push(rest, raw_);
    parser_->finish(raw_);
    sort(out);
}

void ChoiceOutput::sort(text::OutputEvents& out) {
    for (const auto& event : raw_.events) {
        take(event, out);
        if (complete_) return;
    }
}

void ChoiceOutput::take(const text::OutputEvents::Event& event, text::OutputEvents& out) {
    const std::string_view text = raw_.of(event);
    switch (event.kind) {
        case Kind::kContent:
            return out.add(Kind::kContent, text);
        case Kind::kReasoning:
            if (plan_->include_reasoning) out.add(Kind::kReasoning, text);
            return;
        case Kind::kToolBegin: {
            Call& call = calls_.emplace_back();
            call.name = text;
            out.add(Kind::kToolBegin, text, static_cast<std::uint32_t>(calls_.size() - 1));
            return;
        }
        case Kind::kToolArguments:
            if (calls_.empty() || text.empty()) return;
            calls_.back().arguments += text;
            out.add(Kind::kToolArguments, text, static_cast<std::uint32_t>(calls_.size() - 1));
            return;
        case Kind::kToolEnd:
            return end_call(out);
    }
}

void ChoiceOutput::end_call(text::OutputEvents& out) {
    if (calls_.empty()) return;
    Call& call = calls_.back();
    if (call.arguments.empty()) {
        call.arguments = "{}";
        out.add(Kind::kToolArguments, call.arguments,
                static_cast<std::uint32_t>(calls_.size() - 1));
    }
    call.complete = true;
    complete_ = plan_->first_call_only;
}

bool valid_arguments(std::string_view arguments) {
    codec::JsonDocument document;
    const auto value = document.parse(arguments);
    return value && value->type() == codec::JsonType::kObject;
}

}  // namespace stator::frontend
