#include "stator/model/gguf_model.h"

#include <filesystem>
#include <utility>

#include "stator/model/gguf_file.h"
#include "stator/model/llama_tokenizer.h"

namespace stator::model {

namespace {

class OpenedModel final : public GgufModel {
  public:
    OpenedModel(ModelFacts facts, std::unique_ptr<LlamaTokenizer> tokenizer)
        : facts_(std::move(facts)), tokenizer_(std::move(tokenizer)) {}

    [[nodiscard]] const ModelFacts& facts() const override { return facts_; }
    [[nodiscard]] const text::Tokenizer& tokenizer() const override { return *tokenizer_; }

  private:
    ModelFacts facts_;
    std::unique_ptr<LlamaTokenizer> tokenizer_;
};

std::string name_of(const GgufFile& file, const std::string& path) {
    if (auto name = file.text("general.name"); name && !name->empty()) return *std::move(name);
    const auto file_name = std::filesystem::path(path).filename();
    return file_name.extension() == ".gguf" ? file_name.stem().string() : file_name.string();
}

std::optional<float> sampling(const GgufFile& file, const char* key) {
    const auto value = file.number(std::string("general.sampling.") + key);
    return value ? std::optional<float>(static_cast<float>(*value)) : std::nullopt;
}

Result<ModelFacts> read_facts(const GgufFile& file, const std::string& path) {
    ModelFacts facts;
    facts.path = path;
    facts.name = name_of(file, path);
    facts.file_bytes = file.bytes();
    facts.architecture = file.text("general.architecture").value_or("");
    if (facts.architecture.empty()) {
        return error(ErrorCode::kInvalidArgument,
                     "the model file '{}' does not say its architecture (general.architecture)",
                     path);
    }
    const auto context = file.integer(facts.architecture + ".context_length").value_or(0);
    if (context <= 0 || !std::in_range<std::uint32_t>(context)) {
        return error(
            ErrorCode::kInvalidArgument,
            "the model file '{}' states no usable context length ({}.context_length is {})", path,
            facts.architecture, context);
    }
    facts.context_tokens = static_cast<std::uint32_t>(context);
    facts.chat_template = file.text("tokenizer.chat_template").value_or("");
    facts.temperature = sampling(file, "temp");
    facts.top_p = sampling(file, "top_p");
    facts.min_p = sampling(file, "min_p");
    if (const auto top_k = file.integer("general.sampling.top_k");
        top_k && std::in_range<std::int32_t>(*top_k)) {
        facts.top_k = static_cast<std::int32_t>(*top_k);
    }
    return facts;
}

/// The metadata is given back before llama.cpp reads it once more.
Result<ModelFacts> check_and_read(const std::string& path) {
    auto file = GgufFile::open(path);
    if (!file) return tl::unexpected(file.error());
    if (auto ok = file->check_tokenizer(); !ok) return tl::unexpected(ok.error());
    return read_facts(*file, path);
}

}  // namespace

Result<std::shared_ptr<const GgufModel>> GgufModel::open(const std::string& path) {
    auto facts = check_and_read(path);
    if (!facts) return tl::unexpected(facts.error());
    auto tokenizer = LlamaTokenizer::load(path);
    if (!tokenizer) return tl::unexpected(tokenizer.error());
    facts->vocab_size = (*tokenizer)->vocab_size();
    facts->bos = (*tokenizer)->bos();
    facts->eos = (*tokenizer)->eos();
    return std::make_shared<OpenedModel>(*std::move(facts), *std::move(tokenizer));
}

}  // namespace stator::model
