#include "stator/cli/model_parts.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <optional>
#include <utility>
#include <vector>

#include "stator/base/log.h"
#include "stator/cli/model_location.h"
#include "stator/config/value.h"
#include "stator/text/byte_tokenizer.h"
#include "stator/text/parsers/output_parser.h"

namespace stator::cli {
namespace {

constexpr std::string_view kPlainTemplate =
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";

frontend::SamplingDefaults sampling_defaults(const config::SamplingSettings& wanted,
                                             const model::ModelFacts& facts) {
    const frontend::SamplingDefaults usual;
    frontend::SamplingDefaults d;
    const auto pick = [](const std::optional<double>& ours, const std::optional<float>& files,
                         float otherwise) {
        return ours ? static_cast<float>(*ours) : files.value_or(otherwise);
    };
    d.temperature = pick(wanted.temperature, facts.temperature, usual.temperature);
    d.top_p = pick(wanted.top_p, facts.top_p, usual.top_p);
    d.min_p = pick(wanted.min_p, facts.min_p, usual.min_p);
    d.top_k = wanted.top_k.value_or(facts.top_k.value_or(usual.top_k));
    return d;
}

/// What one of --tool-parser and --reasoning-parser asks for.
Result<std::string> chosen_format(std::string_view flag, const std::string& wanted,
                                  const std::string& detected,
                                  const std::vector<std::string_view>& known) {
    if (wanted.empty() || wanted == "auto") return detected;
    if (wanted == "none") return std::string();
    if (std::ranges::find(known, wanted) != known.end()) return wanted;
    return error(ErrorCode::kInvalidArgument, "{} must be auto, none or one of {}, not {}.", flag,
                 fmt::join(known, ", "), config::in_quotes(wanted));
}

/// From the settings, or what the template shows.
Result<void> choose_format(const config::ModelSettings& wanted, ServedEngine& out) {
    const text::OutputFormat detected = text::detect_output_format(out.template_source);
    auto tools =
        chosen_format("--tool-parser", wanted.tool_parser, detected.tools, text::tool_formats());
    if (!tools) return tl::unexpected(tools.error());
    auto reasoning = chosen_format("--reasoning-parser", wanted.reasoning_parser,
                                   detected.reasoning, text::reasoning_formats());
    if (!reasoning) return tl::unexpected(reasoning.error());
    out.format = {std::move(*tools), std::move(*reasoning)};
    return {};
}

}  // namespace

Result<void> use_model_file(const std::string& path, const config::Settings& settings,
                            ServedEngine& out) {
    auto file = model::GgufModel::open(path);
    if (!file) return tl::unexpected(file.error());
    out.file = std::move(*file);
    const model::ModelFacts& facts = out.file->facts();
    // Shares the file's life.
    out.tokenizer = {out.file, &out.file->tokenizer()};
    out.title = facts.name;
    out.id =
        settings.model.served_name.empty() ? served_name(facts.name) : settings.model.served_name;
    out.file_bytes = facts.file_bytes;
    out.defaults = sampling_defaults(settings.sampling, facts);
    if (facts.chat_template.empty()) return choose_format(settings.model, out);
    auto compiled = text::ChatTemplate::compile(facts.chat_template, facts.bos, facts.eos);
    if (compiled) {
        out.chat_template = std::make_shared<text::ChatTemplate>(std::move(*compiled));
        out.template_source = facts.chat_template;
        out.template_bos = facts.bos;
        out.template_eos = facts.eos;
    } else {
        log_warn("The model's chat template can't be used; only /v1/completions will work.",
                 {{"reason", compiled.error().message}});
    }
    return choose_format(settings.model, out);
}

Result<void> use_byte_tokenizer(const std::string& title, const std::string& id,
                                const config::Settings& settings, ServedEngine& out) {
    out.title = title;
    out.id = settings.model.served_name.empty() ? id : settings.model.served_name;
    out.tokenizer = std::make_shared<text::ByteTokenizer>(
        std::vector<std::string>{"<|im_start|>", "<|im_end|>"});
    auto compiled = text::ChatTemplate::compile(kPlainTemplate, "", "<|im_end|>");
    if (!compiled) return tl::unexpected(compiled.error());
    out.chat_template = std::make_shared<text::ChatTemplate>(std::move(*compiled));
    out.template_source = kPlainTemplate;
    out.template_eos = "<|im_end|>";
    out.defaults = sampling_defaults(settings.sampling, model::ModelFacts{});
    return choose_format(settings.model, out);
}

}  // namespace stator::cli
