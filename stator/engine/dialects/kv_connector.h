#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "stator/base/error.h"
#include "stator/engine/dialects/engine_facts.h"

namespace stator::engine {

/// How two engines of one kind, one that computes prompts and one that generates, move KV between
/// them. What the one says of it for the other is an object (JSON): protocol::Handoff::object.
///
///               prompt first            both at once ("early")
///     vLLM      kVllmNixl, kVllmShared  kVllmMooncake
///     SGLang                            kSglang
///     TRT-LLM   kTrtllm
///
/// Prompt first: the object is the answer of the engine that has computed the prompt. Early: the
/// object is minted, both engines are given it and meet.
enum class KvConnector : std::uint8_t {
    kNone,
    kVllmNixl,
    kVllmShared,    ///< ExampleConnector, LMCache …: a store that both know
    kVllmMooncake,  ///< both at once
    kSglang,        ///< any of its transfer backends
    kTrtllm,        ///< any of its cache transceivers
};

/// "vllm/nixl", "vllm/shared", "vllm/mooncake", "sglang/bootstrap", "trtllm/disaggregated": a
/// method for EngineInfo::kv_method. Empty: none.
[[nodiscard]] std::string_view method_of(KvConnector connector);
/// By the kind and the connector's name as in a vLLM's --kv-transfer-config ("NixlConnector") or
/// behind the slash above ("nixl"); the others have one connector each, whatever the name.
[[nodiscard]] std::optional<KvConnector> kv_connector(EngineKind kind, std::string_view name);
/// EngineInfo::kv_layout and ModelCard::kv_layout: the method, and the engine's version where it is
/// known, since engines of two versions refuse each other. "vllm/nixl/0.32.0".
[[nodiscard]] std::string kv_layout_of(KvConnector connector, std::string_view version);
/// Whether both engines are asked at the same time.
[[nodiscard]] bool is_early(KvConnector connector);

/// Where the engine that computes prompts waits for the others, of an early connector.
struct MeetingPlace {
    std::string host;  ///< as others reach it
    std::uint16_t port = 0;
    /// kVllmMooncake: its id, from GET http://host:port/query.
    std::string engine_id;
    /// kSglang, of several ranks: the one that prompts are sent to (DialectOptions::rank).
    std::optional<std::uint32_t> rank = {};
};
/// The object for one request of an early connector. `random`: of all its bits.
[[nodiscard]] std::string mint_object(KvConnector connector, const MeetingPlace& place,
                                      std::uint64_t random);

/// Whether an object has what its reader needs: a vLLM dies of one that has not. kDataLoss.
[[nodiscard]] Result<void> check_object(KvConnector connector, std::string_view object);

struct PrefillAnswer {
    std::string object;  ///< for the engine that decodes; of an early connector empty
    std::optional<std::uint32_t> cached_tokens;  ///< of the prompt; nullopt: it has not said
};
/// Of the whole answer (200) to a prefill leg with a prompt of so many tokens. kDataLoss: it has no
/// object, or not one that check_object() takes, or that is of another prompt.
[[nodiscard]] Result<PrefillAnswer> read_prefill_answer(KvConnector connector,
                                                        std::string_view body,
                                                        std::size_t prompt_tokens);

/// Of Mooncake's GET /query: {"0":{"engine_id":…}}, of that data-parallel rank.
[[nodiscard]] Result<std::string> read_mooncake_engine(std::string_view body, std::uint32_t rank);

}  // namespace stator::engine
