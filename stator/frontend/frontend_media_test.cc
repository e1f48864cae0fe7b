// Chats with images over loopback HTTP: real decoding, and an engine that encodes by script.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "stator/frontend/loopback_door.h"
#include "stator/frontend/scripted_engine.h"
#include "stator/media/content.h"
#include "stator/media/picture_fixture.h"
#include "stator/tokens/hash.h"

namespace stator::frontend {
namespace {

using media::gradient;
using media::to_data_url;
using media::to_jpeg;
using media::to_png;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::SizeIs;

constexpr const char* kTemplate =
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}";
constexpr const char* kMediaTemplate =
    "{% for m in messages %}<{{ m.role }}>{% if m.content is string %}{{ m.content }}{% else %}"
    "{% for p in m.content %}{% if p.type == 'image' %}[IMG]{% elif p.type == 'text' %}"
    "{{ p.text }}{% endif %}{% endfor %}{% endif %}{% endfor %}";

std::shared_ptr<media::MediaLoader> loader(media::MediaLoaderOptions options = {}) {
    static metrics::Registry registry;
    options.decoder.image_helper = STATOR_IMAGE_HELPER;
    options.fetch_threads = 2;
    options.decode_threads = 2;
    auto made = media::MediaLoader::make(std::move(options), registry);
    EXPECT_TRUE(made) << made.error().message;
    return made ? *made : nullptr;
}

/// A door in front of a model that reads images and answers "ok".
class Viewer {
  public:
    explicit Viewer(DoorModel model = {}, FrontendOptions options = {})
        : engine_(std::make_shared<ScriptedEngine>(*byte_tokenizer(), "ok", 1000)) {
        model.engine = engine_;
        if (model.media.empty()) model.media = {"image"};
        if (!model.loader) model.loader = loader();
        if (model.chat_template == DoorModel{}.chat_template) model.chat_template = kTemplate;
        loader_ = model.loader;
        door_.emplace(std::move(model), std::move(options));
    }
    ~Viewer() {
        loader_->stop();
        door_.reset();
    }
    net::HttpClientResponse ask(const std::string& content_json, const std::string& extra = {}) {
        return door_->post(kChat, R"({"model":"echo","messages":[{"role":"user","content":)" +
                                      content_json + "}]" + (extra.empty() ? "" : "," + extra) +
                                      "}");
    }
    ScriptedEngine& engine() { return *engine_; }
    Door& door() { return *door_; }

