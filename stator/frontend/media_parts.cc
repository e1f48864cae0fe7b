#include "stator/frontend/media_parts.h"

#include <algorithm>
#include <array>
#include <string>
#include <utility>

namespace stator::frontend {
namespace {

using codec::JsonType;
using codec::JsonView;
using media::MediaSource;
using Kind = protocol::MediaContent::Kind;

constexpr std::array<std::string_view, 4> kTypes = {"image_url", "input_image", "image",
                                                    "video_url"};
constexpr std::array<std::string_view, 3> kDetails = {"auto", "low", "high"};

/// `{"url": …, "detail": …}` or, as some clients send it, the URL alone.
void read_url(FieldReader& part, std::string_view name, MediaSource& out) {
    const JsonView v = part.view(name);
    if (const auto url = v.as_string(); url && !url->empty()) {
        out.text = *url;
        return;
    }
    if (v.is_null() || v.type() != JsonType::kObject) {
        return part.fail_type(name, "an object with a url", v);
    }
    FieldReader inner(v, part.path(name));
    const auto url = inner.view("url").as_string();
    if (!url || url->empty()) inner.fail_type("url", "a URL as a string", inner.view("url"));
    // How much of the picture the model looks at is its encoder's business.
    inner.one_of("detail", kDetails);
    if (!inner.ok()) return part.fail_with(inner);
    out.text = *url;
}

/// Anthropic's: `{"type": "base64", "media_type": …, "data": …}` or `{"type": "url", "url": …}`.
void read_source(FieldReader& part, MediaSource& out) {
    const JsonView v = part.view("source");
    if (v.is_null() || v.type() != JsonType::kObject) {
        return part.fail_type("source", "an object with type base64 or url", v);
    }
    constexpr std::array<std::string_view, 2> kForms = {"base64", "url"};
    FieldReader source(v, part.path("source"));
    const auto form = source.one_of("type", kForms);
    const std::string_view field = form == "base64" ? "data" : "url";
    const auto text = source.view(field).as_string();
    if (!form) {
        source.fail_type("type", "\"base64\" or \"url\"", source.view("type"));
    } else if (!text || text->empty()) {
        source.fail_type(field, "a non-empty string", source.view(field));
    }
    source.string("media_type");
    if (!source.ok()) return part.fail_with(source);
    out.form = form == "base64" ? MediaSource::Form::kBase64 : MediaSource::Form::kUrl;
    out.text = *text;
}

}  // namespace

bool is_media_part(std::string_view type) {
    return std::ranges::find(kTypes, type) != kTypes.end();
}

tl::unexpected<Error> unsupported_part(std::string_view type, std::string_view path,
                                       const RequestRules& rules) {
    std::string reads = "\"text\"";
    if (rules.images) reads += ", \"image_url\"";
    if (rules.videos) reads += ", \"video_url\"";
    auto e = error(
        ErrorCode::kUnsupported, "{} is of type \"{}\"; {}{} reads parts of type {} only", path,
        type.substr(0, 40), rules.model.empty() ? "this model" : "the model ", rules.model, reads);
    e.value().param = path;
    return e;
}

std::optional<MediaSource> read_media_part(FieldReader& part, std::string_view path,
                                           std::string_view type, const RequestRules& rules) {
    const bool video = type == "video_url";
    if (video ? !rules.videos : !rules.images) {
        part.fail(unsupported_part(type, path, rules));
        return std::nullopt;
    }
    MediaSource out;
    out.kind = video ? Kind::kVideo : Kind::kImage;
    if (type == "image") {
        out.path = part.path("source");
        read_source(part, out);
    } else {
        const std::string_view field = video ? "video_url" : "image_url";
        out.path = part.path(field);
        read_url(part, field, out);
        if (type == "input_image") part.one_of("detail", kDetails);
    }
    if (!part.ok()) return std::nullopt;
    return out;
}

}  // namespace stator::frontend
