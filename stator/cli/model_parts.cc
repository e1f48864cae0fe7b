#include "stator/cli/model_parts.h"

#include <optional>
#include <utility>
#include <vector>

#include "stator/base/log.h"
#include "stator/cli/model_location.h"
#include "stator/text/byte_tokenizer.h"

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
    if (facts.chat_template.empty()) return {};
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
    return {};
}

}  // namespace stator::cli
