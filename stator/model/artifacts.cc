#include "stator/model/artifacts.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <filesystem>
#include <functional>
#include <set>
#include <system_error>
#include <utility>

#include "stator/codec/json.h"
#include "stator/codec/json_writer.h"
#include "stator/model/gguf_file.h"
#include "stator/model/hf_tokenizer.h"
#include "stator/model/llama_tokenizer.h"
#include "stator/model/sha256.h"
#include "stator/text/byte_tokenizer.h"

namespace stator::model {

namespace {

namespace fs = std::filesystem;

constexpr std::uint64_t kMaxVocabularyBytes = 256ULL << 20U;
constexpr std::uint64_t kMaxByteTokenizerBytes = 1ULL << 20U;
constexpr std::uint64_t kMaxHfFactsBytes = 64ULL << 10U;
constexpr std::uint64_t kMaxHfTokenizerBytes = 129ULL << 20U;
constexpr std::uint64_t kMaxTemplateBytes = 4ULL << 20U;
constexpr std::size_t kMaxSpecialTexts = 4096;

constexpr std::uint64_t kHeadBytes = 16ULL << 20U;
constexpr std::uint64_t kSampleBytes = 4096;
constexpr std::uint64_t kSamples = 256;

class OpenFile {
  public:
    explicit OpenFile(int fd) : fd_(fd) {}
    ~OpenFile() {
        if (fd_ >= 0) ::close(fd_);
    }
    OpenFile(const OpenFile&) = delete;
    OpenFile& operator=(const OpenFile&) = delete;
    [[nodiscard]] int fd() const { return fd_; }

