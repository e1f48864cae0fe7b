#include "stator/codec/json.h"

#include <simdjson.h>

#include <bit>
#include <cstring>
#include <type_traits>
#include <utility>

#include "stator/base/check.h"
#include "stator/codec/json_fault.h"
#include "stator/codec/json_writer.h"

namespace stator::codec {

namespace dom = simdjson::dom;

/// The one way between our views and simdjson's elements.
struct JsonAccess {
    static_assert(sizeof(dom::element) == sizeof(JsonView::raw_));
    static_assert(std::is_trivially_copyable_v<dom::element>);

    static dom::element element(const JsonView& view) {
        dom::element e;
        std::memcpy(static_cast<void*>(&e), view.raw_, sizeof(e));
        return e;
    }
    static JsonView view(const dom::element& e) {
        JsonView v;
        std::memcpy(v.raw_, static_cast<const void*>(&e), sizeof(e));
        v.present_ = true;
        return v;
    }
};

namespace {

// simdjson keeps 24 bits for the number of a container's children and stops counting there.
constexpr std::size_t kCountSaturates = 0xFFFFFF;

template <typename Container>
std::size_t count(const Container& c) {
    const std::size_t n = c.size();
    if (n < kCountSaturates) return n;
    std::size_t exact = 0;
    for (auto it = c.begin(); it != c.end(); ++it) ++exact;
    return exact;
}

void write_element(const dom::element& e, JsonWriter& w) {  // recursion: at most kMaxDepth + 1 deep
    switch (e.type()) {
        case dom::element_type::ARRAY:
            w.begin_array();
            for (const dom::element child : dom::array(e)) write_element(child, w);
            w.end_array();
            break;
        case dom::element_type::OBJECT:
            w.begin_object();
            for (const dom::key_value_pair member : dom::object(e)) {
                w.key(member.key);
                write_element(member.value, w);
            }
            w.end_object();
            break;
        case dom::element_type::INT64:
            w.number(std::int64_t(e));
            break;
        case dom::element_type::UINT64:
            w.number(std::uint64_t(e));
            break;
        case dom::element_type::DOUBLE:
            w.number(double(e));
            break;
        case dom::element_type::STRING:
            w.string(std::string_view(e));
            break;
        case dom::element_type::BOOL:
            w.boolean(bool(e));
            break;
        case dom::element_type::NULL_VALUE:
            w.null();
            break;
    }
}

}  // namespace

std::string_view to_string(JsonType type) {
    switch (type) {
        case JsonType::kNull:
            return "null";
        case JsonType::kBool:
            return "boolean";
        case JsonType::kInt:
        case JsonType::kUint:
            return "integer";
        case JsonType::kDouble:
            return "number";
        case JsonType::kString:
            return "string";
        case JsonType::kArray:
            return "array";
        case JsonType::kObject:
            return "object";
    }
    return "unknown";
}

JsonType JsonView::type() const {
    if (!present_) return JsonType::kNull;
    switch (JsonAccess::element(*this).type()) {
        case dom::element_type::ARRAY:
            return JsonType::kArray;
        case dom::element_type::OBJECT:
            return JsonType::kObject;
        case dom::element_type::INT64:
            return JsonType::kInt;
        case dom::element_type::UINT64:
            return JsonType::kUint;
        case dom::element_type::DOUBLE:
            return JsonType::kDouble;
        case dom::element_type::STRING:
            return JsonType::kString;
        case dom::element_type::BOOL:
            return JsonType::kBool;
        case dom::element_type::NULL_VALUE:
            return JsonType::kNull;
    }
    return JsonType::kNull;
}

std::optional<bool> JsonView::as_bool() const {
    bool value = false;
    if (!present_ || JsonAccess::element(*this).get(value)) return std::nullopt;
    return value;
}

std::optional<std::int64_t> JsonView::as_int() const {
    std::int64_t value = 0;
    if (!present_ || JsonAccess::element(*this).get(value)) return std::nullopt;
    return value;
}

std::optional<std::uint64_t> JsonView::as_uint() const {
    std::uint64_t value = 0;
    if (!present_ || JsonAccess::element(*this).get(value)) return std::nullopt;
    return value;
}

std::optional<double> JsonView::as_double() const {
    double value = 0;
    if (!present_ || JsonAccess::element(*this).get(value)) return std::nullopt;
    return value;
}

std::optional<std::string_view> JsonView::as_string() const {
    std::string_view value;
    if (!present_ || JsonAccess::element(*this).get(value)) return std::nullopt;
    return value;
}

JsonView JsonView::find(std::string_view key) const {
    dom::object object;
    dom::element value;
    if (!present_ || JsonAccess::element(*this).get(object)) return {};
    if (object.at_key(key).get(value)) return {};
    return JsonAccess::view(value);
}

std::size_t JsonView::size() const {
    if (!present_) return 0;
    const dom::element e = JsonAccess::element(*this);
    dom::array array;
    dom::object object;
    if (!e.get(array)) return count(array);
    if (!e.get(object)) return count(object);
    return 0;
}

void JsonView::each_element(const std::function<bool(std::size_t, JsonView)>& f) const {
    dom::array array;
    if (!present_ || JsonAccess::element(*this).get(array)) return;
    std::size_t i = 0;
    for (const dom::element e : array) {
        if (!f(i++, JsonAccess::view(e))) return;
    }
}

void JsonView::each_member(const std::function<bool(std::string_view, JsonView)>& f) const {
    dom::object object;
    if (!present_ || JsonAccess::element(*this).get(object)) return;
    for (const dom::key_value_pair member : object) {
        if (!f(member.key, JsonAccess::view(member.value))) return;
    }
}

void JsonView::write_to(std::string& out) const {
    JsonWriter w(out);
    if (present_) {
        write_element(JsonAccess::element(*this), w);
    } else {
        w.null();
    }
}

// ---------------------------------------------------------------------------------------------------------------------

struct JsonDocument::Impl {
    dom::parser parser;
    std::unique_ptr<char[]> text;
    std::size_t capacity = 0;  // bytes of text that all buffers are made for

