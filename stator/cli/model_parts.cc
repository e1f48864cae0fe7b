#include "stator/cli/model_parts.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <optional>
#include <utility>
#include <vector>

#include "stator/base/log.h"
#include "stator/cli/model_location.h"
#include "stator/config/value.h"
#include "stator/model/hf_folder.h"
#include "stator/model/hf_tokenizer.h"
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

Result<void> use_facts(const model::ModelFacts& facts, const config::Settings& settings,
                       ServedEngine& out) {
    out.facts = facts;
    out.title = facts.name;
    out.id =
        settings.model.served_name.empty() ? served_name(facts.name) : settings.model.served_name;
    out.defaults = sampling_defaults(settings.sampling, facts);
    if (facts.chat_template.empty()) return choose_format(settings.model, out);
    auto compiled = text::ChatTemplate::compile(facts.chat_template, facts.bos, facts.eos);
    if (!compiled) {
        log_warn("The model's chat template can't be used; only /v1/completions will work.",
                 {{"reason", compiled.error().message}});
        return choose_format(settings.model, out);
    }
    out.chat_template = std::make_shared<text::ChatTemplate>(std::move(*compiled));
    out.template_source = facts.chat_template;
    out.template_bos = facts.bos;
    out.template_eos = facts.eos;
    return choose_format(settings.model, out);
}

}  // namespace

Result<void> use_model_file(const std::string& path, const config::Settings& settings,
                            ServedEngine& out) {
    auto file = model::GgufModel::open(path);
    if (!file) return tl::unexpected(file.error());
    out.file_bytes = (*file)->facts().file_bytes;
    // Shares the file's life.
    out.tokenizer = {*file, &(*file)->tokenizer()};
    return use_facts((*file)->facts(), settings, out);
}

Result<void> use_model_folder(const std::string& path, const config::Settings& settings,
                              ServedEngine& out) {
    auto folder = model::HfFolder::read(path);
    if (!folder) return tl::unexpected(folder.error());
    auto tokenizer = model::load_tokenizer(*folder);
    if (!tokenizer) return tl::unexpected(tokenizer.error());
    out.tokenizer = *std::move(tokenizer);
    out.folder = path;
    folder->facts.path = folder->weights_gguf;
    return use_facts(folder->facts, settings, out);
}

Result<void> same_vocabulary(const text::Tokenizer& ours, const text::Tokenizer& theirs) {
    if (ours.vocab_size() > theirs.vocab_size()) {
        return error(ErrorCode::kInvalidArgument,
                     "the tokenizer has {} tokens, but the weights' vocabulary only {}: they are "
                     "of different models",
                     ours.vocab_size(), theirs.vocab_size());
    }
    for (tokens::TokenId id = 0; id < ours.vocab_size(); ++id) {
        // What is special is spelled and marked differently by either side.
        const std::string_view bytes = ours.bytes(id);
        if (bytes.empty() || theirs.bytes(id).empty() || ours.is_control(id) ||
            theirs.is_control(id)) {
            continue;
        }
        if (bytes != theirs.bytes(id)) {
            return error(
                ErrorCode::kInvalidArgument,
                "token {} is \"{}\" to the tokenizer and \"{}\" to the weights' vocabulary: "
                "they are of different models",
                id, ours.spelling(id), theirs.spelling(id));
        }
    }
    return {};
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
