#include "stator/model/artifacts.h"

#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <set>
#include <utility>

#include "stator/codec/json.h"
#include "stator/codec/json_writer.h"
#include "stator/model/gguf_file.h"
#include "stator/model/llama_tokenizer.h"
#include "stator/model/sha256.h"
#include "stator/text/byte_tokenizer.h"

namespace stator::model {

namespace {

/// A vocabulary of 256,000 tokens with its merges has about 15 MB.
constexpr std::size_t kMaxVocabularyBytes = 256ULL * 1024 * 1024;
constexpr std::size_t kMaxJsonBytes = 4ULL * 1024 * 1024;
constexpr std::size_t kMaxSpecialTexts = 4096;
constexpr std::size_t kMaxSpecialBytes = 256;

constexpr std::size_t kSampleBytes = 64ULL * 1024;
constexpr std::uint64_t kSamples = 64;

/// Adds `bytes` bytes of the file from `at` on. False where they can't be read.
bool add_range(Sha256& sha, std::ifstream& file, std::string& buffer, std::uint64_t at,
               std::uint64_t bytes) {
    file.seekg(static_cast<std::streamoff>(at));
    while (bytes > 0) {
        const std::uint64_t n = std::min<std::uint64_t>(bytes, buffer.size());
        file.read(buffer.data(), static_cast<std::streamsize>(n));
        if (static_cast<std::uint64_t>(file.gcount()) != n) return false;
        sha.add({buffer.data(), n});
        bytes -= n;
    }
    return true;
}

Result<void> add_file(Sha256& sha, const std::string& path, const GgufFile& gguf) {
    const std::uint64_t head = std::min(gguf.head_bytes(), gguf.bytes());
    const std::uint64_t rest = gguf.bytes() - head;
    sha.add_number(gguf.bytes());
    sha.add_number(head);
    std::ifstream file(path, std::ios::binary);
    std::string buffer(kSampleBytes, '\0');
    bool read = add_range(sha, file, buffer, 0, head);
    if (rest <= kSamples * kSampleBytes) {
        read = read && add_range(sha, file, buffer, head, rest);
    } else {
        // Evenly spread; the first sample begins at the first tensor, the last ends with the file.
        for (std::uint64_t i = 0; read && i < kSamples; ++i) {
            const std::uint64_t room = rest - kSampleBytes;
            const std::uint64_t at =
                room / (kSamples - 1) * i + room % (kSamples - 1) * i / (kSamples - 1);
            read = add_range(sha, file, buffer, head + at, kSampleBytes);
        }
    }
    if (read) return {};
    return error(ErrorCode::kDataLoss, "the model file '{}' can't be read to its end", path);
}

/// A file of its own that is removed at the end.
class ScratchFile {
  public:
    static Result<ScratchFile> make(const std::string& folder, std::string_view bytes) {
        std::error_code ec;
        if (std::filesystem::create_directories(folder, ec)) ::chmod(folder.c_str(), S_IRWXU);
        std::string path = folder + "/scratch-XXXXXX";
        const int fd = ::mkostemp(path.data(), O_CLOEXEC);
        if (fd < 0) {
            return error(ErrorCode::kExhausted, "no file can be made in '{}': {}", folder,
                         std::strerror(errno));
        }
        ScratchFile file(std::move(path));
        while (!bytes.empty()) {
            const auto n = ::write(fd, bytes.data(), bytes.size());
            if (n < 0 && errno == EINTR) continue;
            if (n <= 0) break;
            bytes.remove_prefix(static_cast<std::size_t>(n));
        }
        const int reason = errno;
        ::close(fd);
        if (bytes.empty()) return file;
        return error(ErrorCode::kExhausted, "'{}' can't be written: {}", file.path_,
                     std::strerror(reason));
    }
    ~ScratchFile() {
        if (!path_.empty()) ::unlink(path_.c_str());
    }
    ScratchFile(ScratchFile&& other) noexcept : path_(std::exchange(other.path_, {})) {}
    ScratchFile& operator=(ScratchFile&&) = delete;

    [[nodiscard]] const std::string& path() const { return path_; }

