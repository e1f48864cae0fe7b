#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "stator/base/error.h"
#include "stator/engine/dialects/kv_connector.h"
#include "stator/protocol/generate.h"

namespace stator::engine {

enum class Dialect : std::uint8_t { kVllmGenerate, kVllmCompletions, kSglang, kTrtllm };

struct DialectOptions {
    Dialect dialect = Dialect::kVllmCompletions;
    std::string model;  ///< a name that the engine serves
    /// vLLM before 0.12 has `guided_*` instead of `structured_outputs`.
    bool guided_fields = false;
    /// The engine was started with a policy that heeds priorities; else they are not sent: vLLM
    /// refuses them then.
    bool priorities = false;
    /// SGLang: lower ones go first there, as always with vLLM.
    bool low_first = false;
    /// vLLM from 0.32 on: its events are to name all blocks of this prompt again, those too that it
    /// has had for long (kv_cache_report_mode=full).
    bool report_full = false;
    /// Of several in one SGLang: the one to take it. Others are told in a header.
    std::optional<std::uint32_t> rank = {};
    /// How it hands KV to others of its kind; kNone: it can't.
    KvConnector connector = KvConnector::kNone;
};

/// A request's media in the engine's words.
struct BodyMedia {
    std::vector<protocol::TokenId> prompt;  ///< as the engine takes it, with its own placeholders
    std::string features;                   ///< vLLM: the value of `features`
    std::string ec_params;                  ///< vLLM: of `ec_transfer_params`; empty: none
    std::vector<std::string> urls;          ///< SGLang: `image_data`
};

/// The path of the engine's route.
[[nodiscard]] std::string_view path_of(Dialect dialect);

/// Appends the body that asks the engine for a whole request or a leg of one. `name` becomes the
/// engine's own id of it, where it takes one. kUnsupported, with what the engine can't do: log
/// probabilities or a constraint of a kind that its dialect has no words for, a prefill leg without
/// a connector. Salts go as the decimal text of their number, which is what the engine's KV events
/// then show.
///
/// kPrefill: one answer, not streamed, for read_prefill_answer(). Of vLLM its one token is thrown
/// away, and so is all that would only shape it. `object`: of an early connector the minted object;
/// else empty.
/// `media`: of a request that has some, what media_body() made of it; null: kUnsupported then.
/// kDecode: streamed, as a whole request, with another engine's KV where `object` is not empty:
/// Handoff::object, for which check_object() must have been well.
///
/// Nothing of a client's own words reaches an engine but through fields of GenerateRequest: no
/// transfer parameters, with which a client could stop an engine (a vLLM decode worker dies of a
/// wrong one).
[[nodiscard]] Result<void> append_request_body(std::string& out,
                                               const protocol::GenerateRequest& request,
                                               const DialectOptions& options, std::string_view name,
                                               std::string_view object = {},
                                               const BodyMedia* media = nullptr);

}  // namespace stator::engine
