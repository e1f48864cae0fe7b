#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>

#include "stator/config/option_table.h"
#include "stator/config/value.h"

namespace stator::config::table {
namespace {

constexpr std::array<std::string_view, 3> kOwn{"llama", "echo", "mock"};
constexpr std::array<std::string_view, 4> kOthers{"vllm", "sglang", "trtllm", "openai"};

AttachedEngine split(std::string_view item) {
    const auto equals = std::min(item.find('='), item.size());
    return {std::string(item.substr(0, equals)),
            std::string(item.substr(std::min(equals + 1, item.size())))};
}

Result<void> check_engines(const std::vector<std::string>& items) {
    for (const std::string& item : items) {
        if (std::ranges::find(kOwn, item) != kOwn.end()) continue;
        const AttachedEngine engine = split(item);
        const bool known = std::ranges::find(kOthers, engine.kind) != kOthers.end();
        if (known && (engine.url.starts_with("http://") || engine.url.starts_with("https://"))) {
            continue;
        }
        if (known) {
            return error(ErrorCode::kInvalidArgument,
                         "{} needs the address of the engine's HTTP server behind it: "
                         "{}=http://127.0.0.1:8000",
                         in_quotes(item), engine.kind);
        }
        return error(ErrorCode::kInvalidArgument,
                     "{} is no engine; it must be one of {}, or an engine that runs already, "
                     "written {}=URL",
                     in_quotes(item), fmt::join(kOwn, ", "), fmt::join(kOthers, "=URL, "));
    }
    if (items.empty()) return error(ErrorCode::kInvalidArgument, "no engine is named");
    return {};
}

Value get_engines(const Settings& s) {
    std::vector<std::string> out;
    for (const AttachedEngine& a : s.engine.attached) {
        out.push_back(fmt::format("{}={}", a.kind, a.url));
    }
    if (out.empty()) out.emplace_back(kOwn[static_cast<std::size_t>(s.engine.kind)]);
    return out;
}

/// Of engines of ours the last one counts; what is attached before it goes.
void set_engines(Settings& s, const Value& v) {
    s.engine.attached.clear();
    for (const std::string& item : std::get<std::vector<std::string>>(v)) {
        const auto own = std::ranges::find(kOwn, item);
        if (own != kOwn.end()) {
            s.engine.attached.clear();
            s.engine.kind = static_cast<EngineKind>(own - kOwn.begin());
        } else {
            s.engine.kind = EngineKind::kAttached;
            s.engine.attached.push_back(split(item));
        }
    }
}

}  // namespace

void add_attached_options(std::vector<Option>& t) {
    using S = Settings;
    using E = EngineSettings;
    Draft engine;
    engine.key = "engine.kind";
    engine.flag = "--engine";
    engine.type = OptionType::kList;
    engine.unit = "engine";
    engine.meaning =
        "llama runs GGUF models; echo needs no model and repeats the prompt, for trying the API "
        "and measuring HTTP alone; mock needs none either and imitates an engine's scheduler, "
        "memory and times. vllm=URL, sglang=URL and trtllm=URL put an engine that runs already, "
        "unmodified, behind this one, such as vllm=http://127.0.0.1:8000; openai=URL relays texts. "
        "`stator serve` takes several of these, `stator worker` one.";
    engine.check = check_engines;
    engine.get = get_engines;
    engine.set = set_engines;
    t.push_back(engine);
    t.push_back(option<&S::engine, &E::events>(
                    "engine.events", "--engine-events",
                    "Where an attached engine publishes its KV events, as tcp://HOST:PORT of its "
                    "first rank; off: they are not followed; drain: fetched over HTTP, of a "
                    "TensorRT-LLM that does not publish them. For several engines one each, in "
                    "their order. If empty: as the engine says; vLLM from 0.30 on and SGLang do.")
                    .in("address"));
    t.push_back(option<&S::engine, &E::replay>(
                    "engine.replay", "--engine-replay",
                    "Where it repeats events that were missed, likewise; with --engine-events.")
                    .in("address"));
    t.push_back(option<&S::engine, &E::key_file>(
                    "engine.key_file", "--engine-key-file",
                    "File whose first line is the API key of the attached engines.")
                    .in("file"));
    t.push_back(
        option<&S::engine, &E::dp_ranks>("engine.dp_ranks", "--engine-dp-ranks",
                                         "Data-parallel ranks behind an attached engine's one "
                                         "address, each with a cache of its own.")
            .range(1, 1024)
            .in("ranks")
            .unset("as it says, else 1"));
    t.push_back(option<&S::engine, &E::connector>(
        "engine.connector", "--engine-connector",
        "How an attached vLLM hands the KV of prompts to others, or takes it, as its "
        "--kv-transfer-config says: nixl, shared (ExampleConnector, LMCache) or mooncake. With "
        "--role prefill or decode; the other engines need none."));
    t.push_back(option<&S::engine, &E::trtllm_store>(
                    "engine.trtllm_store", "--trtllm-store",
                    "stator serve takes the TensorRT-LLM workers that register themselves here: "
                    "where their disagg_cluster has the cluster_uri http://HOST:PORT. If empty: "
                    "none do.")
                    .in("HOST:PORT"));
    t.push_back(option<&S::engine, &E::priority>(
        "engine.priority", "--engine-priority",
        "Requests' priorities are passed on to an attached vLLM, which was started with "
        "--scheduling-policy priority; without that it refuses them. An SGLang tells by itself "
        "whether it heeds them."));
    t.push_back(option<&S::engine, &E::bootstrap>(
                    "engine.bootstrap", "--engine-bootstrap",
                    "Where engines that decode meet an attached SGLang, or vLLM with mooncake, "
                    "that computes prompts. If empty: its host, and the port that it says, else "
                    "8998.")
                    .in("host:port"));
    t.push_back(option<&S::engine, &E::wait>(
                    "engine.wait", "--engine-wait",
                    "How long to wait for an attached engine that does not answer yet. 0: as long "
                    "as it takes.")
                    .range(0, kDay_ms));
    t.push_back(option<&S::engine, &E::canary>(
                    "engine.canary", "--engine-canary",
                    "After so long without a token an attached engine is asked for one, to see "
                    "whether it is up but dead. 0: never.")
                    .range(0, kDay_ms));
    t.push_back(option<&S::engine, &E::canary_within>(
                    "engine.canary_within", "--engine-canary-within",
                    "An attached engine that gives none within this gets no requests until it "
                    "does.")
                    .range(1, kDay_ms));
}

}  // namespace stator::config::table
