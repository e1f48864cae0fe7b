#include "stator/text/chat_template.h"

#include <stator_text.h>

#include <algorithm>
#include <cstddef>
#include <string>
#include <utility>
#include <vector>

namespace stator::text {

namespace {

struct FreeTemplate {
    void operator()(StatorTemplate* t) const { stator_template_free(t); }
};

/// Gives the crate's text back.
class OwnedText {
  public:
    OwnedText() = default;
    OwnedText(const OwnedText&) = delete;
    OwnedText& operator=(const OwnedText&) = delete;
    ~OwnedText() { stator_text_free(text_); }

    StatorText* out() { return &text_; }
    [[nodiscard]] std::string_view view() const {
        return text_.size == 0 ? std::string_view{} : std::string_view(text_.data, text_.size);
    }
    [[nodiscard]] std::string place() const {
        return text_.line == 0 ? "chat template"
                               : fmt::format("chat template, line {}", text_.line);
    }

  private:
    StatorText text_{};
};

}  // namespace

struct ChatTemplate::Impl {
    std::unique_ptr<StatorTemplate, FreeTemplate> compiled;
    Limits limits;
};

namespace {

tl::unexpected<Error> render_error(StatorTemplateStatus status, const OwnedText& text,
                                   const ChatTemplate::Limits& limits) {
    switch (status) {
        case STATOR_TEMPLATE_RAISED:
            return error(ErrorCode::kInvalidArgument, "{}: {}", text.place(), text.view());
        case STATOR_TEMPLATE_UNDEFINED:
            return error(ErrorCode::kInvalidArgument,
                         "{} uses something that the request does not have: {}", text.place(),
                         text.view());
        case STATOR_TEMPLATE_OPERATION:
            return error(ErrorCode::kInvalidArgument, "{} can't use these values: {}", text.place(),
                         text.view());
        case STATOR_TEMPLATE_STEPS:
            return error(ErrorCode::kTooLarge,
                         "{}: over the limit of {} steps or of recursion ({})", text.place(),
                         limits.max_steps, text.view());
        case STATOR_TEMPLATE_OUTPUT:
            return error(ErrorCode::kTooLarge, "{}: the prompt would be over {} bytes",
                         text.place(), limits.max_output_bytes);
        case STATOR_TEMPLATE_CONTEXT:
            return error(ErrorCode::kInvalidArgument,
                         "chat template: its variables must be a JSON object: {}", text.view());
        case STATOR_TEMPLATE_PANIC:
        case STATOR_TEMPLATE_SYNTAX:
        case STATOR_TEMPLATE_OK:
            break;
    }
    return error(ErrorCode::kInternal, "{}: status {}: {}", text.place(), static_cast<int>(status),
                 text.view());
}

}  // namespace

ChatTemplate::ChatTemplate(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
ChatTemplate::~ChatTemplate() = default;
ChatTemplate::ChatTemplate(ChatTemplate&&) noexcept = default;
ChatTemplate& ChatTemplate::operator=(ChatTemplate&&) noexcept = default;

Result<ChatTemplate> ChatTemplate::compile(std::string_view source, std::string_view bos,
                                           std::string_view eos, Limits limits) {
    const StatorTemplateOptions options{
        .bos_token = bos.data(),
        .bos_token_size = bos.size(),
        .eos_token = eos.data(),
        .eos_token_size = eos.size(),
        .max_steps = limits.max_steps,
        .max_output_bytes = limits.max_output_bytes,
    };
    StatorTemplate* compiled = nullptr;
    OwnedText text;
    const auto status =
        stator_template_compile(source.data(), source.size(), &options, &compiled, text.out());
    if (status != STATOR_TEMPLATE_OK) {
        return error(ErrorCode::kInvalidArgument, "{} does not compile: {}", text.place(),
                     text.view());
    }
    auto impl = std::make_unique<Impl>();
    impl->compiled.reset(compiled);
    impl->limits = limits;
    return ChatTemplate(std::move(impl));
}

Result<std::string> ChatTemplate::render(std::string_view context_json,
                                         std::optional<std::int64_t> unix_seconds,
                                         std::span<const std::string> texts) const {
    std::vector<StatorTextView> views;
    views.reserve(texts.size());
    std::size_t input = context_json.size();
    for (const std::string& t : texts) {
        views.push_back({t.data(), t.size()});
        input += t.size();
    }
    std::string out;
    out.reserve(std::min<std::size_t>(input, impl_->limits.max_output_bytes));
    const auto append = [](void* to, const char* data, std::size_t size) {
        static_cast<std::string*>(to)->append(data, size);
    };
    OwnedText message;
    const auto status = stator_template_render(
        impl_->compiled.get(), context_json.data(), context_json.size(), views.data(), views.size(),
        unix_seconds ? &*unix_seconds : nullptr, append, &out, message.out());
    if (status != STATOR_TEMPLATE_OK) return render_error(status, message, impl_->limits);
    return out;
}

std::string ChatTemplate::text_mark(std::size_t text) {
    return "\xEF\xB7\x90" + std::to_string(text);
}

}  // namespace stator::text
