#pragma once

#include "stator/frontend/field_reader.h"
#include "stator/frontend/sampling_fields.h"

namespace stator::frontend {

/// Deepest nesting of a JSON schema in a request.
inline constexpr std::size_t kMaxSchemaDepth = 48;

/// Reads what the text of the answer must look like, under any of the names that clients use for
/// it (docs/structured-output.md): `response_format`; vLLM's `structured_outputs` and `guided_…`;
/// SGLang's `json_schema`, `regex` and `ebnf`; llama.cpp's `grammar` and `json_schema`. At most one
/// of them may say something. Errors stay in `fields` and name the field by its path. Whether a
/// schema, regex or grammar can be used is the engine's to say; shape and size are checked here.
void read_output_constraint(FieldReader& fields, const RequestRules& rules, GenerationFields& out);

}  // namespace stator::frontend