    /// Makes the buffers large enough for `n` bytes. Rounded up, because simdjson allocates to the
    /// byte and would do so again for every text a little longer than the last.
    simdjson::error_code reserve(std::size_t n) {
        if (n <= capacity) return simdjson::SUCCESS;
        constexpr std::size_t kSmallest = 4096;
        constexpr std::size_t kStep = 1 << 20;
        std::size_t wanted =
            n <= kStep ? std::max(kSmallest, std::bit_ceil(n)) : (n + kStep - 1) / kStep * kStep;
        wanted = std::min(wanted, simdjson::SIMDJSON_MAXSIZE_BYTES);
        if (n > wanted) return simdjson::CAPACITY;
        capacity = 0;
        text.reset();
        text.reset(new (std::nothrow) char[wanted + simdjson::SIMDJSON_PADDING]);
        if (!text) return simdjson::MEMALLOC;
        // simdjson refuses at max_depth a value that stands inside max_depth containers.
        if (const auto e = parser.allocate(wanted, kMaxDepth + 1)) return e;
        if (const auto e = parser.doc.allocate(wanted)) return e;
        capacity = wanted;
        return simdjson::SUCCESS;
    }
};

JsonDocument::JsonDocument() = default;
JsonDocument::~JsonDocument() = default;
JsonDocument::JsonDocument(JsonDocument&&) noexcept = default;
JsonDocument& JsonDocument::operator=(JsonDocument&&) noexcept = default;

Result<JsonView> JsonDocument::parse(std::string_view text) {
    if (!impl_) impl_ = std::make_unique<Impl>();
    dom::element root;
    simdjson::error_code code = impl_->reserve(text.size());
    if (!code) {
        if (!text.empty()) std::memcpy(impl_->text.get(), text.data(), text.size());
        code = impl_->parser.parse(impl_->text.get(), text.size(), false).get(root);
    }
    if (!code) return JsonAccess::view(root);
    if (code == simdjson::CAPACITY) {
        return error(ErrorCode::kTooLarge, "The JSON text has {} bytes; at most {} can be read.",
                     text.size(), simdjson::SIMDJSON_MAXSIZE_BYTES);
    }
    if (code == simdjson::MEMALLOC) {
        return error(ErrorCode::kExhausted, "No memory to read a JSON text of {} bytes.",
                     text.size());
    }
    // simdjson says neither where nor, mostly, what: a second, slow look finds out.
    if (const auto fault = find_json_fault(text, kMaxDepth)) {
        return error(ErrorCode::kInvalidArgument, "The text is not valid JSON: at byte {}, {}.",
                     fault->offset, fault->what);
    }
    STATOR_BUG("simdjson refuses a JSON text in which find_json_fault finds nothing wrong");
    return error(ErrorCode::kInvalidArgument, "The text is not valid JSON: {}",
                 simdjson::error_message(code));
}

std::size_t JsonDocument::capacity_bytes() const {
    if (!impl_) return 0;
    // The text, and simdjson's tape (8 bytes per byte of text), strings (5/3) and structural
    // indexes (4), and per level of depth 16 bytes, which don't count.
    const std::size_t n = impl_->capacity;
    return n + 8 * n + 5 * n / 3 + 4 * n;
}

void JsonDocument::shrink() { impl_.reset(); }

}  // namespace stator::codec
