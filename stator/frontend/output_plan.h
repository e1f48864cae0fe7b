#pragma once

#include <memory>
#include <string>

#include "stator/base/error.h"
#include "stator/frontend/chat_request.h"
#include "stator/frontend/frontend.h"
#include "stator/protocol/generate.h"
#include "stator/text/parsers/output_parser.h"

namespace stator::frontend {

/// What is looked for in the output of one request, and what it is forced to be.
struct OutputPlan {
    text::OutputParserOptions parser;
    bool tools = false;             ///< calls are looked for
    bool first_call_only = false;   ///< the generation ends with it
    bool include_reasoning = true;  ///< else thinking is read and dropped
    /// Forces the call; null where none is forced.
    std::shared_ptr<const protocol::OutputConstraint> constraint;
};

/// Null where the output is text and nothing else. `in_reasoning`: the prompt ends inside the
/// model's thinking. kUnsupported with the field where the model can't do what was asked for.
[[nodiscard]] Result<std::shared_ptr<const OutputPlan>> plan_output(const ChatRequest& request,
                                                                    const ServedModel& model,
                                                                    bool in_reasoning);

/// The JSON schema of what a model forced to call writes: the arguments of the one that is named,
/// or an array of {"name":…,"parameters":{…}} with at least one element (where not `parallel`,
/// exactly one). References inside the tools' schemas still lead where they led.
[[nodiscard]] std::string forced_call_schema(const ToolUse& tool_use);

}  // namespace stator::frontend