  private:
    std::shared_ptr<ScriptedEngine> engine_;
    std::shared_ptr<media::MediaLoader> loader_;
    std::optional<Door> door_;
};

std::string image(std::string_view url) {
    return R"({"type":"image_url","image_url":{"url":")" + std::string(url) + R"("}})";
}
std::string text(std::string_view t) {
    return R"({"type":"text","text":")" + std::string(t) + R"("})";
}

/// The prompt as text: rows of item i as the digit i, in the order in which digests come.
std::string spelled(const protocol::GenerateRequest& request) {
    std::string out;
    for (const auto token : request.prompt) {
        if (token < 256) {
            out += static_cast<char>(token);
            continue;
        }
        for (std::size_t i = 0; i < request.media.size(); ++i) {
            for (std::uint32_t row = 0; row < ScriptedEngine::kRows; ++row) {
                if (token != tokens::media_token(request.media[i].digest, row)) continue;
                out += static_cast<char>('0' + i);
            }
        }
    }
    return out;
}

TEST(FrontendMedia, TextAndImagesKeepTheirOrder) {
    Viewer viewer;
    const std::string red = to_data_url("image/png", to_png(gradient(8, 4)));
    const std::string blue = to_data_url("image/jpeg", to_jpeg(gradient(16, 16)));
    const auto response =
        viewer.ask("[" + text("a") + "," + image(red) + "," + text("b") + "," + image(blue) + "]");
    ASSERT_EQ(response.status, 200) << response.body;
    const Json json(response.body);
    EXPECT_EQ(json.str("choices", 0, "message", "content"), "ok");
    ASSERT_THAT(viewer.engine().encodes(), SizeIs(2));
    ASSERT_THAT(viewer.engine().requests(), SizeIs(1));
    const auto request = viewer.engine().requests()[0];
    EXPECT_EQ(spelled(request), "<user>a\n(000)\nb\n(111)");
    EXPECT_EQ(json.num("usage", "prompt_tokens"), static_cast<int>(request.prompt.size()));
    ASSERT_THAT(request.media, SizeIs(2));
    EXPECT_EQ(request.media[0].position, 8U);
    EXPECT_EQ(request.media[0].tokens, 5U);
    EXPECT_EQ(request.media[1].position, 16U);
    EXPECT_EQ(request.media[1].embeddings->content, request.media[1].digest);
    ASSERT_NE(request.media[0].content, nullptr);
    EXPECT_EQ(request.media[0].content->width, 8U);
    EXPECT_EQ(request.media[0].content->pixels, gradient(8, 4).rgb);
    EXPECT_EQ(request.media[0].digest, media::content_digest(*request.media[0].content));
    const auto encode = viewer.engine().encodes()[0];
    EXPECT_EQ(encode.leg, protocol::Leg::kEncode);
    EXPECT_TRUE(encode.prompt.empty());
    EXPECT_EQ(encode.media[0].embeddings, nullptr);
}

TEST(FrontendMedia, ATemplateThatKnowsMediaWritesItsOwnMark) {
    Viewer viewer(DoorModel{.chat_template = kMediaTemplate, .media_mark = "[IMG]"});
    const std::string picture = to_data_url("image/png", to_png(gradient(8, 4)));
    ASSERT_EQ(viewer.ask("[" + image(picture) + "," + text("what?") + "]").status, 200);
    EXPECT_EQ(spelled(viewer.engine().requests()[0]), "<user>(000)what?");
    // A mark in the user's text stays text.
    ASSERT_EQ(viewer.ask("[" + text("[IMG]") + "," + image(picture) + "]").status, 200);
    EXPECT_EQ(spelled(viewer.engine().requests()[1]), "<user>[IMG](000)");
}

TEST(FrontendMedia, NobodyCanForgeAMark) {
    Viewer viewer;
    const std::string picture = to_data_url("image/png", to_png(gradient(8, 4)));
    ASSERT_EQ(viewer.ask("[" + text("x\\uFDD30\\uFDD4y") + "," + image(picture) + "]").status, 200);
    EXPECT_THAT(spelled(viewer.engine().requests()[0]), HasSubstr("x0"));
    ASSERT_THAT(viewer.engine().requests()[0].media, SizeIs(1));
}

TEST(FrontendMedia, WithoutMediaAMarkIsText) {
    Viewer viewer;
    ASSERT_EQ(viewer.ask(R"("x\uFDD30\uFDD4y")").status, 200);
    EXPECT_THAT(spelled(viewer.engine().requests()[0]), HasSubstr("x\xEF\xB7\x93"
                                                                  "0"));
}

TEST(FrontendMedia, OtherShapesOfImages) {
    Viewer viewer;
    const std::string bytes = to_png(gradient(8, 4));
    const std::string url = to_data_url("image/png", bytes);
    const std::string claimed = to_data_url("text/plain", bytes);
    for (const std::string& part :
         {R"({"type":"image_url","image_url":")" + url + R"("})",
          R"({"type":"input_image","detail":"low","image_url":")" + url + R"("})",
          R"({"type":"image","source":{"type":"base64","media_type":"image/gif","data":")" +
              media::to_base64(bytes) + R"("}})",
          R"({"type":"image","source":{"type":"url","url":")" + url + R"("}})", image(claimed)}) {
        const auto response = viewer.ask("[" + part + "]");
        EXPECT_EQ(response.status, 200) << response.body;
    }
    // One name for one picture.
    const auto requests = viewer.engine().requests();
    ASSERT_THAT(requests, SizeIs(5));
    for (const auto& r : requests) EXPECT_EQ(r.media[0].digest, requests[0].media[0].digest);
}

TEST(FrontendMedia, EachChoiceHasEmbeddingsOfItsOwn) {
    Viewer viewer;
    const std::string picture = to_data_url("image/png", to_png(gradient(8, 4)));
    const auto response = viewer.ask("[" + image(picture) + "," + image(picture) + "]", R"("n":3)");
    ASSERT_EQ(response.status, 200) << response.body;
    EXPECT_THAT(viewer.engine().encodes(), SizeIs(6));
    std::set<const protocol::Handoff*> handoffs;
    const auto requests = viewer.engine().requests();
    ASSERT_THAT(requests, SizeIs(3));
    for (const auto& r : requests) {
        EXPECT_EQ(r.prompt, requests[0].prompt);
        for (const auto& item : r.media) handoffs.insert(item.embeddings.get());
    }
    EXPECT_THAT(handoffs, SizeIs(6));
}