  private:
    explicit ScratchFile(std::string path) : path_(std::move(path)) {}
    std::string path_;
};

Result<std::shared_ptr<const text::Tokenizer>> load_vocabulary(std::string_view bytes,
                                                               const std::string& scratch_folder) {
    const auto scratch = ScratchFile::make(scratch_folder, bytes);
    if (!scratch) return tl::unexpected(scratch.error());
    {
        const auto file = GgufFile::open(scratch->path());
        if (!file) return tl::unexpected(file.error());
        if (file->tensors() != 0 || file->parts().size() != 1) {
            return error(ErrorCode::kInvalidArgument, "it is a whole model, not a vocabulary");
        }
        if (auto ok = file->check_tokenizer(); !ok) return tl::unexpected(ok.error());
    }
    auto loaded = LlamaTokenizer::load(scratch->path());
    if (!loaded) return tl::unexpected(loaded.error());
    return std::shared_ptr<const text::Tokenizer>(std::move(*loaded));
}

Result<std::shared_ptr<const text::Tokenizer>> load_byte_tokenizer(std::string_view bytes) {
    codec::JsonDocument document;
    const auto root = document.parse(bytes);
    if (!root) return tl::unexpected(root.error());
    const codec::JsonView list = root->find("special_texts");
    if (list.type() != codec::JsonType::kArray || list.size() > kMaxSpecialTexts) {
        return error(ErrorCode::kInvalidArgument,
                     "special_texts must be an array of at most {} texts", kMaxSpecialTexts);
    }
    std::vector<std::string> texts;
    std::set<std::string_view> seen = {text::ByteTokenizer::kEndSpelling};
    bool good = true;
    list.each_element([&](std::size_t, codec::JsonView element) {
        const auto text = element.as_string();
        good =
            text && !text->empty() && text->size() <= kMaxSpecialBytes && seen.insert(*text).second;
        if (good) texts.emplace_back(*text);
        return good;
    });
    if (!good) {
        return error(ErrorCode::kInvalidArgument,
                     "special_texts[{}] must be a text of 1 to {} bytes that is not there yet",
                     texts.size(), kMaxSpecialBytes);
    }
    return std::make_shared<const text::ByteTokenizer>(std::move(texts));
}

Result<std::shared_ptr<const text::ChatTemplate>> load_chat_template(std::string_view bytes) {
    codec::JsonDocument document;
    const auto root = document.parse(bytes);
    if (!root) return tl::unexpected(root.error());
    const auto source = root->find("template").as_string();
    const auto bos = root->find("bos").as_string();
    const auto eos = root->find("eos").as_string();
    if (!source || !bos || !eos) {
        return error(ErrorCode::kInvalidArgument, "template, bos and eos must be texts");
    }
    auto compiled = text::ChatTemplate::compile(*source, *bos, *eos);
    if (!compiled) return tl::unexpected(compiled.error());
    return std::make_shared<const text::ChatTemplate>(std::move(*compiled));
}

Result<std::shared_ptr<const text::Tokenizer>> load_tokenizer(const std::string& kind,
                                                              std::string_view bytes,
                                                              const std::string& scratch_folder) {
    const bool vocabulary = kind == "gguf-vocabulary";
    if (!vocabulary && kind != "byte-tokenizer") {
        return error(ErrorCode::kUnsupported,
                     "tokenizers of the kind '{}' are not known here; known are gguf-vocabulary "
                     "and byte-tokenizer",
                     kind.substr(0, 64));
    }
    const std::size_t most = vocabulary ? kMaxVocabularyBytes : kMaxJsonBytes;
    if (bytes.size() > most) {
        return error(ErrorCode::kTooLarge, "it has {} bytes and may have {}", bytes.size(), most);
    }
    return vocabulary ? load_vocabulary(bytes, scratch_folder) : load_byte_tokenizer(bytes);
}

tl::unexpected<Error> unusable(std::string_view what, const protocol::ModelCard& card, Error e) {
    e.message = fmt::format("the {} of the model '{}' can't be used: {}", what, card.name,
                            std::move(e.message));
    return tl::unexpected<Error>(std::move(e));
}

}  // namespace

Result<std::string> vocabulary_artifact(const std::string& gguf_path) {
    const auto file = GgufFile::open(gguf_path);
    if (!file) return tl::unexpected(file.error());
    if (auto ok = file->check_tokenizer(); !ok) return tl::unexpected(ok.error());
    return file->metadata_file();
}

Result<std::string> weights_digest(const std::string& gguf_path) {
    const auto file = GgufFile::open(gguf_path);
    if (!file) return tl::unexpected(file.error());
    Sha256 sha;
    sha.add_number(file->parts().size());
    if (auto ok = add_file(sha, gguf_path, *file); !ok) return tl::unexpected(ok.error());
    for (std::size_t i = 1; i < file->parts().size(); ++i) {
        const auto part = GgufFile::open(file->parts()[i]);
        if (!part) return tl::unexpected(part.error());
        if (auto ok = add_file(sha, file->parts()[i], *part); !ok)
            return tl::unexpected(ok.error());
    }
    return "sha256-sample:" + sha.hex();
}

Result<TextModel> load_text_model(const protocol::ModelCard& card, std::string_view tokenizer,
                                  std::string_view chat_template,
                                  const std::string& scratch_folder) {
    TextModel out;
    auto loaded = load_tokenizer(card.tokenizer.kind, tokenizer, scratch_folder);
    if (!loaded) return unusable("tokenizer", card, std::move(loaded.error()));
    out.tokenizer = std::move(*loaded);
    if (card.vocab_size != out.tokenizer->vocab_size()) {
        return error(ErrorCode::kDataLoss,
                     "the tokenizer of the model '{}' has {} tokens, but its card says {}",
                     card.name, out.tokenizer->vocab_size(), card.vocab_size);
    }
    if (chat_template.empty()) return out;
    if (card.chat_template && card.chat_template->kind != "chat-template") {
        return error(ErrorCode::kUnsupported,
                     "chat templates of the kind '{}' are not known here; known is chat-template",
                     card.chat_template->kind.substr(0, 64));
    }
    if (chat_template.size() > kMaxJsonBytes) {
        return error(ErrorCode::kTooLarge,
                     "the chat template of the model '{}' has {} bytes and may have {}", card.name,
                     chat_template.size(), kMaxJsonBytes);
    }
    auto compiled = load_chat_template(chat_template);
    if (!compiled) return unusable("chat template", card, std::move(compiled.error()));
    out.chat_template = std::move(*compiled);
    return out;
}

std::string byte_tokenizer_artifact(const std::vector<std::string>& special_texts) {
    std::string out;
    codec::JsonWriter w(out);
    w.begin_object().key("special_texts").begin_array();
    for (const std::string& text : special_texts) {
        // The tokenizer's own: special_texts() of a tokenizer lists it too.
        if (text != text::ByteTokenizer::kEndSpelling) w.string(text);
    }
    w.end_array().end_object();
    return out;
}

std::string chat_template_artifact(std::string_view source, std::string_view bos,
                                   std::string_view eos) {
    std::string out;
    codec::JsonWriter w(out);
    w.begin_object().key("template").string(source).key("bos").string(bos);
    w.key("eos").string(eos).end_object();
    return out;
}

}  // namespace stator::model