  private:
    int fd_;
};

/// "A-00001-of-00003.gguf" gives the names of all three; any other name itself.
std::vector<std::string> parts_of(const std::string& path) {
    constexpr std::string_view kFirst = "-00001-of-";
    constexpr std::string_view kEnd = ".gguf";
    constexpr std::size_t kDigits = 5;
    constexpr std::size_t kTail = kFirst.size() + kDigits + kEnd.size();
    if (path.size() <= kTail || !path.ends_with(kEnd)) return {path};
    const std::string prefix = path.substr(0, path.size() - kTail);
    const std::string_view tail = std::string_view(path).substr(prefix.size());
    if (!tail.starts_with(kFirst)) return {path};
    unsigned count = 0;
    const char* digits = tail.data() + kFirst.size();
    const auto read = std::from_chars(digits, digits + kDigits, count);
    if (read.ec != std::errc{} || read.ptr != digits + kDigits || count == 0) return {path};
    std::vector<std::string> parts;
    for (unsigned i = 1; i <= count; ++i) {
        parts.push_back(fmt::format("{}-{:05}-of-{:05}.gguf", prefix, i, count));
    }
    return parts;
}

Result<void> add_range(Sha256& digest, const OpenFile& file, const std::string& path,
                       std::uint64_t at, std::uint64_t size) {
    std::string chunk(std::min<std::uint64_t>(size, 256 * 1024), '\0');
    while (size > 0) {
        const ssize_t n =
            ::pread(file.fd(), chunk.data(), std::min<std::size_t>(size, chunk.size()),
                    static_cast<off_t>(at));
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) {
            return error(ErrorCode::kDataLoss, "the model file '{}' can't be read at byte {}: {}",
                         path, at,
                         n == 0 ? "it got shorter" : std::generic_category().message(errno));
        }
        digest.add(std::string_view(chunk).substr(0, static_cast<std::size_t>(n)));
        at += static_cast<std::uint64_t>(n);
        size -= static_cast<std::uint64_t>(n);
    }
    return {};
}

Result<void> add_samples(Sha256& digest, const std::string& path) {
    // Non-blocking: to open a pipe must not hang.
    const OpenFile file(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
    struct stat status{};
    if (file.fd() < 0 || ::fstat(file.fd(), &status) != 0) {
        const int reason = errno;
        return error(reason == ENOENT   ? ErrorCode::kNotFound
                     : reason == EACCES ? ErrorCode::kPermissionDenied
                                        : ErrorCode::kInvalidArgument,
                     "the model file '{}' can't be read: {}", path,
                     std::generic_category().message(reason));
    }
    if (!S_ISREG(status.st_mode)) {
        return error(ErrorCode::kInvalidArgument, "'{}' is not a regular file", path);
    }
    const auto size = static_cast<std::uint64_t>(status.st_size);
    digest.add(fmt::format("{}\n", size));
    const std::uint64_t head = std::min(size, kHeadBytes);
    if (auto ok = add_range(digest, file, path, 0, head); !ok) return ok;
    const std::uint64_t rest = size - head;
    if (rest <= kSamples * kSampleBytes) return add_range(digest, file, path, head, rest);
    for (std::uint64_t i = 0; i < kSamples; ++i) {
        // Evenly from the head's end to the file's, both borders included.
        const std::uint64_t at = (rest - kSampleBytes) / (kSamples - 1) * i;
        const std::uint64_t from = i + 1 == kSamples ? size - kSampleBytes : head + at;
        if (auto ok = add_range(digest, file, path, from, kSampleBytes); !ok) return ok;
    }
    return {};
}

Result<void> check_artifact(const protocol::Artifact& artifact, std::string_view bytes,
                            std::uint64_t max_bytes) {
    if (bytes.size() > max_bytes) {
        return error(ErrorCode::kTooLarge,
                     "an artifact of kind '{}' has {} bytes, which is over the limit of {}",
                     artifact.kind, bytes.size(), max_bytes);
    }
    if (bytes.size() != artifact.bytes || sha256_hex(bytes) != artifact.sha256) {
        return error(ErrorCode::kDataLoss,
                     "an artifact of kind '{}' came as {} bytes that are not those of the card "
                     "({} bytes, SHA-256 {})",
                     artifact.kind, bytes.size(), artifact.bytes, artifact.sha256);
    }
    return {};
}

/// Bytes under a path for llama.cpp to open: in memory, and where that is not to be had in a file
/// that nobody else can read.
class ScratchFile {
  public:
    static Result<std::unique_ptr<ScratchFile>> make(std::string_view bytes,
                                                     const std::string& folder) {
        std::unique_ptr<ScratchFile> made(new ScratchFile);
        made->fd_ = ::memfd_create("stator-vocabulary", MFD_CLOEXEC);
        made->path_ = fmt::format("/proc/self/fd/{}", made->fd_);
        if (made->fd_ >= 0 && ::access(made->path_.c_str(), R_OK) == 0 && made->write(bytes)) {
            return made;
        }
        made = std::unique_ptr<ScratchFile>(new ScratchFile);
        std::error_code ec;
        if (const auto parent = fs::path(folder).parent_path(); !parent.empty()) {
            fs::create_directories(parent, ec);
        }
        ::mkdir(folder.c_str(), 0700);  // where this fails, what follows says why
        made->path_ = folder + "/.stator-artifact-XXXXXX";
        made->fd_ = ::mkostemp(made->path_.data(), O_CLOEXEC);
        made->on_disk_ = made->fd_ >= 0;
        if (made->on_disk_ && made->write(bytes)) return made;
        return error(ErrorCode::kExhausted, "a vocabulary of {} bytes can't be put in '{}': {}",
                     bytes.size(), folder, std::generic_category().message(errno));
    }

    ~ScratchFile() {
        if (on_disk_) ::unlink(path_.c_str());
        if (fd_ >= 0) ::close(fd_);
    }
    ScratchFile(const ScratchFile&) = delete;
    ScratchFile& operator=(const ScratchFile&) = delete;
    [[nodiscard]] const std::string& path() const { return path_; }

  private:
    ScratchFile() = default;
    [[nodiscard]] bool write(std::string_view bytes) const {
        while (!bytes.empty()) {
            const ssize_t n = ::write(fd_, bytes.data(), bytes.size());
            if (n < 0 && errno == EINTR) continue;
            if (n <= 0) return false;
            bytes.remove_prefix(static_cast<std::size_t>(n));
        }
        return true;
    }

    int fd_ = -1;
    bool on_disk_ = false;
    std::string path_;
};

using TokenizerResult = Result<std::shared_ptr<const text::Tokenizer>>;

/// Errors of the room speak of a file by its path; here that is one nobody knows.
tl::unexpected<Error> about_artifact(Error e, const std::string& path) {
    const std::string name = "the model file '" + path + "'";
    if (const auto at = e.message.find(name); at != std::string::npos) {
        e.message.replace(at, name.size(), "the vocabulary that the worker handed out");
    }
    if (e.code == ErrorCode::kNotFound) e.code = ErrorCode::kDataLoss;
    return tl::unexpected(std::move(e));
}

TokenizerResult load_vocabulary(std::string_view bytes, const std::string& scratch_folder) {
    auto scratch = ScratchFile::make(bytes, scratch_folder);
    if (!scratch) return tl::unexpected(scratch.error());
    const std::string& path = (*scratch)->path();
    {
        auto file = GgufFile::open(path);
        if (!file) return about_artifact(std::move(file.error()), path);
        if (auto ok = file->check_vocabulary_only(); !ok) return about_artifact(ok.error(), path);
        if (auto ok = file->check_tokenizer(); !ok) return about_artifact(ok.error(), path);
    }
    auto tokenizer = LlamaTokenizer::load(path);
    if (!tokenizer) return about_artifact(std::move(tokenizer.error()), path);
    return std::shared_ptr<const text::Tokenizer>(*std::move(tokenizer));
}

TokenizerResult load_byte_tokenizer(std::string_view bytes) {
    const auto bad = [](std::string_view why) {
        return error(ErrorCode::kDataLoss, "a byte tokenizer's artifact is damaged: {}", why);
    };
    codec::JsonDocument document;
    const auto json = document.parse(bytes);
    if (!json) return bad(json.error().message);
    const codec::JsonView list = json->find("special");
    if (list.type() != codec::JsonType::kArray) return bad("'special' is not a list");
    if (list.size() > kMaxSpecialTexts) return bad("it has too many special texts");
    std::vector<std::string> texts;
    std::set<std::string_view> seen = {text::ByteTokenizer::kEndSpelling, ""};
    bool good = true;
    list.each_element([&](std::size_t, codec::JsonView item) {
        const auto text = item.as_string();
        good = text && seen.insert(*text).second;
        if (good) texts.emplace_back(*text);
        return good;
    });
    if (!good) return bad("a special text is no string, is empty or is there twice");
    return std::make_shared<const text::ByteTokenizer>(std::move(texts));
}

/// See hf_tokenizer_artifact().
TokenizerResult load_hf_tokenizer(std::string_view bytes) {
    const auto bad = [](std::string_view why) {
        return error(ErrorCode::kDataLoss, "a tokenizer's artifact is damaged: {}", why);
    };
    const std::size_t line = bytes.substr(0, kMaxHfFactsBytes).find('\n');
    if (line == std::string_view::npos) return bad("it does not begin with a line of JSON");
    codec::JsonDocument document;
    const auto json = document.parse(bytes.substr(0, line));
    if (!json) return bad(json.error().message);
    TokenizerFacts facts;
    facts.bos = json->find("bos").as_string().value_or("");
    facts.eos = json->find("eos").as_string().value_or("");
    facts.add_bos = json->find("add_bos").as_bool();
    bool good = json->find("end_tokens").type() == codec::JsonType::kArray;
    json->find("end_tokens").each_element([&](std::size_t, codec::JsonView v) {
        const auto id = v.as_uint();
        good = id && std::in_range<text::TokenId>(*id);
        if (good) facts.end_tokens.push_back(static_cast<text::TokenId>(*id));
        return good;
    });
    if (!good) return bad("end_tokens is not a list of token ids");
    auto made = HfTokenizer::load(bytes.substr(line + 1), options_of(facts));
    if (!made) return bad(made.error().message);
    return std::shared_ptr<const text::Tokenizer>(*std::move(made));
}

Result<std::shared_ptr<const text::ChatTemplate>> load_template(const protocol::Artifact& artifact,
                                                                std::string_view bytes) {
    if (artifact.kind != "chat-template") {
        return error(ErrorCode::kUnsupported,
                     "the model's chat template is of the kind '{}'; can be used: chat-template",
                     artifact.kind);
    }
    if (auto ok = check_artifact(artifact, bytes, kMaxTemplateBytes); !ok) {
        return tl::unexpected(ok.error());
    }
    codec::JsonDocument document;
    const auto json = document.parse(bytes);
    if (!json) {
        return error(ErrorCode::kDataLoss, "a chat template's artifact is damaged: {}",
                     json.error().message);
    }
    const auto source = json->find("template").as_string();
    const auto bos = json->find("bos").as_string();
    const auto eos = json->find("eos").as_string();
    if (!source || !bos || !eos) {
        return error(ErrorCode::kDataLoss,
                     "a chat template's artifact is damaged: it must be an object with the strings "
                     "template, bos and eos");
    }
    auto compiled = text::ChatTemplate::compile(*source, *bos, *eos);
    if (!compiled) return tl::unexpected(compiled.error());
    return std::make_shared<const text::ChatTemplate>(*std::move(compiled));
}

TokenizerResult load_tokenizer(const protocol::Artifact& artifact, std::string_view bytes,
                               const std::string& scratch_folder) {
    struct Kind {
        std::string_view name;
        std::uint64_t max_bytes;
        std::function<TokenizerResult()> load;
    };
    const std::array<Kind, 3> kinds = {{
        {"gguf-vocabulary", kMaxVocabularyBytes,
         [&] { return load_vocabulary(bytes, scratch_folder); }},
        {"hf-tokenizer", kMaxHfTokenizerBytes, [&] { return load_hf_tokenizer(bytes); }},
        {"byte-tokenizer", kMaxByteTokenizerBytes, [&] { return load_byte_tokenizer(bytes); }},
    }};
    const auto kind = std::ranges::find(kinds, artifact.kind, &Kind::name);
    if (kind == kinds.end()) {
        return error(ErrorCode::kUnsupported,
                     "the model's tokenizer is of the kind '{}'; can be used: gguf-vocabulary, "
                     "hf-tokenizer, byte-tokenizer",
                     artifact.kind);
    }
    if (auto ok = check_artifact(artifact, bytes, kind->max_bytes); !ok) {
        return tl::unexpected(ok.error());
    }
    return kind->load();
}

}  // namespace

Result<std::string> vocabulary_artifact(const std::string& gguf_path) {
    const auto file = GgufFile::open(gguf_path);
    if (!file) return tl::unexpected(file.error());
    if (auto ok = file->check_tokenizer(); !ok) return tl::unexpected(ok.error());
    std::string bytes = file->metadata_only();
    if (bytes.size() > kMaxVocabularyBytes) {
        return error(ErrorCode::kTooLarge,
                     "the metadata of the model file '{}' has {} bytes; at most {} can be handed "
                     "out",
                     gguf_path, bytes.size(), kMaxVocabularyBytes);
    }
    return bytes;
}

Result<std::string> weights_digest(const std::string& gguf_path) {
    Sha256 digest;
    for (const std::string& part : parts_of(gguf_path)) {
        if (auto ok = add_samples(digest, part); !ok) return tl::unexpected(ok.error());
    }
    return "sha256-sample:" + digest.hex();
}

Result<TextModel> load_text_model(const protocol::ModelCard& card, std::string_view tokenizer,
                                  std::string_view chat_template,
                                  const std::string& scratch_folder) {
    auto loaded = load_tokenizer(card.tokenizer, tokenizer, scratch_folder);
    if (!loaded) return tl::unexpected(loaded.error());
    TextModel model;
    model.tokenizer = *std::move(loaded);
    if (card.vocab_size != 0 && model.tokenizer->vocab_size() != card.vocab_size) {
        return error(ErrorCode::kDataLoss,
                     "the worker's tokenizer has {} tokens, but its card says {}",
                     model.tokenizer->vocab_size(), card.vocab_size);
    }
    if (!card.chat_template) {
        if (chat_template.empty()) return model;
        return error(ErrorCode::kDataLoss, "a chat template came, but the card names none");
    }
    auto compiled = load_template(*card.chat_template, chat_template);
    if (!compiled) return tl::unexpected(compiled.error());
    model.chat_template = *std::move(compiled);
    return model;
}

std::string byte_tokenizer_artifact(const std::vector<std::string>& special_texts) {
    std::string out;
    codec::JsonWriter w(out);
    w.begin_object().key("special").begin_array();
    for (const std::string& text : special_texts) {
        if (text != text::ByteTokenizer::kEndSpelling) w.string(text);
    }
    w.end_array().end_object();
    return out;
}

std::string hf_tokenizer_artifact(const TokenizerFacts& facts, std::string_view tokenizer_json) {
    std::string out;
    codec::JsonWriter w(out);
    w.begin_object().key("bos").string(facts.bos).key("eos").string(facts.eos);
    if (facts.add_bos) w.key("add_bos").boolean(*facts.add_bos);
    w.key("end_tokens").begin_array();
    for (const text::TokenId id : facts.end_tokens) w.number(std::uint64_t{id});
    w.end_array().end_object();
    out += '\n';
    out += tokenizer_json;
    return out;
}

std::string chat_template_artifact(std::string_view source, std::string_view bos,
                                   std::string_view eos) {
    std::string out;
    codec::JsonWriter w(out);
    w.begin_object().key("template").string(source);
    w.key("bos").string(bos).key("eos").string(eos).end_object();
    return out;
}

}  // namespace stator::model
