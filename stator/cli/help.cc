#include "stator/cli/help.h"

#include <fmt/format.h>

#include <algorithm>

#include "stator/config/options.h"
#include "stator/config/reference.h"

namespace stator::cli {
namespace {

constexpr std::size_t kLeft = 30;
constexpr std::size_t kWidth = 100;

std::string heading(std::string_view text, const Style& style) {
    return fmt::format("\n{}{}{}\n", style.bold, text, style.reset);
}

/// What stands after the flag: "NUMBER", "text|json", nothing for true and false.
std::string placeholder(const config::Option& option) {
    switch (option.type) {
        case config::OptionType::kBool:
            return "";
        case config::OptionType::kInt:
        case config::OptionType::kFloat:
            return " NUMBER";
        case config::OptionType::kDuration:
            return " TIME";
        case config::OptionType::kBytes:
            return " SIZE";
        case config::OptionType::kChoice:
            return option.choices.size() > 3 ? " WORD"
                                             : fmt::format(" {}", fmt::join(option.choices, "|"));
        case config::OptionType::kString:
        case config::OptionType::kList:
            break;
    }
    std::string name = option.unit.empty() ? "text" : std::string(option.unit);
    std::ranges::transform(name, name.begin(), [](char c) {
        return static_cast<char>(c >= 'a' && c <= 'z' ? c - 'a' + 'A' : c);
    });
    return " " + name;
}

std::string option_entry(const config::Option& option) {
    std::string right(option.meaning);
    if (option.type == config::OptionType::kChoice && option.choices.size() > 3)
        right += fmt::format(" One of {}.", fmt::join(option.choices, ", "));
    if (option.type == config::OptionType::kList) right += " May be given several times.";
    std::string left(option.flag);
    if (option.type == config::OptionType::kBool) {
        const bool on = std::get<bool>(option.get(config::Settings{}));
        if (on) left = fmt::format("{0}, --no-{1}", option.flag, option.flag.substr(2));
        right += on ? " (default: yes)" : " (default: no)";
    } else if (const std::string value = config::default_text(option); value != "none") {
        right += fmt::format(" (default: {})", value);
    }
    return help_entry(left + placeholder(option), right);
}

}  // namespace

std::string help_entry(std::string_view left, std::string_view right) {
    std::string out = fmt::format("  {}", left);
    if (out.size() + 2 > kLeft) {
        out += '\n';
        out.append(kLeft, ' ');
    } else {
        out.append(kLeft - out.size(), ' ');
    }
    std::size_t column = kLeft;
    while (!right.empty()) {
        const auto blank = std::min(right.find(' '), right.size());
        const std::string_view word = right.substr(0, blank);
        right.remove_prefix(std::min(blank + 1, right.size()));
        if (column > kLeft && column + 1 + word.size() > kWidth) {
            out += '\n';
            out.append(kLeft, ' ');
            column = kLeft;
        }
        if (column > kLeft) {
            out += ' ';
            ++column;
        }
        out += word;
        column += word.size();
    }
    out += '\n';
    return out;
}

std::string overview(const std::vector<CommandSummary>& commands, const Style& style) {
    std::string out =
        fmt::format("{}stator{} serves large language models over an OpenAI-compatible HTTP API.\n",
                    style.bold, style.reset);
    out += heading("Commands", style);
    for (const CommandSummary& c : commands)
        out += help_entry(fmt::format("stator {}", c.name), c.does);
    out += heading("First steps", style);
    out += help_entry("stator serve", "start a server; it prints a curl line to try");
    out += help_entry("stator chat", "in a second terminal: talk to it");
    out += help_entry("stator frontend", "the same in parts: the door in one terminal …");
    out += help_entry("stator worker", "… and in others as many workers as you like");
    out += "\nstator COMMAND --help says more about each.\n";
    return out;
}

namespace {

void append_general(std::string& out, const Style& style) {
    out +=
        "\nEvery option can be given as a flag, as an environment variable (--log-level is\n"
        "STATOR_LOG_LEVEL) or in a YAML file; `stator config` shows which values are in force.\n";
    out += heading("General", style);
    out += help_entry("-h, --help", "Show this text.");
    out += help_entry("--config FILE", "Read options from a YAML file. (else: $STATOR_CONFIG)");
}

/// The options of these sections, in this order; of all, where none is named.
void append_sections(std::string& out, std::vector<std::string_view> names, const Style& style) {
    if (names.empty()) {
        for (const config::Section& section : config::sections()) names.push_back(section.name);
    }
    for (const std::string_view name : names) {
        const auto section = std::ranges::find(config::sections(), name, &config::Section::name);
        out += heading(section->title, style);
        if (!section->intro.empty()) out += fmt::format("  {}\n", section->intro);
        for (const config::Option& option : config::options()) {
            if (option.section() == name) out += option_entry(option);
        }
    }
}

}  // namespace

std::string serve_help(const Style& style) {
    std::string out =
        "stator serve: run a model behind an OpenAI-compatible HTTP API, until Ctrl-C.\n";
    out += heading("Examples", style);
    out +=
        "  stator serve --model my-model.gguf\n"
        "  stator serve --model my-model.gguf --host 0.0.0.0 --api-key-file keys.txt\n"
        "  stator serve --engine echo          no model needed: try the API\n"
        "  stator serve --workers 2            two worker processes; kill one, nothing is lost\n"
        "  stator serve --engine vllm=http://10.0.0.7:8000 --engine vllm=http://10.0.0.8:8000 \\\n"
        "               --model-dir DIR        engines that run already, unmodified\n";
    append_general(out, style);
    append_sections(out, {}, style);
    return out;
}

std::string frontend_help(const Style& style) {
    std::string out =
        "stator frontend: the HTTP door in front of workers that it finds, until Ctrl-C.\n\n"
        "It needs no model file: tokenizer and template come from the workers. Models appear when\n"
        "their first worker does, and requests go on elsewhere when a worker is lost.\n";
    out += heading("Examples", style);
    out +=
        "  stator frontend                                  workers of this user on this machine\n"
        "  stator frontend --discover 10.0.0.7:7000 --discover 10.0.0.8:7000 \\\n"
        "                  --link-secret-file secret.txt\n"
        "  stator frontend --discover dns:workers.internal:7000 --alias "
        "fast=smollm2-135m-instruct\n";
    append_general(out, style);
    append_sections(
        out, {"server", "auth", "fleet", "kube", "router", "link", "sampling", "limits", "log"},
        style);
    return out;
}

std::string router_help(const Style& style) {
    std::string out =
        "stator router: where requests should go, for gateways and servers that send them\n"
        "themselves, until Ctrl-C. It follows the workers as `stator frontend` does and answers\n"
        "POST /router/select, reserve, first_token, release, overlap; docs/routing.md has them.\n";
    out += heading("Examples", style);
    out +=
        "  stator router --port 8001\n"
        "  curl localhost:8001/router/select -d '{\"model\":\"mock\",\"tokens\":[1,2,3]}'\n";
    append_general(out, style);
    append_sections(out, {"server", "auth", "fleet", "kube", "router", "link", "limits", "log"},
                    style);
    return out;
}

std::string epp_help(const Style& style) {
    std::string out =
        "stator epp: an endpoint picker for gateways with the Gateway API Inference Extension,\n"
        "until Ctrl-C. It follows the workers as `stator frontend` does and tells the gateway, "
        "for\n"
        "each request, the pod that has its prefix; docs/gateway.md walks through it.\n";
    out += heading("Examples", style);
    out +=
        "  stator epp --discover dns:workers:7000 --gateway-listen 0.0.0.0:9002 "
        "--gateway-target-port 8000\n"
        "  stator worker --engine vllm=http://10.0.0.7:8000 --model-dir DIR    beside each pod\n";
    append_general(out, style);
    append_sections(out, {"gateway", "server", "auth", "fleet", "router", "link", "limits", "log"},
                    style);
    return out;
}

std::string planner_help(const Style& style) {
    std::string out =
        "stator planner: says how many workers a fleet should have, ahead of its load, until\n"
        "Ctrl-C. It hears of demand from frontends and of loads from workers, foretells what will\n"
        "be asked for when a worker started now would be ready, and orders by a webhook; without\n"
        "one it only says what it would do. `stator serve --planner act` has it built in and\n"
        "starts and ends worker processes itself.\n";
    out += heading("Usage", style);
    out += help_entry("stator planner", "watch a fleet and decide");
    out += help_entry("stator planner explain", "what was decided last, and why");
    out += heading("Examples", style);
    out +=
        "  stator planner --planner-workers aggregated=1-16    workers of this user, advice only\n"
        "  stator planner --discover dns:workers.internal:7000 --router-peers dns:fronts:7100 \\\n"
        "                 --planner-webhook http://scaler.internal/orders\n"
        "  stator planner explain --url http://127.0.0.1:8000 --last 5\n";
    out += heading("Options of explain", style);
    out += help_entry("--url URL",
                      "The server with the planner. (default: http://127.0.0.1:8000, where `stator "
                      "serve` is; `stator planner` shows itself on port 8002)");
    out += help_entry("--last N", "So many decisions. (default: 1)");
    out += help_entry("--json", "For programs.");
    out += help_entry("--api-key-file FILE", "A key, where the server asks for one.");
    append_general(out, style);
    append_sections(out, {"planner", "fleet", "link", "log"}, style);
    out += "\n--router-peers, --events-key-file and --allow-unauthenticated are taken too.\n";
    return out;
}

std::string worker_help(const Style& style) {
    std::string out =
        "stator worker: one model for frontends to find, until Ctrl-C; then it takes no new\n"
        "requests, lets those in work end, and leaves.\n";
    out += heading("Examples", style);
    out +=
        "  stator worker --model my-model.gguf              found by frontends of this user\n"
        "  stator worker --model my-model.gguf --listen 0.0.0.0:7000 --link-secret-file "
        "secret.txt\n"
        "  stator worker --engine echo --worker-name a      no model needed\n"
        "  stator worker --engine mock --count 8            eight imitated GPUs in one process\n"
        "  stator worker --engine vllm=http://127.0.0.1:8000 --model-dir DIR\n"
        "                                                   beside an engine that runs already\n";
    append_general(out, style);
    append_sections(out, {"model", "worker", "link", "engine", "mock", "log", "echo"}, style);
    out += "\n--grace (default: 30s) and --allow-unauthenticated are taken too.\n";
    return out;
}

std::string events_help(const Style& style) {
    std::string out = "stator events: what the workers of a fleet publish, as it happens.\n";
    out += heading("Usage", style);
    out += help_entry("stator events tail", "print every event as a line, until Ctrl-C");
    out += help_entry("stator events keygen", "make a pair of CURVE keys for --events-key-file");
    out += heading("Examples", style);
    out +=
        "  stator events tail                               workers of this user on this machine\n"
        "  stator events tail --topic kv --topic lifecycle --json\n"
        "  stator events tail --discover dns:workers.internal:7000 --link-secret-file secret.txt\n";
    out += heading("Options of tail", style);
    out += help_entry("--topic NAME", "Only this topic (kv, load, lifecycle); may be repeated.");
    out += help_entry("--json", "One JSON object a line, for programs.");
    out += help_entry("--heartbeats", "Also what is published when nothing happens.");
    out += help_entry("--count N", "End after so many lines.");
    out += help_entry("--events-key-file FILE",
                      "Our own CURVE keys, where the workers' events are encrypted.");
    append_general(out, style);
    append_sections(out, {"fleet", "kube", "link", "log"}, style);
    return out;
}

std::string chat_help(const Style& style) {
    std::string out =
        "stator chat: talk to a running server from the terminal.\n\n"
        "With a prompt, or with text on standard input, it prints one answer and ends; otherwise "
        "it "
        "asks for\nyour messages one after the other.\n";
    out += heading("Examples", style);
    out +=
        "  stator chat\n"
        "  stator chat Why is the sky blue?\n"
        "  git diff | stator chat --system 'Summarise this change in one sentence.'\n";
    out += heading("Options", style);
    out += help_entry("-h, --help", "Show this text.");
    out += help_entry("--url URL", "The server. (default: http://127.0.0.1:8000)");
    out += help_entry("--model NAME", "The model to ask. (default: the first one the server has)");
    out += help_entry("--system TEXT", "What the model should be told before the conversation.");
    out += help_entry("--temperature NUMBER", "0 to 2; 0 always takes the likeliest token.");
    out += help_entry("--max-tokens NUMBER", "Longest answer.");
    out += help_entry("--api-key KEY",
                      "For servers that ask for one. Better in the environment, where other users "
                      "don't see it: STATOR_API_KEY.");
    out += heading("While it runs", style);
    out += help_entry("/help", "the commands");
    out += help_entry("/reset", "forget the conversation");
    out += help_entry("/system TEXT", "change what the model is told, and begin anew");
    out += help_entry("/quit or Ctrl-D", "leave");
    out += help_entry("Ctrl-C", "stop the answer; once more: leave");
    out += help_entry("\\ at a line's end", "the message goes on in the next line");
    return out;
}

std::string sim_help(const Style& style) {
    std::string out =
        "stator sim: a whole fleet on virtual time: engines, routing, load and faults from a "
        "scenario\nfile, with the classes that serve real traffic. The same seed gives the same "
        "report.\n";
    out += heading("Examples", style);
    out +=
        "  stator sim examples/sim/shared-prefix.yaml\n"
        "  stator sim examples/sim/conversation.yaml --html report.html\n"
        "  stator sim examples/sim/shared-prefix.yaml --sweep router.policy=random,least-loaded "
        "\\\n"
        "             --sweep fleet.workers.workers=2,4,8 --html sweep.html\n";
    out += heading("Options", style);
    out += help_entry("-h, --help", "Show this text.");
    out += help_entry("--seed N", "Of everything random. (default: 1)");
    out += help_entry("--json", "The report as JSON, one run a line, instead of a table.");
    out += help_entry("--html FILE", "A page with plots; runs of a sweep over each other.");
    out += help_entry("--set PLACE=VALUE",
                      "Change one value of the scenario: names with dots between them, groups of "
                      "the fleet by name. May be given several times.");
    out += help_entry("--sweep PLACE=A,B",
                      "Run once for each value; given several times, for each combination.");
    out += help_entry("--jobs N", "Runs of a sweep at a time. (default: one per core)");
    out +=
        "\nCtrl-C shows what was simulated so far. docs/simulator.md describes scenario files.\n";
    return out;
}

std::string config_help(const Style& style) {
    std::string out = "stator config: every option, its value, and where the value comes from.\n";
    out += heading("Usage", style);
    out += help_entry("stator config", "with flags as for `stator serve`: what it would use");
    out += help_entry("stator config check FILE", "report everything wrong in a YAML file");
    out += heading("Options", style);
    out += help_entry("-h, --help", "Show this text.");
    out += help_entry("--json", "For programs.");
    out += help_entry("--markdown", "The reference manual, docs/configuration.md.");
    out += help_entry("--config FILE", "Read options from a YAML file. (else: $STATOR_CONFIG)");
    return out;
}

std::string version_help(const Style& style) {
    std::string out = "stator version: what this program was built from.\n";
    out += heading("Options", style);
    out += help_entry("-h, --help", "Show this text.");
    out += help_entry("--json", "For programs.");
    return out;
}

}  // namespace stator::cli
