#include "stator/cli/fleet_summary.h"

#include <fmt/format.h>

#include "stator/base/version.h"
#include "stator/cli/startup_summary.h"

namespace stator::cli {

std::string fleet_summary(const std::string& program, const std::string& host, std::uint16_t port,
                          bool api_keys, const protocol::ModelCard& card, const Style& style) {
    const std::string url = local_url(host, port);
    std::string out = fmt::format("{}Stator {} serves {} on {}{}\n\n", style.bold, version(),
                                  card.name, url, style.reset);
    const bool chat = card.chat_template.has_value();
    out += fmt::format("{}Try it:{}\n", style.bold, style.reset);
    out += try_line(url, card.name, chat, api_keys);
    if (chat) {
        const bool usual = url == "http://127.0.0.1:8000";
        out += fmt::format("  {} chat{}\n", program, usual ? "" : " --url " + url);
    }
    return out + fmt::format("  curl {}/health        workers, pools and their load\n", url) +
           "\nCtrl-C ends it.\n";
}

}  // namespace stator::cli
