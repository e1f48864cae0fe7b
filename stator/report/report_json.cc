#include <fmt/format.h>
#include <cstdint>
#include <limits>
#include <optional>
#include <utility>

#include "stator/codec/json.h"
#include "stator/codec/json_writer.h"
#include "stator/codec/utf8.h"
#include "stator/report/render.h"
#include "stator/report/report_fields.h"

namespace stator::report {
namespace {

constexpr std::string_view kFormat = "stator-report";
constexpr std::uint64_t kVersion = 1;

template <typename T>
concept Named = std::same_as<T, Outcome> || std::same_as<T, ItlRule>;

void put_text(codec::JsonWriter& json, std::string_view text) {
    if (codec::utf8_valid(text)) {
        json.string(text);
        return;
    }
    std::string mended;
    codec::utf8_append_lossy(mended, text);
    json.string(mended);
}

/// Writes fields; with `names` off, the values alone.
class Writer {
  public:
    explicit Writer(codec::JsonWriter& json, bool names = true) : json_(json), names_(names) {}

    template <typename T>
    void field(std::string_view name, const T& value) {
        if (names_) json_.key(name);
        put(value);
    }
    template <typename T>
    void list(std::string_view name, const std::vector<T>& values, std::size_t /*bound*/) {
        json_.key(name).begin_array();
        for (const T& value : values) put(value);
        json_.end_array();
    }
    template <typename T>
    void rows(std::string_view name, const std::vector<T>& values, std::size_t /*bound*/) {
        json_.key(name).begin_array();
        Writer row(json_, false);
        for (const T& value : values) {
            json_.begin_array();
            fields(row, value);
            json_.end_array();
        }
        json_.end_array();
    }
    void texts(std::string_view name, const std::vector<std::string>& values,
               std::size_t /*bound*/) {
        json_.key(name).begin_array();
        for (const std::string& value : values) put_text(json_, value);
        json_.end_array();
    }

  private:
    void put(double value) { json_.number(value); }
    void put(std::uint64_t value) { json_.number(value); }
    void put(std::uint32_t value) { json_.number(value); }
    void put(bool value) { json_.boolean(value); }
    void put(const std::string& value) { put_text(json_, value); }
    void put(Named auto value) { json_.string(to_string(value)); }
    void put(const std::optional<double>& value) {
        if (value) {
            json_.number(*value);
        } else {
            json_.null();
        }
    }
    template <typename T>
        requires std::is_class_v<T>
    void put(const T& value) {
        json_.begin_object();
        fields(*this, value);
        json_.end_object();
    }

    codec::JsonWriter& json_;
    bool names_;
};

/// Reads fields and keeps the first fault. In a row, values are taken by position.
class Reader {
  public:
    Reader(codec::JsonView from, std::string& fault, std::string path)
        : from_(from), fault_(fault), path_(std::move(path)) {}

    static Reader of_row(codec::JsonView from, std::string& fault, std::string path) {
        Reader reader(from, fault, std::move(path));
        reader.row_.emplace();
        from.each_element([&](std::size_t, codec::JsonView value) {
            reader.row_->push_back(value);
            return reader.row_->size() < kMaxRow;
        });
        return reader;
    }

    template <typename T>
    void field(std::string_view name, T& value) {
        codec::JsonView json;
        if (!row_) {
            json = from_.find(name);
        } else if (taken_ < row_->size()) {
            json = (*row_)[taken_++];
        }
        if (json.present()) take(json, value, name);
    }
    template <typename T>
    void list(std::string_view name, std::vector<T>& values, std::size_t bound) {
        each(name, bound, [&](codec::JsonView element, std::string path) {
            Reader reader(element, fault_, std::move(path));
            reader.expect(codec::JsonType::kObject);
            fields(reader, values.emplace_back());
        });
    }
    template <typename T>
    void rows(std::string_view name, std::vector<T>& values, std::size_t bound) {
        each(name, bound, [&](codec::JsonView element, std::string path) {
            Reader reader = of_row(element, fault_, std::move(path));
            reader.expect(codec::JsonType::kArray);
            fields(reader, values.emplace_back());
        });
    }
    void texts(std::string_view name, std::vector<std::string>& values, std::size_t bound) {
        each(name, bound, [&](codec::JsonView element, std::string path) {
            Reader reader(element, fault_, std::move(path));
            reader.take(element, values.emplace_back(), "");
        });
    }
    void expect(codec::JsonType type) {
        if (from_.type() != type) wrong("", fmt::format("must be an {}", codec::to_string(type)));
    }