TEST(FrontendMedia, WrongImagesAreNamed) {
    Viewer viewer;
    const auto refused = [&](const std::string& part, const std::string& param,
                             const std::string& words, const std::string& code = {}) {
        const auto response = viewer.ask("[" + text("a") + "," + part + "]");
        expect_error(response, 400, param, code);
        EXPECT_THAT(Json(response.body).str("error", "message"), HasSubstr(words));
    };
    const std::string field = "messages[0].content[1].image_url";
    const std::string whole = to_png(gradient(40, 40));
    refused(image("data:image/png;base64,AA"), field, "no base64");
    refused(image("data:image/png,abc"), field, "data:image/png;base64");
    refused(image(to_data_url("image/png", whole.substr(0, whole.size() / 2))), field, "broken");
    refused(image(to_data_url("image/png", "GIF89a....")), field, "JPEG, PNG or WebP",
            "unsupported_parameter");
    refused(image("https://127.0.0.1/a.png"), field, "not on the public internet");
    refused(image("http://example.org/a.png"), field, "only https");
    refused(image("file:///etc/passwd"), field, "https://");
    refused(image(""), field + ".url", "URL");
    refused(R"({"type":"image_url"})", field, "object");
    refused(R"({"type":"image_url","image_url":{"url":"x","detail":"huge"}})", field + ".detail",
            "auto");
    refused(R"({"type":"image","source":{"type":"file"}})", "messages[0].content[1].source.type",
            "base64");
    refused(R"({"type":"image","source":{"type":"base64","media_type":"image/png"}})",
            "messages[0].content[1].source.data", "non-empty string");
    refused(R"({"type":"image","source":{"type":"base64","data":"AAAA AAAA"}})",
            "messages[0].content[1].source", "no base64");
    refused(R"({"type":"image","source":{"type":"url","url":"http://example.org/"}})",
            "messages[0].content[1].source", "only https");
    refused(R"({"type":"image","source":"https://example.org/a.png"})",
            "messages[0].content[1].source", "object");
    refused(R"({"type":"image"})", "messages[0].content[1].source", "object");
    refused(R"({"type":"input_audio","input_audio":{"data":"","format":"wav"}})",
            "messages[0].content[1]",
            "\"input_audio\"; the model org/echo reads parts of type \"text\", \"image_url\" only",
            "unsupported_parameter");
    refused(R"({"type":"video_url","video_url":{"url":"data:"}})", "messages[0].content[1]",
            "image_url", "unsupported_parameter");
    EXPECT_THAT(viewer.engine().encodes(), SizeIs(0));
}

TEST(FrontendMedia, AModelWithoutMedia) {
    Door door;
    const auto response =
        door.post(kChat, R"({"model":"echo","messages":[{"role":"user","content":[)" +
                             image("https://example.org/x.png") + "]}]}");
    expect_error(response, 400, "messages[0].content[0]", "unsupported_parameter");
}

TEST(FrontendMedia, TooMany) {
    Viewer viewer({}, FrontendOptions{.max_media_items = 2});
    const std::string one = image(to_data_url("image/png", to_png(gradient(2, 2))));
    const std::string two = one + "," + one;
    EXPECT_EQ(viewer.ask("[" + two + "]").status, 200);
    expect_error(viewer.ask("[" + two + "," + one + "]"), 400, "messages[0].content[2].image_url",
                 "");
    expect_error(viewer.ask("[" + two + "]", R"("n":33)"), 400, "n", "");
}

TEST(FrontendMedia, TheContextIsCheckedAgainWithTheImages) {
    Viewer viewer;
    viewer.engine().set_encode([](const protocol::GenerateRequest& r) {
        protocol::StepEvent event;
        event.finish = protocol::FinishReason::kHandoff;
        event.handoff = ScriptedEngine::embeddings(r, 9000);
        return std::optional(event);
    });
    const std::string one = image(to_data_url("image/png", to_png(gradient(2, 2))));
    expect_error(viewer.ask("[" + one + "]"), 400, "messages", "context_length_exceeded");
    EXPECT_THAT(viewer.engine().requests(), SizeIs(0));
    EXPECT_EQ(viewer.engine().released(), 1U);
}

bool eventually(const std::function<bool()>& holds) {
    const Deadline end = Deadline::after(Clock::real().now(), std::chrono::seconds(20));
    while (!holds() && !end.reached(Clock::real().now())) std::this_thread::yield();
    return holds();
}

/// Of the items of one choice, the second is answered as the test says.
auto second_is(std::optional<protocol::StepEvent> what) {
    auto count = std::make_shared<std::atomic<int>>(0);
    return [count, what](const protocol::GenerateRequest& r) -> std::optional<protocol::StepEvent> {
        if (count->fetch_add(1) == 1) return what;
        protocol::StepEvent event;
        event.finish = protocol::FinishReason::kHandoff;
        event.handoff = ScriptedEngine::embeddings(r);
        return event;
    };
}

TEST(FrontendMedia, WhatWasEncodedBeforeAnotherItemFailedIsReleased) {
    Viewer viewer;
    protocol::StepEvent failed;
    failed.finish = protocol::FinishReason::kError;
    failed.error = error(ErrorCode::kUnavailable, "no encoder").value();
    viewer.engine().set_encode(second_is(failed));
    const std::string one = image(to_data_url("image/png", to_png(gradient(2, 2))));
    expect_error(viewer.ask("[" + one + "," + one + "," + one + "]"), 503, "",
                 "service_unavailable");
    // The third may have been made before it could be cancelled.
    EXPECT_TRUE(eventually([&] { return viewer.engine().released() == 2; }));
}

