#include "stator/cli/bench_transfer_options.h"

#include <fmt/format.h>

#include <algorithm>
#include <string_view>
#include <utility>
#include <variant>

#include "stator/cli/command_line.h"
#include "stator/cli/help.h"
#include "stator/config/options.h"
#include "stator/config/value.h"

namespace stator::cli {
namespace {

config::Option size_option() {
    config::Option o;
    o.type = config::OptionType::kBytes;
    o.min = 1;
    o.max = static_cast<double>(kLargestHandoff);
    return o;
}

config::Option count_option() {
    config::Option o;
    o.type = config::OptionType::kInt;
    o.min = 1;
    o.max = kMostHandoffs;
    return o;
}

tl::unexpected<Error> wrong(std::string_view flag, std::string_view text,
                            std::string_view expected) {
    return error(ErrorCode::kInvalidArgument, "{} is {}; it must be {}.", flag,
                 config::in_quotes(text), expected);
}

/// Of `--bytes 1M,64M --bytes 1G`.
Result<std::vector<std::uint64_t>> read_sizes(const std::vector<std::string>& texts) {
    const config::Option option = size_option();
    std::vector<std::uint64_t> out;
    for (const std::string& text : texts) {
        for (std::string_view rest = text;;) {
            const std::string_view one = rest.substr(0, rest.find(','));
            const auto value = config::parse_value(option, one);
            if (!value) return wrong("--bytes", one, config::expectation(option));
            out.push_back(std::get<config::ByteSize>(*value).bytes);
            if (one.size() == rest.size()) break;
            rest.remove_prefix(one.size() + 1);
        }
    }
    std::ranges::sort(out);
    out.erase(std::ranges::unique(out).begin(), out.end());
    if (out.size() > kMostSizes) {
        return error(ErrorCode::kInvalidArgument, "--bytes names {} sizes; {} are the most.",
                     out.size(), kMostSizes);
    }
    return out;
}

/// Takes --listen out of the flags; empty: it was not given. The variable and the file, which
/// workers of this machine read, do not make this command listen.
std::string take_listen(std::vector<config::FlagValue>& flags) {
    const auto found = std::ranges::find_if(
        flags, [](const config::FlagValue& flag) { return flag.option->key == "worker.listen"; });
    if (found == flags.end() || found->texts.empty()) return {};
    std::string out = found->texts.back();
    flags.erase(found);
    return out;
}

Result<net::SocketAddress> read_address(std::string_view flag, const std::string& text) {
    auto address = net::parse_socket_address(text);
    if (address) return address;
    return error(ErrorCode::kInvalidArgument, "{}: {}", flag, address.error().message);
}

struct Given {
    std::vector<std::string> words;
    std::vector<std::string> sizes;
    std::string handoffs;
    std::string connect;
    std::string listen;
};

Result<void> set_mode(BenchTransferOptions& o, const Given& given) {
    using Mode = BenchTransferOptions::Mode;
    if (!given.words.empty()) {
        return error(ErrorCode::kInvalidArgument,
                     "{} is not expected here; see stator bench transfer --help.",
                     config::in_quotes(given.words.front()));
    }
    if (!given.listen.empty() && !given.connect.empty()) {
        return error(ErrorCode::kInvalidArgument,
                     "--listen and --connect don't go together: one is for each of two machines.");
    }
    if (!given.connect.empty()) o.mode = Mode::kConnect;
    if (!given.listen.empty()) o.mode = Mode::kListen;
    if (o.mode == Mode::kLocal) return {};
    auto address = o.mode == Mode::kListen ? read_address("--listen", given.listen)
                                           : read_address("--connect", given.connect);
    if (!address) return tl::unexpected<Error>(std::move(address.error()));
    if (o.mode == Mode::kConnect && address->kind == net::SocketAddress::Kind::kTcp &&
        address->port == 0) {
        return error(ErrorCode::kInvalidArgument,
                     "--connect needs the port that the other side says it listens on.");
    }
    o.address = std::move(*address);
    return {};
}

}  // namespace

Result<std::optional<BenchTransferOptions>> parse_bench_transfer_options(
    const std::vector<std::string>& args, bool supervised) {
    BenchTransferOptions o;
    Given given;
    CommandLine line("stator bench transfer");
    line.add_words(given.words);
    line.add_values("--bytes", given.sizes);
    line.add_value("--handoffs", given.handoffs);
    line.add_value("--connect", given.connect);
    line.add_value("--json", o.json);
    line.add_value("--config", o.config_path);
    line.add_options(o.flags);
    const auto outcome = line.parse(args);
    if (!outcome) return tl::unexpected(outcome.error());
    if (*outcome == CommandLine::Outcome::kHelp) return std::nullopt;
    given.listen = take_listen(o.flags);
    if (auto ok = set_mode(o, given); !ok) return tl::unexpected<Error>(std::move(ok.error()));
    const bool measures = o.mode != BenchTransferOptions::Mode::kListen;
    if (!measures && !supervised &&
        !(given.sizes.empty() && given.handoffs.empty() && o.json.empty())) {
        return error(ErrorCode::kInvalidArgument,
                     "--bytes, --handoffs and --json belong to the side that connects.");
    }
    if (!given.sizes.empty()) {
        auto sizes = read_sizes(given.sizes);
        if (!sizes) return tl::unexpected<Error>(std::move(sizes.error()));
        o.sizes = std::move(*sizes);
    }
    if (!given.handoffs.empty()) {
        const config::Option option = count_option();
        const auto value = config::parse_value(option, given.handoffs);
        if (!value) return wrong("--handoffs", given.handoffs, config::expectation(option));
        o.handoffs = static_cast<std::uint32_t>(std::get<std::int64_t>(*value));
    }
    return o;
}

std::string bench_transfer_help(const Style& style) {
    std::string out =
        "stator bench transfer: what it costs to hand bytes (a prompt's KV, a picture's "
        "embeddings) from\none worker to another, by every way that works here, beside what this "
        "machine copies in memory.\n\n"
        "Alone it starts a second process on this machine and measures between the two. Between "
        "two\nmachines, one listens and the other one connects and measures; they prove to each "
        "other that they\nknow the links' secret, as workers do.\n";
    const auto heading = [&](std::string_view text) {
        out += fmt::format("\n{}{}{}\n", style.bold, text, style.reset);
    };
    heading("Examples");
    out +=
        "  stator bench transfer\n"
        "  stator bench transfer --bytes 24M --handoffs 1000 --transfer tcp\n"
        "  stator bench transfer --json figures.json\n"
        "  stator bench transfer --listen 10.0.0.7:7100 --link-secret-file secret.txt    (on one)\n"
        "  stator bench transfer --connect 10.0.0.7:7100 --link-secret-file secret.txt   (on the "
        "other)\n";
    heading("What to measure");
    out += help_entry("--bytes SIZE",
                      "Bytes of a handoff; several by commas or by giving it again. "
                      "(default: 1M,64M)");
    out += help_entry("--handoffs NUMBER", "How many of each size, by each way. (default: 100)");
    out += help_entry("--listen ADDRESS",
                      "Make handoffs for who connects, until Ctrl-C. HOST:PORT or unix:/path.");
    out += help_entry("--connect ADDRESS", "Measure with the process that listens there.");
    out += help_entry("--json FILE", "All figures for programs; - is standard output.");
    heading("How they travel");
    for (const config::Option& option : config::options()) {
        const bool link = option.section() == "link" && option.key != "link.silent_after";
        const bool plane = option.section() == "transfer" && option.key != "transfer.lease" &&
                           option.key != "transfer.timeout";
        if (!link && !plane) continue;
        out += help_entry(std::string(option.flag), option.meaning);
    }
    out +=
        "  `stator serve --help` has their defaults; --config and variables count too. TLS and "
        "the\n"
        "  address that handoffs are fetched from matter between two machines alone.\n";
    heading("What is shown");
    out += help_entry("GB/s",
                      "Bytes of a handoff by the median time of its claim. Shared memory is "
                      "mapped, not copied.");
    out += help_entry("read",
                      "The same with one look at every byte by one thread; of memcpy, the "
                      "copy alone.");
    out += help_entry("p50, p99",
                      "From asking for the handoff to having it: it is published, told "
                      "over the link, claimed.");
    out += help_entry("first",
                      "The first one of its size: of the first size by the first way, its "
                      "pages were never used.");
    out += help_entry("CPU",
                      "Of both processes together, without writing and reading the bytes. NIXL's "
                      "thread polls while it is on, whatever way is measured.");
    out +=
        "\nCtrl-C ends it and shows what was measured. Exit codes: 0 measured, 1 broken off, 2 "
        "wrong usage.\n";
    return out;
}

}  // namespace stator::cli