  private:
    static constexpr std::size_t kMaxRow = 16;

    void wrong(std::string_view name, std::string_view what) {
        if (!fault_.empty()) return;
        std::string where = path_;
        if (!where.empty() && !name.empty()) where += '.';
        where += name;
        fault_ = where + " " + std::string(what);
    }
    [[nodiscard]] std::string inside(std::string_view name) const {
        return path_.empty() ? std::string(name) : path_ + "." + std::string(name);
    }
    template <typename Each>
    void each(std::string_view name, std::size_t bound, Each take_one) {
        const codec::JsonView array = from_.find(name);
        if (!array.present()) return;
        if (array.type() != codec::JsonType::kArray) return wrong(name, "must be an array");
        if (array.size() > bound) {
            return wrong(name,
                         fmt::format("holds {} values, at most {} are read", array.size(), bound));
        }
        array.each_element([&](std::size_t i, codec::JsonView element) {
            take_one(element, fmt::format("{}[{}]", inside(name), i));
            return fault_.empty();
        });
    }

    void take(codec::JsonView json, double& value, std::string_view name) {
        const auto number = json.as_double();
        if (!number) return wrong(name, "must be a number");
        value = *number;
    }
    void take(codec::JsonView json, std::uint64_t& value, std::string_view name) {
        const auto number = json.as_uint();
        if (!number) return wrong(name, "must be an integer of 0 or more");
        value = *number;
    }
    void take(codec::JsonView json, std::uint32_t& value, std::string_view name) {
        const auto number = json.as_uint();
        if (!number || *number > std::numeric_limits<std::uint32_t>::max()) {
            return wrong(name, "must be an integer from 0 to 4294967295");
        }
        value = static_cast<std::uint32_t>(*number);
    }
    void take(codec::JsonView json, bool& value, std::string_view name) {
        const auto boolean = json.as_bool();
        if (!boolean) return wrong(name, "must be true or false");
        value = *boolean;
    }
    void take(codec::JsonView json, std::string& value, std::string_view name) {
        const auto text = json.as_string();
        if (!text) return wrong(name, "must be a string");
        value = *text;
    }
    void take(codec::JsonView json, std::optional<double>& value, std::string_view name) {
        if (json.is_null()) return value.reset();
        double number = 0;
        take(json, number, name);
        value = number;
    }
    template <Named T>
    void take(codec::JsonView json, T& value, std::string_view name) {
        const std::string_view text = json.as_string().value_or("");
        for (unsigned number = 1; to_string(static_cast<T>(number)) != "unknown"; ++number) {
            if (to_string(static_cast<T>(number)) == text) {
                value = static_cast<T>(number);
                return;
            }
        }
        wrong(name, "is none of the names this version knows");
    }
    template <typename T>
        requires std::is_class_v<T>
    void take(codec::JsonView json, T& value, std::string_view name) {
        Reader reader(json, fault_, inside(name));
        reader.expect(codec::JsonType::kObject);
        fields(reader, value);
    }

    codec::JsonView from_;
    std::string& fault_;
    std::string path_;
    std::optional<std::vector<codec::JsonView>> row_;
    std::size_t taken_ = 0;
};

}  // namespace

std::string to_json(const Report& report) {
    std::string out;
    codec::JsonWriter json(out);
    json.begin_object().key("format").string(kFormat).key("version").number(kVersion);
    Writer writer(json);
    fields(writer, report);
    json.end_object();
    out += '\n';
    return out;
}

Result<Report> parse_report(std::string_view text) {
    codec::JsonDocument document;
    const auto root = document.parse(text);
    if (!root) return tl::unexpected(root.error());
    const std::string_view format = root->find("format").as_string().value_or("");
    if (format != kFormat) {
        return error(ErrorCode::kInvalidArgument,
                     "this JSON is no report: its field format must be \"{}\"", kFormat);
    }
    const auto version = root->find("version").as_uint();
    if (!version || *version == 0 || *version > kVersion) {
        return error(ErrorCode::kInvalidArgument,
                     "the report's version must be at most {}; a newer stator wrote it", kVersion);
    }
    Report report;
    std::string fault;
    Reader reader(*root, fault, "");
    fields(reader, report);
    if (!fault.empty()) {
        return error(ErrorCode::kInvalidArgument, "the report can't be read: {}", fault);
    }
    return report;
}

}  // namespace stator::report