TEST(FrontendMedia, WhatWasEncodedForAClientThatLeftIsReleased) {
    Viewer viewer;
    viewer.engine().set_encode(second_is(std::nullopt));
    const std::string one = image(to_data_url("image/png", to_png(gradient(2, 2))));
    RawClient client(viewer.door().port());
    client.post(kChat, R"({"model":"echo","messages":[{"role":"user","content":[)" + one + "," +
                           one + "]}]}");
    ASSERT_TRUE(eventually([&] { return viewer.engine().encodes().size() == 2; }));
    client.leave();
    ASSERT_TRUE(eventually([&] { return viewer.engine().cancelled() == 1; }));
    ASSERT_TRUE(eventually([&] { return viewer.engine().released() == 1; }));
    viewer.engine().end_encodes();  // it had ended before it heard of that
    EXPECT_TRUE(eventually([&] { return viewer.engine().released() == 2; }));
    EXPECT_THAT(viewer.engine().requests(), SizeIs(0));
}

TEST(FrontendMedia, WhatEncodersSay) {
    Viewer viewer;
    const std::string one = image(to_data_url("image/png", to_png(gradient(2, 2))));
    std::function<protocol::StepEvent(const protocol::GenerateRequest&)> how;
    viewer.engine().set_encode(
        [&how](const protocol::GenerateRequest& r) { return std::optional(how(r)); });
    how = [](const auto&) {
        protocol::StepEvent event;
        event.finish = protocol::FinishReason::kError;
        event.error.emplace();
        event.error->code = ErrorCode::kInvalidArgument;
        event.error->message = "too small";
        return event;
    };
    expect_error(viewer.ask("[" + one + "]"), 400, "messages[0].content[0].image_url", "");
    how = [](const auto&) {
        protocol::StepEvent event;
        event.finish = protocol::FinishReason::kError;
        event.error.emplace();
        event.error->code = ErrorCode::kUnavailable;
        event.error->message = "no encoder";
        return event;
    };
    expect_error(viewer.ask("[" + one + "]"), 503, "", "service_unavailable");
    how = [](const protocol::GenerateRequest& r) {  // of another picture
        protocol::StepEvent event;
        event.finish = protocol::FinishReason::kHandoff;
        auto wrong = ScriptedEngine::embeddings(r);
        wrong->content[0] ^= 1U;
        event.handoff = wrong;
        return event;
    };
    expect_error(viewer.ask("[" + one + "]"), 500, "", "internal_error");
    how = [](const auto&) {
        protocol::StepEvent event;
        event.finish = protocol::FinishReason::kHandoff;
        return event;
    };
    expect_error(viewer.ask("[" + one + "]"), 500, "", "internal_error");
    EXPECT_THAT(viewer.engine().requests(), SizeIs(0));
}

TEST(FrontendMedia, AClientThatLeavesEndsEncoding) {
    Viewer viewer;
    viewer.engine().set_encode([](const auto&) { return std::optional<protocol::StepEvent>(); });
    const std::string one = image(to_data_url("image/png", to_png(gradient(2, 2))));
    RawClient client(viewer.door().port());
    client.post(kChat, R"({"model":"echo","messages":[{"role":"user","content":[)" + one + "," +
                           one + "]}]}");
    const auto until = [](auto&& holds) {
        const Deadline end = Deadline::after(Clock::real().now(), std::chrono::seconds(20));
        while (!holds() && !end.reached(Clock::real().now())) std::this_thread::yield();
        return holds();
    };
    ASSERT_TRUE(until([&] { return viewer.engine().encodes().size() == 2; }));
    client.leave();
    EXPECT_TRUE(until([&] { return viewer.engine().cancelled() == 2; }));
}

TEST(FrontendMedia, RequestsRunOutOfTimeInTheEncoder) {
    Viewer viewer({}, FrontendOptions{.request_timeout = std::chrono::milliseconds(50)});
    viewer.engine().set_encode([](const protocol::GenerateRequest& r) {
        while (!r.deadline.reached(Clock::real().now())) std::this_thread::yield();
        protocol::StepEvent event;
        event.finish = protocol::FinishReason::kCancelled;
        return std::optional(event);
    });
    const std::string one = image(to_data_url("image/png", to_png(gradient(2, 2))));
    expect_error(viewer.ask("[" + one + "]"), 504, "", "timeout");
}

TEST(FrontendMedia, Streamed) {
    Viewer viewer;
    const std::string one = image(to_data_url("image/png", to_png(gradient(2, 2))));
    const auto events = events_of(viewer.ask("[" + one + "]", R"("stream":true)"));
    EXPECT_EQ(events.back(), "[DONE]");
}

}  // namespace
}  // namespace stator::frontend
