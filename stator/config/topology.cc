#include "stator/config/topology.h"

#include <fmt/format.h>
#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <set>

#include "stator/config/value.h"
#include "stator/config/yaml_file.h"

namespace stator::config {
namespace {

constexpr std::uint32_t kMaxProcesses = 1024;
constexpr std::size_t kMaxNameBytes = 64;

bool is_name(std::string_view s) {
    return !s.empty() && s.size() <= kMaxNameBytes && std::ranges::all_of(s, [](char c) {
        return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
               c == '-' || c == '_';
    });
}

class TopologyReader {
  public:
    explicit TopologyReader(std::string_view file) : file_(file) {}

    void document(const YAML::Node& root) {
        const bool has_workers = root.IsMap() && root["workers"] && root["workers"].IsSequence();
        if (!has_workers) {
            problem(root, "The file must have a list \"workers:\" of workers to start.");
            return;
        }
        for (const auto& entry : root) {
            if (entry.first.Scalar() != "workers") {
                problem(entry.first, "There is nothing called {} here; only \"workers\".",
                        in_quotes(entry.first.Scalar()));
            }
        }
        for (const YAML::Node& node : root["workers"]) worker(node);
        if (processes_ > kMaxProcesses) {
            problem(root, "These are {} processes; at most {} can be started.", processes_,
                    kMaxProcesses);
        }
        if (workers_.empty() && problems_.empty()) problem(root, "The list of workers is empty.");
    }

    tl::expected<std::vector<TopologyWorker>, Problems> take() {
        if (!problems_.empty()) return tl::unexpected(std::move(problems_));
        return std::move(workers_);
    }

    void syntax(int line, std::string_view what) {
        problems_.push_back(
            {fmt::format("{}:{}", file_, line), fmt::format("This is no YAML: {}.", what)});
    }

  private:
    template <typename... Args>
    void problem(const YAML::Node& node, fmt::format_string<Args...> format, Args&&... args) {
        problems_.push_back({fmt::format("{}:{}", file_, node.Mark().line + 1),
                             fmt::format(format, std::forward<Args>(args)...)});
    }

    void worker(const YAML::Node& node) {
        if (!node.IsMap()) {
            problem(node,
                    "A worker is written \"- name: NAME\" with count, options and "
                    "environment below it.");
            return;
        }
        TopologyWorker w;
        for (const auto& entry : node) {
            const std::string key = entry.first.IsScalar() ? entry.first.Scalar() : "";
            if (key == "name") {
                name(entry.second, w);
            } else if (key == "count") {
                count(entry.second, w);
            } else if (key == "options") {
                options(entry.second, w);
            } else if (key == "environment") {
                environment(entry.second, w);
            } else {
                problem(entry.first, "A worker has name, count, options and environment, not {}.",
                        in_quotes(key));
            }
        }
        if (w.name.empty()) problem(node, "This worker has no name.");
        processes_ += w.count;
        workers_.push_back(std::move(w));
    }

    void name(const YAML::Node& node, TopologyWorker& w) {
        const std::string text = node.IsScalar() ? node.Scalar() : "";
        if (!is_name(text)) {
            problem(node,
                    "A worker's name must be up to {} letters, digits, dashes or "
                    "underscores, not {}.",
                    kMaxNameBytes, in_quotes(text));
        } else if (!names_.insert(text).second) {
            problem(node, "Two workers are called {}.", in_quotes(text));
        }
        w.name = text.empty() ? "?" : text;
    }

    void count(const YAML::Node& node, TopologyWorker& w) {
        const bool ok = node.IsScalar() && YAML::convert<std::uint32_t>::decode(node, w.count) &&
                        w.count >= 1 && w.count <= kMaxProcesses;
        if (ok) return;
        w.count = 1;
        problem(node, "count must be a whole number from 1 to {}.", kMaxProcesses);
    }

    /// Read as a configuration file of its own, so that its checks and messages are the same.
    void options(const YAML::Node& node, TopologyWorker& w) {
        YAML::Emitter text;
        text << node;
        FileReading read = read_yaml(file_, text.c_str());
        for (Problem& p : read.problems) {
            // Lines of the part count from its beginning.
            const auto colon = p.where.rfind(':');
            const int line = colon == std::string::npos ? 1 : std::atoi(&p.where[colon + 1]);
            p.where = fmt::format("{}:{}", file_, node.Mark().line + std::max(line, 1));
            problems_.push_back(std::move(p));
        }
        for (const FileEntry& e : read.entries) {
            w.options.emplace_back(e.option, format_value(*e.option, e.value));
        }
    }

    void environment(const YAML::Node& node, TopologyWorker& w) {
        if (!node.IsMap()) {
            problem(node, "environment must be NAME: VALUE pairs.");
            return;
        }
        for (const auto& entry : node) {
            const bool plain = entry.first.IsScalar() && entry.second.IsScalar() &&
                               !entry.first.Scalar().empty() &&
                               entry.first.Scalar().find('=') == std::string::npos;
            if (plain) {
                w.environment.emplace_back(entry.first.Scalar(), entry.second.Scalar());
            } else {
                problem(entry.first, "environment must be NAME: VALUE pairs.");
            }
        }
    }

    std::string file_;
    std::vector<TopologyWorker> workers_;
    Problems problems_;
    std::set<std::string> names_;
    std::uint64_t processes_ = 0;
};

}  // namespace

std::optional<std::string_view> named_topology(std::string_view name) {
    if (name == "pd") {
        return R"(workers:
  - {name: prefill, options: {worker: {roles: prefill}}}
  - {name: decode, options: {worker: {roles: decode}}}
)";
    }
    if (name == "epd") {
        return R"(workers:
  - {name: encode, options: {worker: {roles: encode}}}
  - {name: prefill, options: {worker: {roles: prefill}}}
  - {name: decode, options: {worker: {roles: decode}}}
)";
    }
    return std::nullopt;
}

tl::expected<std::vector<TopologyWorker>, Problems> read_topology(std::string_view name,
                                                                  std::string_view text) {
    TopologyReader reader(name);
    if (text.size() > kMaxFileBytes) {
        return tl::unexpected(Problems{
            {std::string(name), fmt::format("The file is larger than {} bytes.", kMaxFileBytes)}});
    }
    try {
        reader.document(YAML::Load(std::string(text)));
    } catch (const YAML::Exception& e) {
        reader.syntax(e.mark.line + 1, e.msg);
    }
    return reader.take();
}

}  // namespace stator::config
