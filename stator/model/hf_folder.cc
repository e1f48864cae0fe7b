#include "stator/model/hf_folder.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <filesystem>
#include <limits>
#include <utility>

#include "stator/codec/json.h"
#include "stator/codec/utf8.h"
#include "stator/model/hf_tokenizer.h"
#include "stator/model/small_file.h"

namespace stator::model {
namespace {

namespace fs = std::filesystem;
using codec::JsonType;
using codec::JsonView;
using tokens::TokenId;

constexpr std::uint64_t kMaxConfigBytes = 16ULL << 20U;
constexpr std::uint64_t kMaxTokenizerBytes = 128ULL << 20U;
constexpr std::uint64_t kMaxTemplateBytes = 1ULL << 20U;
constexpr std::size_t kMaxEndTokens = 64;

/// Python writes integers of any length, as in "model_max_length": 1000000000000000019884624838656
/// for "no limit"; with an exponent they are ordinary JSON numbers to everybody.
std::string with_long_integers_as_doubles(std::string_view json) {
    constexpr std::size_t kMostDigits = 18;
    const auto is_digit = [](char c) { return c >= '0' && c <= '9'; };
    std::string out;
    out.reserve(json.size() + 16);
    bool in_string = false;
    for (std::size_t i = 0; i < json.size();) {
        if (in_string || !is_digit(json[i])) {
            if (json[i] == '"') in_string = !in_string;
            if (in_string && json[i] == '\\' && i + 1 < json.size()) out += json[i++];
            out += json[i++];
            continue;
        }
        const std::size_t begin = i;
        while (i < json.size() && is_digit(json[i])) ++i;
        out += json.substr(begin, i - begin);
        const char next = i < json.size() ? json[i] : '\0';
        const bool fraction = next == '.' || next == 'e' || next == 'E';
        if (i - begin > kMostDigits && !fraction && (begin == 0 || json[begin - 1] != '.') &&
            (begin == 0 || (json[begin - 1] != 'e' && json[begin - 1] != 'E'))) {
            out += "e0";
        }
    }
    return out;
}

/// One JSON file of the folder; absent files are empty objects, so that find() says so.
class JsonFile {
  public:
    [[nodiscard]] Result<void> read(const std::string& folder, std::string name) {
        name_ = std::move(name);
        auto text = read_small_file(folder + "/" + name_, kMaxConfigBytes);
        if (!text) {
            if (text.error().code == ErrorCode::kNotFound) return {};
            return tl::unexpected(std::move(text.error()));
        }
        auto root = document_.parse(with_long_integers_as_doubles(*text));
        if (!root) {
            return error(ErrorCode::kInvalidArgument, "'{}/{}' is no JSON: {}", folder, name_,
                         root.error().message);
        }
        if (root->type() != JsonType::kObject) {
            return error(ErrorCode::kInvalidArgument, "'{}/{}' is {} instead of an object", folder,
                         name_, to_string(root->type()));
        }
        root_ = *root;
        return {};
    }
    [[nodiscard]] bool present() const { return root_.present(); }
    [[nodiscard]] JsonView find(std::string_view key) const { return root_.find(key); }
    [[nodiscard]] JsonView root() const { return root_; }

