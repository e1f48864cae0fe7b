#include "stator/model/gguf_file.h"

#include <gguf.h>
#include <llama.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <system_error>
#include <unordered_set>
#include <utility>

#include "stator/model/llama_log.h"

namespace stator::model {

namespace {

namespace fs = std::filesystem;

constexpr std::size_t kHeaderBytes = 24;  // magic, version, tensor count, metadata count
constexpr std::uint64_t kMinTensorBytes = 8 + 4 + 4 + 8;
constexpr std::uint64_t kMinMetadataBytes = 8 + 1 + 4 + 1;
constexpr std::uint32_t kMinVersion = 2;
constexpr std::uint32_t kMaxVersion = GGUF_VERSION;

template <typename T>
T read_as(const char* bytes) {
    T value{};
    std::memcpy(&value, bytes, sizeof(value));
    return value;
}

std::string printable(std::string_view bytes) {
    std::string out;
    for (const char c : bytes) {
        const auto b = static_cast<unsigned char>(c);
        out += b >= 0x20 && b < 0x7F ? std::string(1, c) : fmt::format("\\x{:02x}", b);
    }
    return out;
}

tl::unexpected<Error> not_gguf(const std::string& path, std::string_view begin) {
    if (begin.starts_with("version https://git-lfs")) {
        return error(
            ErrorCode::kInvalidArgument,
            "'{}' is a Git LFS pointer, not the model itself: fetch it with `git lfs pull`", path);
    }
    return error(ErrorCode::kInvalidArgument,
                 "'{}' is not a GGUF model file: it begins with '{}' instead of 'GGUF'", path,
                 printable(begin.substr(0, 4)));
}

/// Looks at the file and at its first 24 bytes; gives its size.
Result<std::uint64_t> check_header(const std::string& path) {
    std::error_code ec;
    const auto status = fs::status(path, ec);
    if (status.type() == fs::file_type::not_found) {
        return error(ErrorCode::kNotFound, "there is no model file '{}'", path);
    }
    if (status.type() == fs::file_type::directory) {
        return error(ErrorCode::kInvalidArgument,
                     "'{}' is a folder; the model must be a .gguf file", path);
    }
    if (!ec && status.type() != fs::file_type::regular) {
        return error(ErrorCode::kInvalidArgument, "'{}' is not a regular file", path);
    }
    std::ifstream file(path, std::ios::binary);
    const auto size = ec ? 0 : fs::file_size(path, ec);
    if (ec || !file) {
        const int reason = ec ? ec.value() : errno;
        return error(reason == EACCES ? ErrorCode::kPermissionDenied : ErrorCode::kInvalidArgument,
                     "the model file '{}' can't be read: {}", path,
                     std::generic_category().message(reason));
    }
    if (size == 0) return error(ErrorCode::kInvalidArgument, "the model file '{}' is empty", path);

    std::array<char, kHeaderBytes> header{};
    file.read(header.data(), header.size());
    const std::string_view begin(header.data(), static_cast<std::size_t>(file.gcount()));
    if (!std::string_view("GGUF").starts_with(begin.substr(0, 4))) return not_gguf(path, begin);
    if (begin.size() < header.size()) {
        return error(ErrorCode::kDataLoss,
                     "the model file '{}' is truncated: it has {} bytes, which is less than a "
                     "GGUF header",
                     path, size);
    }
    const auto version = read_as<std::uint32_t>(header.data() + 4);
    if (version < kMinVersion || version > kMaxVersion) {
        const bool other_endian = (version & 0xFFFFU) == 0 && version != 0;
        return error(ErrorCode::kInvalidArgument,
                     "the model file '{}' has GGUF version {}{}; versions {} to {} can be read",
                     path, version,
                     other_endian ? " (it seems to be written for big-endian machines)" : "",
                     kMinVersion, kMaxVersion);
    }
    const auto tensors = read_as<std::uint64_t>(header.data() + 8);
    const auto entries = read_as<std::uint64_t>(header.data() + 16);
    if (tensors > size / kMinTensorBytes || entries > size / kMinMetadataBytes) {
        return error(ErrorCode::kDataLoss,
                     "the model file '{}' is damaged or truncated: its header promises {} tensors "
                     "and {} metadata entries, which {} bytes can't hold",
                     path, tensors, entries, size);
    }
    return size;
}

/// ggml reports how a type is laid out only by aborting on the wrong getter, hence the switch.
std::optional<std::int64_t> integer_at(const gguf_context* gguf, std::int64_t id) {
    switch (gguf_get_kv_type(gguf, id)) {
        case GGUF_TYPE_UINT8:
            return gguf_get_val_u8(gguf, id);
        case GGUF_TYPE_INT8:
            return gguf_get_val_i8(gguf, id);
        case GGUF_TYPE_UINT16:
            return gguf_get_val_u16(gguf, id);
        case GGUF_TYPE_INT16:
            return gguf_get_val_i16(gguf, id);
        case GGUF_TYPE_UINT32:
            return gguf_get_val_u32(gguf, id);
        case GGUF_TYPE_INT32:
            return gguf_get_val_i32(gguf, id);
        case GGUF_TYPE_INT64:
            return gguf_get_val_i64(gguf, id);
        case GGUF_TYPE_UINT64: {
            const std::uint64_t value = gguf_get_val_u64(gguf, id);
            if (std::in_range<std::int64_t>(value)) return static_cast<std::int64_t>(value);
            return std::nullopt;
        }
        default:
            return std::nullopt;
    }
}

bool is_array_of(const gguf_context* gguf, std::int64_t id, gguf_type type) {
    return gguf_get_kv_type(gguf, id) == GGUF_TYPE_ARRAY && gguf_get_arr_type(gguf, id) == type;
}

}  // namespace

void GgufFile::Free::operator()(gguf_context* c) const { gguf_free(c); }

GgufFile::GgufFile(GgufFile&&) noexcept = default;
GgufFile& GgufFile::operator=(GgufFile&&) noexcept = default;
GgufFile::~GgufFile() = default;

Result<GgufFile> GgufFile::open(const std::string& path) {
    const auto size = check_header(path);
    if (!size) return tl::unexpected(size.error());
    GgufFile file;
    file.path_ = path;
    file.bytes_ = *size;
    const LlamaErrors errors;
    try {
        file.gguf_.reset(gguf_init_from_file(path.c_str(), {.no_alloc = true, .ctx = nullptr}));
    } catch (const std::exception& e) {
        return error(ErrorCode::kDataLoss, "the model file '{}' can't be read: {}", path, e.what());
    }
    if (!file.gguf_) {
        return error(ErrorCode::kDataLoss,
                     "the model file '{}' is damaged or truncated in its metadata: {}", path,
                     errors.first());
    }
    if (auto ok = file.check_extents(); !ok) return tl::unexpected(ok.error());
    if (auto ok = file.check_parts(); !ok) return tl::unexpected(ok.error());
    return file;
}

Result<void> GgufFile::check_extents() const {
    const gguf_context* gguf = gguf_.get();
    std::uint64_t end = gguf_get_data_offset(gguf);
    for (std::int64_t i = 0; i < gguf_get_n_tensors(gguf); ++i) {
        // Neither sum overflows: ggml's reader checked the sizes of all tensors together.
        const std::uint64_t offset = gguf_get_data_offset(gguf) + gguf_get_tensor_offset(gguf, i);
        end = std::max(end, offset + gguf_get_tensor_size(gguf, i));
    }
    if (gguf_get_n_tensors(gguf) > 0 && end > bytes_) {
        return error(ErrorCode::kDataLoss,
                     "the model file '{}' is truncated: it has {} bytes, but its tensors end at "
                     "byte {}",
                     path_, bytes_, end);
    }
    return {};
}

/// A model may be split over several files; llama.cpp opens the others by name and takes their
/// metadata on trust.
Result<void> GgufFile::check_parts() const {
    const auto check_kind = [this](const char* key) -> Result<void> {
        const std::int64_t id = gguf_find_key(gguf_.get(), key);
        if (id < 0 || gguf_get_kv_type(gguf_.get(), id) == GGUF_TYPE_UINT16) return {};
        return error(ErrorCode::kDataLoss, "the model file '{}' is damaged: '{}' has a wrong type",
                     path_, key);
    };
    if (auto ok = check_kind("split.no"); !ok) return ok;
    if (auto ok = check_kind("split.count"); !ok) return ok;
    const auto count = integer("split.count").value_or(1);
    if (count <= 1) return {};
    const auto number = integer("split.no").value_or(0);
    if (number != 0) return {};  // a later part: only reached through the first
    std::array<char, 4096> prefix{};
    if (llama_split_prefix(prefix.data(), prefix.size(), path_.c_str(), 0,
                           static_cast<std::int32_t>(count)) <= 0) {
        return error(ErrorCode::kInvalidArgument,
                     "the model is split over {0} files, and '{1}' is not named like the first of "
                     "them (NAME-00001-of-{0:05}.gguf)",
                     count, path_);
    }
    for (std::int64_t part = 1; part < count; ++part) {
        std::array<char, 4096> name{};
        llama_split_path(name.data(), name.size(), prefix.data(), static_cast<std::int32_t>(part),
                         static_cast<std::int32_t>(count));
        const auto opened = open(name.data());
        if (!opened) return tl::unexpected(opened.error());
        if (opened->integer("split.no") != part) {
            return error(ErrorCode::kDataLoss, "'{}' is not part {} of the model '{}'", name.data(),
                         part + 1, path_);
        }
    }
    return {};
}

std::optional<std::string> GgufFile::text(const std::string& key) const {
    const std::int64_t id = gguf_find_key(gguf_.get(), key.c_str());
    if (id < 0 || gguf_get_kv_type(gguf_.get(), id) != GGUF_TYPE_STRING) return std::nullopt;
    return gguf_get_val_str(gguf_.get(), id);
}

std::optional<std::int64_t> GgufFile::integer(const std::string& key) const {
    const std::int64_t id = gguf_find_key(gguf_.get(), key.c_str());
    return id < 0 ? std::nullopt : integer_at(gguf_.get(), id);
}

std::optional<double> GgufFile::number(const std::string& key) const {
    const std::int64_t id = gguf_find_key(gguf_.get(), key.c_str());
    if (id < 0) return std::nullopt;
    if (gguf_get_kv_type(gguf_.get(), id) == GGUF_TYPE_FLOAT32) {
        return gguf_get_val_f32(gguf_.get(), id);
    }
    if (gguf_get_kv_type(gguf_.get(), id) == GGUF_TYPE_FLOAT64) {
        return gguf_get_val_f64(gguf_.get(), id);
    }
    const auto whole = integer_at(gguf_.get(), id);
    return whole ? std::optional<double>(static_cast<double>(*whole)) : std::nullopt;
}

Result<void> GgufFile::check_tokenizer() const {
    if (const auto part = integer("split.no").value_or(0); part != 0) {
        return error(ErrorCode::kInvalidArgument,
                     "'{}' is part {} of a split model; give its first part", path_, part + 1);
    }
    const auto kind = text("tokenizer.ggml.model");
    if (!kind || *kind == "none" || *kind == "no_vocab") {
        return error(ErrorCode::kInvalidArgument,
                     "the model file '{}' has no tokenizer, so it can't turn text into tokens",
                     path_);
    }
    constexpr std::array<std::string_view, 4> kKinds = {"gpt2", "llama", "gemma4", "plamo2"};
    if (std::ranges::find(kKinds, *kind) == kKinds.end()) {
        return error(ErrorCode::kInvalidArgument,
                     "the model file '{}' has a tokenizer of the kind '{}'; can be used: {}", path_,
                     *kind, fmt::join(kKinds, ", "));
    }
    return check_tokens();
}

Result<void> GgufFile::check_vocabulary_only() const {
    if (gguf_get_n_tensors(gguf_.get()) == 0 && !integer("split.count")) return {};
    return error(ErrorCode::kDataLoss,
                 "the model file '{}' is no vocabulary: it has tensors or is part of a split model",
                 path_);
}

std::string GgufFile::metadata_only() const {
    const std::unique_ptr<gguf_context, Free> copy(gguf_init_empty());
    gguf_set_kv(copy.get(), gguf_.get());
    for (const char* key : {"split.no", "split.count", "split.tensors.count"}) {
        if (gguf_find_key(copy.get(), key) >= 0) gguf_remove_key(copy.get(), key);
    }
    std::string bytes(gguf_get_meta_size(copy.get()), '\0');
    gguf_get_meta_data(copy.get(), bytes.data());
    return bytes;
}

Result<void> GgufFile::check_tokens() const {
    const std::int64_t id = gguf_find_key(gguf_.get(), "tokenizer.ggml.tokens");
    if (id < 0 || !is_array_of(gguf_.get(), id, GGUF_TYPE_STRING) ||
        gguf_get_arr_n(gguf_.get(), id) == 0) {
        return error(ErrorCode::kDataLoss, "the model file '{}' is damaged: it lists no tokens",
                     path_);
    }
    const std::size_t count = gguf_get_arr_n(gguf_.get(), id);
    std::unordered_set<std::string_view> seen;
    seen.reserve(count);
    for (std::size_t i = 0; i < count; ++i) {
        const std::string_view token = gguf_get_arr_str(gguf_.get(), id, i);
        // llama.cpp gives empty ones a name of their own, [EMPTY_<index>].
        if (!token.empty() && (!seen.insert(token).second || token.starts_with("[EMPTY_"))) {
            return error(ErrorCode::kDataLoss,
                         "the model file '{}' is damaged: token {} ('{}') is there twice", path_, i,
                         printable(token.substr(0, 40)));
        }
    }
    return {};
}

}  // namespace stator::model
