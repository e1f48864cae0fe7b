#include "stator/config/options.h"

#include <array>

#include "stator/base/check.h"
#include "stator/config/option_table.h"

namespace stator::config {
namespace {

using namespace table;

void add_model(std::vector<Option>& t) {
    using S = Settings;
    using M = ModelSettings;
    t.push_back(option<&S::model, &M::path>(
                    "model.path", "--model",
                    "The GGUF file to serve. If empty: the one in the cache folder.")
                    .in("file"));
    t.push_back(option<&S::model, &M::folder>(
                    "model.dir", "--model-dir",
                    "A model's folder as Hugging Face lays it out (config.json, tokenizer.json, "
                    "chat_template.jinja, …): tokenizer, chat template, context and recommended "
                    "sampling come from it. The mock engine needs no more; llama takes its weights "
                    "from --model or from the one .gguf file in the folder.")
                    .in("folder"));
    t.push_back(
        option<&S::model, &M::mmproj>(
            "model.mmproj", "--mmproj",
            "GGUF file of the model's encoder for images and videos (\"mmproj\"). If empty: "
            "text alone.")
            .in("file"));
    t.push_back(option<&S::model, &M::served_name>("model.name", "--served-model-name",
                                                   "Name that clients use for the model. If empty: "
                                                   "the name in the file, in lower case with "
                                                   "dashes.")
                    .in("name"));
    t.push_back(option<&S::model, &M::aliases>("model.aliases", "--model-alias",
                                               "Further names under which clients may ask for it.")
                    .in("name"));
    t.push_back(
        option<&S::model, &M::tool_parser>(
            "model.tool_parser", "--tool-parser",
            "How the model writes calls of tools. auto: what its chat template shows; none: "
            "calls are not looked for, so that only forced ones are served; or the name of "
            "a notation (a wrong one lists them all).")
            .in("name"));
    t.push_back(option<&S::model, &M::reasoning_parser>(
                    "model.reasoning_parser", "--reasoning-parser",
                    "How the model marks its thinking, which answers give as reasoning_content. "
                    "auto: what its chat template shows; none: it is content; or the name of a "
                    "notation.")
                    .in("name"));
}

void add_server(std::vector<Option>& t) {
    using S = Settings;
    using V = ServerSettings;
    t.push_back(option<&S::server, &V::host>("server.host", "--host",
                                             "Address to listen on. The default is reachable from "
                                             "this machine alone; any other address "
                                             "needs --api-key-file or --allow-unauthenticated.")
                    .in("address"));
    t.push_back(option<&S::server, &V::port>("server.port", "--port",
                                             "Port to listen on. 0 takes a free one.")
                    .range(0, 65535));
    t.push_back(
        option<&S::server, &V::port_file>(
            "server.port_file", "--port-file",
            "File that gets the port number once the server listens (for scripts with --port 0).")
            .in("file"));
    t.push_back(option<&S::server, &V::threads>(
                    "server.threads", "--threads",
                    "Threads for HTTP. 0: the cores the engine leaves free, from 1 to 16.")
                    .range(0, 1024)
                    .in("threads"));
    t.push_back(option<&S::server, &V::grace>("server.grace", "--grace",
                                              "How long requests in work may go on after a first "
                                              "Ctrl-C or SIGTERM; a second one ends "
                                              "the program at once.")
                    .range(0, kDay_ms));
    t.push_back(
        option<&S::server, &V::cors_origins>("server.cors_origins", "--cors-origin",
                                             "Web origins whose pages may call this server, such "
                                             "as https://example.org, or * for all. "
                                             "If empty: none.")
            .in("origin"));
}

void add_auth(std::vector<Option>& t) {
    using S = Settings;
    using A = AuthSettings;
    t.push_back(option<&S::auth, &A::api_key_file>(
                    "auth.api_key_file", "--api-key-file",
                    "File with the API keys that clients must send, "
                    "one a line, perhaps with tenant=NAME, "
                    "weight=NUMBER and hints=yes behind it; lines that begin "
                    "with # are comments.")
                    .in("file"));
    t.push_back(option<&S::auth, &A::allow_unauthenticated>(
        "auth.allow_unauthenticated", "--allow-unauthenticated",
        "Listen beyond this machine without API keys: anyone who can reach the port may use it."));
}

void add_engine(std::vector<Option>& t) {
    using S = Settings;
    using E = EngineSettings;
    add_attached_options(t);
    t.push_back(
        option<&S::engine, &E::threads>(
            "engine.threads", "--engine-threads",
            "Threads that compute the model. 0: half of the usable cores, at least 1. The threads "
            "wait for each other by spinning, so more of them than there are idle cores is many "
            "times slower, not faster; raise it on a machine that does nothing else.")
            .range(0, 512)
            .in("threads"));
    t.push_back(option<&S::engine, &E::context>(
                    "engine.context", "--context",
                    "Size of the KV cache, which all running requests share. 0: chosen from the "
                    "model and the number of running requests.")
                    .range(0, kMaxCount)
                    .in("tokens"));
    t.push_back(option<&S::engine, &E::max_sequence>(
                    "engine.max_sequence", "--max-sequence",
                    "Longest prompt and answer of one request together. 0: what the model was "
                    "trained for, at most 8192.")
                    .range(0, kMaxCount)
                    .in("tokens"));
    t.push_back(option<&S::engine, &E::max_running>(
                    "engine.max_running", "--max-running",
                    "Requests computed at the same time (llama: at most 128).")
                    .range(1, 4096)
                    .in("requests")
                    .unset("16; mock: 256"));
    t.push_back(
        option<&S::engine, &E::max_waiting>(
            "engine.max_waiting", "--max-waiting",
            "Requests that may wait for a place; the next one is answered 429 with Retry-After.")
            .range(0, 100'000)
            .in("requests")
            .unset("256; mock: 1024"));
    t.push_back(option<&S::engine, &E::step_tokens>(
                    "engine.step_tokens", "--step-tokens",
                    "Most tokens in one step of the model. Long prompts are computed in pieces of "
                    "this size so that others' answers keep flowing.")
                    .range(1, 65'536)
                    .in("tokens")
                    .unset("512; mock: 8192"));
    t.push_back(option<&S::engine, &E::encoder_cache_size>(
                    "engine.encoder_cache_size", "--encoder-cache-size",
                    "Memory of an encoding worker for the embeddings of images that came before.")
                    .range(0, 1e15));
    t.push_back(option<&S::engine, &E::gpu_layers>(
                    "engine.gpu_layers", "--gpu-layers",
                    "Layers of the model to place on the GPU, in a build with CUDA. -1: all.")
                    .range(-1, 10'000)
                    .in("layers"));
    t.push_back(option<&S::engine, &E::seed>(
                    "engine.seed", "--seed",
                    "Start of the random numbers for requests that give no seed. 0: a new one each "
                    "time.")
                    .range(0, 9e15));
}

void add_prefix_cache(std::vector<Option>& t) {
    using S = Settings;
    using E = EngineSettings;
    t.push_back(option<&S::engine, &E::prefix_cache>(
        "engine.prefix_cache", "--prefix-cache",
        "Reuse what was computed for earlier prompts that begin alike."));
    t.push_back(option<&S::engine, &E::block_tokens>(
                    "engine.block_tokens", "--block-tokens",
                    "Tokens in one block of the prefix cache, the unit of reuse. All engines of a "
                    "model that should share its requests need the same.")
                    .range(1, 1024)
                    .in("tokens")
                    .unset("16; attached engines: their own, but at least 16"));
    t.push_back(
        option<&S::engine, &E::prefix_cache_size>(
            "engine.prefix_cache_size", "--prefix-cache-size",
            "Host memory for prompts kept for reuse, beside the KV cache of running requests.")
            .range(0, 1e15));
}

void add_sampling(std::vector<Option>& t) {
    using S = Settings;
    using P = SamplingSettings;
    t.push_back(option<&S::sampling, &P::temperature>(
                    "sampling.temperature", "--temperature",
                    "Randomness of the answers; 0 always takes the likeliest token.")
                    .range(0, 2)
                    .unset("the model file's, else 1"));
    t.push_back(option<&S::sampling, &P::top_p>(
                    "sampling.top_p", "--top-p",
                    "Draw from the likeliest tokens that together have this probability.")
                    .range(0, 1)
                    .above(0)
                    .unset("the model file's, else 1"));
    t.push_back(
        option<&S::sampling, &P::top_k>("sampling.top_k", "--top-k",
                                        "Draw from this many likeliest tokens. 0: from all.")
            .range(0, 1'000'000)
            .in("tokens")
            .unset("the model file's, else 0"));
    t.push_back(option<&S::sampling, &P::min_p>(
                    "sampling.min_p", "--min-p",
                    "Leave out tokens less likely than this share of the likeliest one. 0: off.")
                    .range(0, 1)
                    .unset("the model file's, else 0"));
}

void add_request_limits(std::vector<Option>& t) {
    using S = Settings;
    using L = LimitSettings;
    t.push_back(option<&S::limits, &L::max_connections>(
                    "limits.max_connections", "--max-connections",
                    "Open connections; a further one is answered 503 and closed.")
                    .range(1, 1'000'000)
                    .in("connections"));
    t.push_back(option<&S::limits, &L::max_inflight>(
                    "limits.max_inflight", "--max-inflight",
                    "Requests in work in all; a further one is answered 503 with Retry-After.")
                    .range(1, 1'000'000)
                    .in("requests"));
    t.push_back(option<&S::limits, &L::max_choices>("limits.max_choices", "--max-choices",
                                                    "Largest n, the answers to one request.")
                    .range(1, 1024)
                    .in("choices"));
    t.push_back(option<&S::limits, &L::max_headers>("limits.max_headers", "--max-headers",
                                                    "Header lines of one request, else 431.")
                    .range(8, 10'000)
                    .in("headers"));
    t.push_back(
        option<&S::limits, &L::max_header_size>("limits.max_header_size", "--max-header-size",
                                                "Request line and headers together, else 431.")
            .range(kKiB, 1024 * kKiB));
    t.push_back(option<&S::limits, &L::max_body_size>("limits.max_body_size", "--max-body-size",
                                                      "Body of one request, else 413.")
                    .range(kKiB, 4 * kGiB));
    t.push_back(option<&S::limits, &L::max_buffered_bodies>(
                    "limits.max_buffered_bodies", "--max-buffered-bodies",
                    "Bodies being read on all connections together, else 503.")
                    .range(kKiB, 1024 * kGiB));
    t.push_back(option<&S::limits, &L::max_unsent_output>(
                    "limits.max_unsent_output", "--max-unsent-output",
                    "Part of an answer that its client has not taken yet; beyond, the connection "
                    "is reset.")
                    .range(4 * kKiB, 4 * kGiB));
}

void add_time_limits(std::vector<Option>& t) {
    using S = Settings;
    using L = LimitSettings;
    t.push_back(option<&S::limits, &L::header_timeout>(
                    "limits.header_timeout", "--header-timeout",
                    "From a request's first byte to the end of its headers, else 408.")
                    .range(1, kDay_ms));
    t.push_back(option<&S::limits, &L::body_timeout>("limits.body_timeout", "--body-timeout",
                                                     "For a request's whole body, else 408.")
                    .range(1, kDay_ms));
    t.push_back(
        option<&S::limits, &L::idle_timeout>("limits.idle_timeout", "--idle-timeout",
                                             "How long a connection without a request stays open.")
            .range(1, kDay_ms));
    t.push_back(option<&S::limits, &L::write_timeout>(
                    "limits.write_timeout", "--write-timeout",
                    "How long a client may take none of its answer before the connection is reset.")
                    .range(1, kDay_ms));
    t.push_back(option<&S::limits, &L::request_timeout>(
                    "limits.request_timeout", "--request-timeout",
                    "Longest time for one answer; what is there by then is sent. 0: no limit.")
                    .range(0, kDay_ms));
}

void add_log_and_echo(std::vector<Option>& t) {
    using S = Settings;
    t.push_back(option<&S::log, &LogSettings::level>("log.level", "--log-level",
                                                     "The least important lines to write."));
    t.push_back(option<&S::log, &LogSettings::format>(
        "log.format", "--log-format", "text is for people, json has one object a line."));
    t.push_back(option<&S::log, &LogSettings::access>("log.access", "--access-log",
                                                      "Write one line for each request."));
    t.push_back(option<&S::echo, &EchoSettings::step_us>("echo.step_us", "--echo-step-us",
                                                         "Time of one step. 0: as fast as it goes.")
                    .range(0, 60e6)
                    .in("µs"));
    t.push_back(option<&S::echo, &EchoSettings::tokens_per_step>(
                    "echo.tokens_per_step", "--echo-tokens-per-step",
                    "Tokens that each request gets in one step.")
                    .range(1, 65'536)
                    .in("tokens"));
    t.push_back(option<&S::echo, &EchoSettings::fail_after>(
                    "echo.fail_after", "--echo-fail-after",
                    "End every answer with an error after so many tokens. 0: never.")
                    .range(0, kMaxCount)
                    .in("tokens"));
}

std::vector<Option> make_options() {
    std::vector<Option> all;
    add_model(all);
    add_server(all);
    add_auth(all);
    add_engine(all);
    add_prefix_cache(all);
    add_sampling(all);
    add_request_limits(all);
    add_time_limits(all);
    add_media_options(all);
    add_log_and_echo(all);
    add_mock_options(all);
    add_fleet_options(all);
    add_planner_options(all);
    add_gateway_options(all);
    return all;
}

constexpr std::array<Section, 19> kSections{{
    {"model", "Model", ""},
    {"server", "Server", ""},
    {"auth", "Access", ""},
    {"engine", "Engine", ""},
    {"sampling", "Sampling", "Used where a request does not say."},
    {"limits", "Limits", "What one client, or all of them together, can make the server hold."},
    {"media", "Media", "Images and videos in messages; docs/media.md."},
    {"log", "Log", "Written to standard error."},
    {"echo", "Echo engine", "Only with --engine echo."},
    {"mock", "Mock engine", "Only with --engine mock; docs/mock-engine.md."},
    {"supervisor", "Worker processes", "Only for `stator serve`."},
    {"fleet", "Fleet", "How a frontend finds and uses workers."},
    {"kube", "Kubernetes", "For kubernetes: in --discover; docs/discovery.md."},
    {"router", "Router", "How a frontend chooses among them."},
    {"worker", "Worker", "Only for `stator worker`."},
    {"transfer", "Handoffs", "Between workers: KV of prompts, embeddings of images."},
    {"planner", "Planner", "How many workers there should be; docs/planner.md."},
    {"gateway", "Gateway", "Only for `stator epp`; docs/gateway.md."},
    {"link", "Links", "Between frontends and workers."},
}};

}  // namespace

std::string_view to_string(OptionType type) {
    switch (type) {
        case OptionType::kBool:
            return "true or false";
        case OptionType::kInt:
            return "number";
        case OptionType::kFloat:
            return "decimal";
        case OptionType::kString:
            return "text";
        case OptionType::kDuration:
            return "duration";
        case OptionType::kBytes:
            return "size";
        case OptionType::kChoice:
            return "choice";
        case OptionType::kList:
            return "list";
    }
    return "text";
}

std::string_view Option::section() const { return key.substr(0, key.find('.')); }

std::string Option::environment() const {
    std::string name = "STATOR_";
    for (const char c : flag.substr(2)) {
        name += c == '-' ? '_' : static_cast<char>(c >= 'a' && c <= 'z' ? c - 'a' + 'A' : c);
    }
    return name;
}

std::span<const Option> options() {
    static const std::vector<Option> table = make_options();
    return table;
}

std::span<const Section> sections() { return kSections; }

const Option* find_option(std::string_view key) {
    for (const Option& o : options()) {
        if (o.key == key) return &o;
    }
    return nullptr;
}

std::size_t index_of(const Option& option) {
    const auto index = static_cast<std::size_t>(&option - options().data());
    STATOR_CHECK(index < options().size(), "an option outside the table");
    return index;
}

}  // namespace stator::config