  private:
    std::string name_;
    codec::JsonDocument document_;
    JsonView root_;
};

/// Models of several parts keep the language model's facts one level down.
JsonView language_part(JsonView config) {
    for (const std::string_view key :
         {"text_config", "llm_config", "language_config", "thinker_config"}) {
        const JsonView part = config.find(key);
        if (part.type() == JsonType::kObject && part.size() > 0) return language_part(part);
    }
    return config;
}

/// The first of these members that is there, in the language model's part or else outside.
JsonView find_first(JsonView config, std::initializer_list<std::string_view> keys) {
    const JsonView part = language_part(config);
    for (const JsonView where : {part, config}) {
        for (const std::string_view key : keys) {
            if (const JsonView v = where.find(key); !v.is_null()) return v;
        }
    }
    return {};
}

/// How far rope_scaling stretches the length that the model was made for: for "yarn" and the plain
/// stretches; "llama3", "longrope" and the like state the stretched length itself.
double stretched(JsonView scaling, double length) {
    if (scaling.type() != JsonType::kObject) return length;
    const auto type = scaling.find("rope_type").as_string();
    const std::string_view name = type ? *type : scaling.find("type").as_string().value_or("");
    const double factor = scaling.find("factor").as_double().value_or(1.0);
    if (!(factor >= 1.0)) return length;
    if (name == "yarn") {
        const auto original = scaling.find("original_max_position_embeddings").as_double();
        return original ? *original * factor : length;
    }
    return name == "linear" || name == "dynamic" ? length * factor : length;
}

std::uint32_t context_of(JsonView config) {
    const auto length =
        find_first(config, {"max_position_embeddings", "n_positions", "max_sequence_length",
                            "max_seq_len", "seq_length", "model_max_length", "n_ctx"})
            .as_double();
    if (!length || !(*length >= 1)) return 0;
    const double tokens =
        stretched(find_first(config, {"rope_scaling", "rope_parameters"}), *length);
    constexpr double kMost = std::numeric_limits<std::int32_t>::max();
    return static_cast<std::uint32_t>(std::min(std::floor(tokens), kMost));
}

/// "<s>" or {"content": "<s>", …}.
std::string special_text(JsonView value) {
    if (const auto text = value.as_string()) return std::string(*text);
    return std::string(value.find("content").as_string().value_or(""));
}

/// 2 or [2, 32007]; ids that are none are left out, as their use would be.
void add_ids(JsonView value, std::vector<TokenId>& out) {
    const auto add = [&out](JsonView v) {
        const auto id = v.as_uint();
        if (!id || *id > std::numeric_limits<std::int32_t>::max()) return;
        const auto token = static_cast<TokenId>(*id);
        if (out.size() < kMaxEndTokens && std::ranges::find(out, token) == out.end()) {
            out.push_back(token);
        }
    };
    if (value.type() != JsonType::kArray) return add(value);
    value.each_element([&](std::size_t, JsonView v) {
        add(v);
        return true;
    });
}

/// A text, or a list of named ones of which "default" is meant for chats.
std::string template_of(JsonView value) {
    if (const auto text = value.as_string()) return std::string(*text);
    std::string chosen;
    value.each_element([&](std::size_t, JsonView item) {
        const auto text = item.find("template").as_string();
        if (!text) return true;
        const bool is_default = item.find("name").as_string() == "default";
        if (chosen.empty() || is_default) chosen = *text;
        return !is_default;
    });
    return chosen;
}

Result<std::string> read_template(const std::string& folder, const JsonFile& tokenizer_config) {
    auto jinja = read_small_file(folder + "/chat_template.jinja", kMaxTemplateBytes);
    if (jinja) {
        if (!codec::utf8_valid(*jinja)) {
            return error(ErrorCode::kInvalidArgument, "'{}/chat_template.jinja' is not UTF-8",
                         folder);
        }
        return jinja;
    }
    if (jinja.error().code != ErrorCode::kNotFound) return jinja;
    JsonFile file;  // how processors of images wrote it for a while
    if (auto ok = file.read(folder, "chat_template.json"); !ok) {
        return tl::unexpected(std::move(ok.error()));
    }
    if (auto text = template_of(file.find("chat_template")); !text.empty()) return text;
    return template_of(tokenizer_config.find("chat_template"));
}

std::optional<float> recommended(const JsonFile& generation, std::string_view key) {
    const auto value = generation.find(key).as_double();
    if (!value || !std::isfinite(*value)) return std::nullopt;
    return static_cast<float>(*value);
}

/// Recommendations out of range would be refused in a request too: they are left out.
void read_sampling(const JsonFile& generation, ModelFacts& facts) {
    const auto within = [](std::optional<float> v, float low, float high) {
        return v && *v >= low && *v <= high ? v : std::nullopt;
    };
    facts.temperature = within(recommended(generation, "temperature"), 0, 2);
    facts.top_p = within(recommended(generation, "top_p"), 1e-6F, 1);
    facts.min_p = within(recommended(generation, "min_p"), 0, 0.999F);
    const auto top_k = generation.find("top_k").as_int();
    if (top_k && *top_k >= 0 && std::in_range<std::int32_t>(*top_k)) {
        facts.top_k = static_cast<std::int32_t>(*top_k);
    }
}

std::string folder_name(const std::string& path) {
    std::error_code ec;
    fs::path p = fs::weakly_canonical(path, ec);
    if (ec) p = path;
    if (p.filename().empty()) p = p.parent_path();
    // "models--ORG--NAME/snapshots/REVISION", as the hub's client keeps downloads.
    if (p.parent_path().filename() == "snapshots") {
        const std::string kept = p.parent_path().parent_path().filename().string();
        if (const auto at = kept.rfind("--"); at != std::string::npos) return kept.substr(at + 2);
    }
    return p.filename().string();
}

std::string only_gguf(const std::string& folder) {
    std::error_code ec;
    std::string found;
    for (const auto& entry : fs::directory_iterator(folder, ec)) {
        if (entry.path().extension() != ".gguf") continue;
        if (!found.empty()) return {};
        found = entry.path().string();
    }
    return found;
}

}  // namespace

std::uint32_t context_length(std::string_view config_json) {
    codec::JsonDocument document;
    const auto root = document.parse(config_json);
    return root ? context_of(*root) : 0;
}

Result<std::shared_ptr<const text::Tokenizer>> load_tokenizer(const HfFolder& folder) {
    auto made = HfTokenizer::load(folder.tokenizer_json, options_of(folder.tokenizer));
    if (made) return std::shared_ptr<const text::Tokenizer>(*std::move(made));
    Error e = std::move(made.error());
    e.message =
        fmt::format("the tokenizer.json of {} can't be used: {}", folder.facts.name, e.message);
    return tl::unexpected(std::move(e));
}

HfTokenizerOptions options_of(const TokenizerFacts& facts) {
    return {.end_tokens = facts.end_tokens,
            .add_bos = facts.add_bos,
            .bos = facts.bos,
            .eos = facts.eos};
}

Result<HfFolder> HfFolder::read(const std::string& path) {
    std::error_code ec;
    if (!fs::is_directory(path, ec)) {
        return error(ErrorCode::kNotFound, "the model folder '{}' {}", path,
                     fs::exists(path, ec) ? "is a file; give the folder that holds config.json"
                                          : "does not exist");
    }
    JsonFile config;
    JsonFile tokenizer_config;
    JsonFile generation;
    JsonFile special;
    const std::array<std::pair<JsonFile*, const char*>, 4> files = {{
        {&config, "config.json"},
        {&tokenizer_config, "tokenizer_config.json"},
        {&generation, "generation_config.json"},
        {&special, "special_tokens_map.json"},
    }};
    for (const auto& [file, name] : files) {
        if (auto ok = file->read(path, name); !ok) return tl::unexpected(std::move(ok.error()));
    }
    if (!config.present()) {
        return error(ErrorCode::kNotFound,
                     "the model folder '{}' has no config.json; give a folder as Hugging Face lays "
                     "it out",
                     path);
    }

    HfFolder out;
    auto tokenizer = read_small_file(path + "/tokenizer.json", kMaxTokenizerBytes);
    if (!tokenizer) {
        if (tokenizer.error().code != ErrorCode::kNotFound) {
            return tl::unexpected(std::move(tokenizer.error()));
        }
        return error(ErrorCode::kNotFound,
                     "the model folder '{}' has no tokenizer.json; a tokenizer.model alone can be "
                     "converted with Transformers (AutoTokenizer.from_pretrained(…)"
                     ".save_pretrained(…))",
                     path);
    }
    out.tokenizer_json = *std::move(tokenizer);
    auto chat_template = read_template(path, tokenizer_config);
    if (!chat_template) return tl::unexpected(std::move(chat_template.error()));

    ModelFacts& facts = out.facts;
    facts.path = path;
    facts.name = folder_name(path);
    facts.architecture = config.find("model_type").as_string().value_or("");
    facts.context_tokens = context_of(config.root());
    if (facts.context_tokens == 0) {
        return error(ErrorCode::kInvalidArgument,
                     "'{}/config.json' states no usable context length (max_position_embeddings)",
                     path);
    }
    facts.chat_template = *std::move(chat_template);
    read_sampling(generation, facts);

    TokenizerFacts& t = out.tokenizer;
    for (const auto& [key, text] : {std::pair{"bos_token", &t.bos}, {"eos_token", &t.eos}}) {
        *text = special_text(tokenizer_config.find(key));
        if (text->empty()) *text = special_text(special.find(key));
    }
    facts.bos = t.bos;
    facts.eos = t.eos;
    t.add_bos = tokenizer_config.find("add_bos_token").as_bool();
    add_ids(generation.find("eos_token_id"), t.end_tokens);
    if (t.end_tokens.empty()) add_ids(find_first(config.root(), {"eos_token_id"}), t.end_tokens);
    out.weights_gguf = only_gguf(path);
    return out;
}

}  // namespace stator::model
