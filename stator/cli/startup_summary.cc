#include "stator/cli/startup_summary.h"

#include <fmt/format.h>

#include "stator/cli/bind_guard.h"
#include "stator/codec/json_writer.h"

namespace stator::cli {
namespace {

/// Within single quotes of a POSIX shell.
std::string shell_quoted(std::string_view text) {
    std::string out = "'";
    for (const char c : text) {
        if (c == '\'') {
            out += "'\\''";
        } else {
            out += c;
        }
    }
    return out + "'";
}

std::string access_text(const StartupFacts& f) {
    if (f.api_keys) return "API keys are asked for";
    if (is_loopback(f.host)) return "no API keys; reachable from this machine alone";
    return "no API keys: anyone who can reach this address may use it";
}

std::string model_text(const StartupFacts& f) {
    std::string text = f.model_title;
    if (f.file_bytes != 0) text += fmt::format(", {} MB", (f.file_bytes + 500'000) / 1'000'000);
    text += fmt::format(", {} on {}", f.engine.kind, f.engine.device);
    if (f.load_seconds > 0.0) text += fmt::format(", loaded in {:.2f} s", f.load_seconds);
    return text;
}

}  // namespace

std::string local_url(const std::string& host, std::uint16_t port) {
    std::string name = host;
    if (name == "0.0.0.0") name = "127.0.0.1";
    if (name == "::" || name == "[::]") name = "::1";
    if (name.find(':') != std::string::npos && !name.starts_with('[')) name = "[" + name + "]";
    return fmt::format("http://{}:{}", name, port);
}

std::string try_line(const std::string& url, const std::string& model, bool can_chat,
                     bool api_keys) {
    std::string body = "{\"model\": ";
    codec::append_json_string(body, model);
    body +=
        can_chat
            ? ", \"stream\": true, \"max_tokens\": 200, \"messages\": [{\"role\": \"user\", "
              "\"content\": "
              "\"Why is the sky blue?\"}]}"
            : ", \"stream\": true, \"max_tokens\": 200, \"prompt\": \"The sky is blue because\"}";
    return fmt::format("  curl -N {}/v1/{} -H 'Content-Type: application/json' \\\n{}    -d {}\n",
                       url, can_chat ? "chat/completions" : "completions",
                       api_keys ? "    -H \"Authorization: Bearer $STATOR_API_KEY\" \\\n" : "",
                       shell_quoted(body));
}

std::string startup_summary(const StartupFacts& f, const Style& style) {
    const std::string url = local_url(f.host, f.port);
    std::string out = fmt::format("{}Stator {} serves {} on {}{}\n\n", style.bold, f.version,
                                  f.model_id, url, style.reset);
    const auto line = [&](std::string_view name, std::string_view text) {
        out += fmt::format("  {}{:<8}{}{}\n", style.dim, name, style.reset, text);
    };
    line("model", model_text(f));
    std::string context = fmt::format("{} tokens a request", f.engine.context_tokens);
    if (f.kv_tokens != 0) context += fmt::format(", {} in the KV cache for all", f.kv_tokens);
    line("context", context);
    line("load", fmt::format("{} requests at a time, {} may wait", f.engine.max_running,
                             f.engine.max_waiting));
    line("threads", fmt::format("{} for the model, {} for HTTP", f.threads.engine, f.threads.http));
    line("access", access_text(f));
    out += fmt::format("\n{}Try it:{}\n", style.bold, style.reset);
    out += try_line(url, f.model_id, f.can_chat, f.api_keys);
    const bool usual = url == "http://127.0.0.1:8000";
    if (f.can_chat) {
        out += fmt::format("  {} chat{}\n", f.program, usual ? "" : " --url " + url);
    }
    return out + "\nCtrl-C ends it.\n";
}

}  // namespace stator::cli
