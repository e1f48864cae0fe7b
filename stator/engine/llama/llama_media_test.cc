#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <mtmd-helper.h>
#include <mtmd.h>

#if defined(__has_include) && __has_include(<sanitizer/lsan_interface.h>)
#include <sanitizer/lsan_interface.h>
#endif

#include <cstdio>
#include <string>

#include "stator/engine/llama/llama_fixture.h"
#include "stator/engine/llama/projector_fixture.h"
#include "stator/engine/memory_handoffs_fixture.h"
#include "stator/tokens/hash.h"

namespace stator::engine {
namespace {

using protocol::Leg;
using protocol::MediaItem;

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define STATOR_LEAKS_OF_FAILED_LOADS
#endif
#endif

/// llama.cpp keeps what it had loaded of an encoder that it then refuses.
class FailedLoads {
  public:
#ifdef STATOR_LEAKS_OF_FAILED_LOADS
    FailedLoads() { __lsan_disable(); }
    ~FailedLoads() { __lsan_enable(); }
#else
    FailedLoads() = default;
    ~FailedLoads() = default;
#endif
    FailedLoads(const FailedLoads&) = delete;
    FailedLoads& operator=(const FailedLoads&) = delete;
};

constexpr int kTokens = 12;

protocol::Digest digest_of(std::uint8_t name) {
    protocol::Digest digest{};
    digest.fill(name);
    return digest;
}

/// Stripes, other ones for each name.
std::shared_ptr<const protocol::MediaContent> picture(std::uint8_t name, std::uint32_t width = 300,
                                                      std::uint32_t height = 200,
                                                      std::uint32_t frames = 1) {
    auto content = std::make_shared<protocol::MediaContent>();
    content->kind =
        frames > 1 ? protocol::MediaContent::Kind::kVideo : protocol::MediaContent::Kind::kImage;
    content->width = width;
    content->height = height;
    content->frames = frames;
    content->pixels.resize(std::size_t{frames} * width * height * 3);
    for (std::size_t i = 0; i < content->pixels.size(); ++i) {
        content->pixels[i] = static_cast<char>((i * (name * 7U + 1) + i / 900 * name) & 255U);
    }
    return content;
}

/// llama.cpp's own evaluation of a prompt with a picture, in one process.
class PlainMedia : public PlainLlama {
  public:
    explicit PlainMedia(const std::string& projector) {
        auto params = mtmd_context_params_default();
        params.n_threads = 1;
        params.warmup = false;
        params.print_timings = false;
        mtmd_helper_log_set([](ggml_log_level, const char*, void*) {}, nullptr);
        media_ = mtmd_init_from_file(projector.c_str(), model(), params);
    }
    ~PlainMedia() { mtmd_free(media_); }
    PlainMedia(const PlainMedia&) = delete;
    PlainMedia& operator=(const PlainMedia&) = delete;

    struct Chunks {
        std::vector<TokenId> before;
        std::vector<TokenId> after;
        std::uint32_t rows = 0;
        Greedy text;
    };
    Chunks run(const protocol::MediaContent& content, const std::string& before,
               const std::string& after, int count) {
        const mtmd::bitmap bitmap(content.width, content.height,
                                  reinterpret_cast<const unsigned char*>(content.pixels.data()));
        const mtmd::input_chunks chunks(mtmd_input_chunks_init());
        const std::string text = before + mtmd_get_marker(media_) + after;
        const mtmd_input_text input{text.data(), text.size(), true, true};
        const mtmd_bitmap* bitmaps[] = {bitmap.ptr.get()};
        EXPECT_EQ(mtmd_tokenize(media_, chunks.ptr.get(), &input, bitmaps, 1), 0);
        Chunks out;
        for (std::size_t i = 0; i < chunks.size(); ++i) {
            if (mtmd_input_chunk_get_type(chunks[i]) != MTMD_INPUT_CHUNK_TYPE_TEXT) {
                out.rows = static_cast<std::uint32_t>(mtmd_input_chunk_get_n_tokens(chunks[i]));
                continue;
            }
            std::size_t n = 0;
            const llama_token* t = mtmd_input_chunk_get_tokens_text(chunks[i], &n);
            auto& to = out.rows == 0 ? out.before : out.after;
            to.insert(to.end(), t, t + n);
        }
        llama_memory_clear(llama_get_memory(context()), true);
        llama_pos past = 0;
        EXPECT_EQ(
            mtmd_helper_eval_chunks(media_, context(), chunks.ptr.get(), 0, 0, 512, true, &past),
            0);
        out.text = go_on({}, count);
        return out;
    }

  private:
    mtmd_context* media_ = nullptr;
};

class LlamaMediaTest : public LlamaEngineTest {
  protected:
    void SetUp() override {
        LlamaEngineTest::SetUp();
        if (IsSkipped()) return;
        projector = testing::TempDir() + "stator_projector_test.gguf";
        ASSERT_TRUE(write_random_projector(projector, {}));
    }
    void TearDown() override {
        if (!projector.empty()) std::remove(projector.c_str());
    }

    LlamaOptions with_store() const {
        LlamaOptions o = options();
        o.max_running = 8;
        o.handoffs = store;
        return o;
    }
    std::unique_ptr<Engine> start_encoder() {
        LlamaOptions o = with_store();
        o.mmproj_path = projector;
        auto made = make_llama_encoder(o);
        EXPECT_TRUE(made) << made.error().message;
        return made ? std::move(*made) : nullptr;
    }

    Collector::Outcome run(Engine& on, GenerateRequest r) {
        r.id = RequestId(++last_id);
        auto ok = on.submit(std::move(r), sink);
        EXPECT_TRUE(ok) << ok.error().message;
        return ok ? sink->wait(last_id) : Collector::Outcome{};
    }
    Collector::Outcome encode(Engine& on, std::uint8_t name,
                              std::shared_ptr<const protocol::MediaContent> content) {
        GenerateRequest r;
        r.leg = Leg::kEncode;
        r.media.push_back({.digest = digest_of(name), .content = std::move(content)});
        return run(on, std::move(r));
    }
    /// The prompt with the picture in it, as a frontend makes it.
    GenerateRequest prompt(const PlainMedia::Chunks& around, std::uint8_t name,
                           const std::shared_ptr<const protocol::Handoff>& embeddings) {
        GenerateRequest r;
        r.prompt = around.before;
        MediaItem item{.digest = digest_of(name),
                       .position = static_cast<std::uint32_t>(r.prompt.size()),
                       .tokens = embeddings->tokens,
                       .embeddings = embeddings};
        for (std::uint32_t i = 0; i < item.tokens; ++i) {
            r.prompt.push_back(tokens::media_token(item.digest, i));
        }
        r.prompt.insert(r.prompt.end(), around.after.begin(), around.after.end());
        r.media = {item};
        r.max_tokens = kTokens;
        r.sampling.temperature = 0.0F;
        r.ignore_eos = true;
        return r;
    }

    std::string projector;
    std::shared_ptr<MemoryHandoffs> store = std::make_shared<MemoryHandoffs>();
    std::uint64_t last_id = 0;
};

const std::string kBefore = "<|im_start|>user\nDescribe ";
const std::string kAfter = " please<|im_end|>\n<|im_start|>assistant\n";

TEST_F(LlamaMediaTest, EncodedHereComputedThereIsWhatOneProcessMakesOfIt) {
    PlainMedia plain(projector);
    const auto encoder = start_encoder();
    ASSERT_TRUE(encoder);
    EXPECT_THAT(encoder->info().media, testing::ElementsAre("image", "video"));
    start(with_store());
    const auto decoder = another(with_store());
    EXPECT_TRUE(engine->info().media.empty());
    Differences differences;
    std::vector<std::vector<TokenId>> texts;
    for (const std::uint8_t name : {1, 2}) {
        const auto content = picture(name);
        const auto want = plain.run(*content, kBefore, kAfter, kTokens);
        const auto left = encode(*encoder, name, content);
        ASSERT_EQ(left.finish, FinishReason::kHandoff);
        ASSERT_TRUE(left.handoff);
        EXPECT_EQ(left.handoff->pieces,
                  (std::vector<protocol::MediaPiece>{{.text = {}, .rows = want.rows}}));
        EXPECT_THAT(left.handoff->layout, testing::StartsWith("f32:576:sha256-sample:"));
        EXPECT_EQ(left.handoff->content, digest_of(name));
        EXPECT_EQ(left.handoff->bytes, want.rows * 576U * 4U);

        auto request = prompt(want, name, left.handoff);
        request.media[0].arrived = store->claim(left.handoff);
        const auto whole = run(*decoder, request);
        expect_equal_up_to_near_tie(want.text, whole.tokens, "whole", differences);
        EXPECT_EQ(whole.prompt_tokens, request.prompt.size());

        auto leg = request;
        leg.leg = Leg::kPrefill;
        leg.cache_salt = 7;
        const auto prefilled = run(*engine, leg);
        ASSERT_EQ(prefilled.finish, FinishReason::kHandoff);
        leg.leg = Leg::kDecode;
        leg.kv = store->claim(prefilled.handoff);
        leg.media[0].arrived = nullptr;
        const auto got = run(*decoder, leg);
        expect_equal_up_to_near_tie(want.text, got.tokens, "legs", differences);
        EXPECT_EQ(got.cached, 0U);
        texts.push_back(want.text.tokens);
    }
    EXPECT_NE(texts[0], texts[1]) << "the model sees its pictures";
    EXPECT_EQ(decoder->forward_pass_metrics().refused_imports, 0U);
    EXPECT_EQ(store->unclaimed(), 0U);
    std::printf("of 4 texts %d leave llama.cpp's path, widest gap %.3f\n", differences.texts,
                static_cast<double>(differences.widest_gap));
}

TEST_F(LlamaMediaTest, TheSamePictureIsEncodedOnceAndItsPrefixIsCached) {
    PlainMedia plain(projector);
    LlamaOptions o = with_store();
    o.mmproj_path = projector;
    start(o);
    EXPECT_FALSE(engine->info().media.empty());
    const auto want = plain.run(*picture(1), kBefore, kAfter, kTokens);
    const auto first = encode(*engine, 1, picture(1));
    const double seconds = engine->forward_pass_metrics().model_seconds;
    EXPECT_GT(seconds, 0.0);
    const auto again = encode(*engine, 1, picture(1));
    EXPECT_EQ(engine->forward_pass_metrics().model_seconds, seconds);
    ASSERT_TRUE(again.handoff);
    EXPECT_NE(again.handoff->id, first.handoff->id);

    auto request = prompt(want, 1, first.handoff);
    const auto bytes = store->claim(first.handoff);
    EXPECT_TRUE(std::ranges::equal(bytes->parts[0], store->claim(again.handoff)->parts[0]));
    request.media[0].arrived = bytes;
    const auto one = run(*engine, request);
    const auto two = run(*engine, request);
    EXPECT_EQ(one.cached, 0U);
    EXPECT_GE(two.cached, 64U);
    Differences differences;
    expect_equal_up_to_near_tie(want.text, two.tokens, "cached", differences);
    // Another picture in the same place shares nothing with it.
    const auto other = encode(*engine, 2, picture(2));
    auto with_other = prompt(want, 2, other.handoff);
    with_other.media[0].arrived = store->claim(other.handoff);
    EXPECT_EQ(run(*engine, with_other).cached, 0U);
}

TEST_F(LlamaMediaTest, WhatTheEncoderDoesIsCounted) {
    metrics::Registry registry;
    const auto metric = [&registry](const std::string& line) {
        const std::string text = registry.render();
        const std::size_t at = text.find("\n" + line + " ");
        return at == std::string::npos ? -1.0 : std::stod(text.substr(at + line.size() + 2));
    };
    LlamaOptions o = with_store();
    o.mmproj_path = projector;
    o.registry = &registry;
    start(o);
    const auto first = encode(*engine, 1, picture(1));
    ASSERT_TRUE(first.handoff);
    const double bytes = metric("stator_encoder_cache_bytes");
    EXPECT_EQ(bytes, static_cast<double>(first.handoff->bytes));
    ASSERT_TRUE(encode(*engine, 1, picture(1)).handoff);
    ASSERT_TRUE(encode(*engine, 2, picture(2)).handoff);
    EXPECT_EQ(metric("stator_encoder_legs_total{outcome=\"ok\"}"), 3);
    EXPECT_EQ(metric("stator_encoder_cache_hits_total"), 1);
    EXPECT_EQ(metric("stator_encoder_cache_misses_total"), 2);
    EXPECT_EQ(metric("stator_encoder_seconds_count"), 2);
    EXPECT_EQ(metric("stator_encoder_rows_total"), 2 * first.handoff->tokens);
    EXPECT_EQ(metric("stator_encoder_cache_evictions_total"), 0);
    EXPECT_EQ(metric("stator_encoder_waiting_items"), 0);

    o.embeddings_cache_bytes = static_cast<std::uint64_t>(bytes);  // room for one
    start(o);
    ASSERT_TRUE(encode(*engine, 3, picture(3)).handoff);
    ASSERT_TRUE(encode(*engine, 4, picture(4)).handoff);
    EXPECT_EQ(metric("stator_encoder_cache_evictions_total"), 1);
    EXPECT_EQ(metric("stator_encoder_cache_bytes"), bytes);
}

TEST_F(LlamaMediaTest, PicturesAndTextsInOneStepAreEachTheirOwn) {
    PlainMedia plain(projector);
    LlamaOptions o = with_store();
    o.mmproj_path = projector;
    o.prefix_cache = false;
    start(o);
    std::map<std::uint64_t, PlainLlama::Greedy> want;
    std::vector<GenerateRequest> requests;
    for (std::uint8_t i = 1; i <= 6; ++i) {
        GenerateRequest r;
        if (i % 2 == 0) {
            const auto around = plain.run(*picture(i), kBefore, kAfter, kTokens);
            const auto left = encode(*engine, i, picture(i));
            r = prompt(around, i, left.handoff);
            r.media[0].arrived = store->claim(left.handoff);
            want[100U + i] = around.text;
        } else {
            r.prompt = plain.tokens(questions()[i]);
            r.max_tokens = kTokens;
            r.sampling.temperature = 0.0F;
            r.ignore_eos = true;
            want[100U + i] = plain.greedy(r.prompt, kTokens);
        }
        r.id = RequestId(100U + i);
        requests.push_back(std::move(r));
    }
    for (const auto& r : requests) ASSERT_TRUE(engine->submit(r, sink));
    Differences differences;
    for (const auto& [id, text] : want) {
        expect_equal_up_to_near_tie(text, sink->wait(id).tokens, std::to_string(id), differences);
    }
}

TEST_F(LlamaMediaTest, WhatDoesNotFitIsRefusedOrAskedForAgain) {
    PlainMedia plain(projector);
    const auto encoder = start_encoder();
    start(with_store());
    const auto around = plain.run(*picture(1), kBefore, kAfter, 1);
    const auto left = encode(*encoder, 1, picture(1));
    const auto bytes = store->claim(left.handoff);
    const auto request = prompt(around, 1, left.handoff);
    const auto refused = [&](const auto& change) {
        auto r = request;
        r.id = RequestId(++last_id);
        r.media[0].arrived = bytes;
        change(r);
        auto ok = engine->submit(std::move(r), sink);
        EXPECT_FALSE(ok);
        return ok ? Error{} : ok.error();
    };
    for (const Leg leg : {Leg::kWhole, Leg::kPrefill, Leg::kDecode}) {
        const auto missing = refused([leg](auto& r) {
            r.leg = leg;
            r.media[0].arrived = nullptr;
        });
        EXPECT_EQ(missing.code, ErrorCode::kUnavailable);
        EXPECT_EQ(missing.param, "media");
        EXPECT_TRUE(missing.retryable);
    }
    const auto with_handoff = [&](const auto& change) {
        auto what = std::make_shared<protocol::Handoff>(*bytes->what);
        auto other = std::make_shared<protocol::HandoffBytes>(*bytes);
        change(*what, *other);
        other->what = what;
        return refused([&](auto& r) { r.media[0].arrived = other; }).code;
    };
    EXPECT_EQ(with_handoff([](auto& w, auto&) { w.layout = "f32:577:x"; }),
              ErrorCode::kUnavailable);
    EXPECT_EQ(with_handoff([](auto& w, auto&) { w.content[3] ^= 1; }), ErrorCode::kUnavailable);
    EXPECT_EQ(with_handoff([](auto&, auto& b) { b.parts[0] = b.parts[0].first(100); }),
              ErrorCode::kUnavailable);
    EXPECT_EQ(with_handoff([](auto& w, auto&) { w.parts[0].tokens = 63; }),
              ErrorCode::kUnavailable);
    EXPECT_EQ(with_handoff([](auto&, auto& b) { b.parts.clear(); }), ErrorCode::kUnavailable);
    // A prompt that does not fit its items is its sender's fault.
    for (const auto& wrong : {refused([](auto& r) { r.media[0].digest[0] ^= 1; }),
                              refused([](auto& r) { r.media[0].position = 3'000'000'000; }),
                              refused([](auto& r) { r.media.push_back(r.media[0]); }),
                              refused([](auto& r) { r.media[0].tokens -= 1; }),
                              refused([](auto& r) { r.media.clear(); }),
                              refused([](auto& r) { r.prompt[0] = 3'000'000'000; })}) {
        EXPECT_EQ(wrong.code, ErrorCode::kInvalidArgument);
    }
    // KV that turns out to be damaged, and no pictures to compute it again.
    auto leg = request;
    leg.media[0].arrived = bytes;
    leg.leg = Leg::kPrefill;
    const auto prefilled = run(*engine, leg);
    auto kv = store->claim(prefilled.handoff);
    std::vector<std::byte> damaged(kv->parts[0].begin(), kv->parts[0].end());
    damaged[16] ^= std::byte{64};
    kv->parts[0] = damaged;
    leg.leg = Leg::kDecode;
    leg.kv = kv;
    leg.cache_salt = 0;
    leg.media[0].arrived = nullptr;
    const auto decoder = another(with_store());
    const auto lost = run(*decoder, leg);
    EXPECT_EQ(lost.finish, FinishReason::kError);
    ASSERT_TRUE(lost.error);
    EXPECT_EQ(lost.error->code, ErrorCode::kUnavailable);
    EXPECT_EQ(lost.error->param, "media");
    EXPECT_EQ(decoder->load().running, 0U);
    leg.media[0].arrived = bytes;
    EXPECT_EQ(run(*decoder, leg).tokens.size(), static_cast<std::size_t>(kTokens));
}

TEST_F(LlamaMediaTest, FramesBecomePiecesAndBadContentIsRefused) {
    const auto encoder = start_encoder();
    const auto video = encode(*encoder, 3, picture(3, 64, 48, 3));
    ASSERT_TRUE(video.handoff);
    EXPECT_EQ(video.handoff->tokens, 3U * 64U);
    EXPECT_EQ(video.handoff->pieces.size(), 3U);
    auto wrong = std::make_shared<protocol::MediaContent>(*picture(4));
    wrong->pixels.pop_back();
    const auto bad = encode(*encoder, 4, wrong);
    EXPECT_EQ(bad.finish, FinishReason::kError);
    ASSERT_TRUE(bad.error);
    EXPECT_EQ(bad.error->code, ErrorCode::kInvalidArgument);
    EXPECT_EQ(bad.error->param, "media");
    GenerateRequest text;
    text.prompt = {1, 2};
    EXPECT_EQ(encoder->submit(text, sink).error().code, ErrorCode::kUnsupported);
    GenerateRequest empty;
    empty.leg = Leg::kEncode;
    EXPECT_EQ(encoder->submit(empty, sink).error().param, "media");
}

TEST_F(LlamaMediaTest, CancelledDeadlinesAndStopEndAnEncoding) {
    auto encoder = start_encoder();
    GenerateRequest r;
    r.leg = Leg::kEncode;
    for (std::uint64_t id = 1; id <= 4; ++id) {
        r.id = RequestId(id);
        r.media = {{.digest = digest_of(static_cast<std::uint8_t>(id)),
                    .content = picture(static_cast<std::uint8_t>(id))}};
        if (id == 3) r.deadline = Deadline::at(Clock::real().now());
        ASSERT_TRUE(encoder->submit(r, sink));
    }
    encoder->cancel(RequestId(4));
    EXPECT_EQ(sink->wait(4).finish, FinishReason::kCancelled);
    const auto late = sink->wait(3);
    EXPECT_EQ(late.finish, FinishReason::kCancelled);
    EXPECT_EQ(late.error->code, ErrorCode::kDeadlineExceeded);
    EXPECT_EQ(sink->wait(1).finish, FinishReason::kHandoff);
    r.deadline = {};
    for (std::uint64_t id = 5; id <= 7; ++id) {
        r.id = RequestId(id);
        ASSERT_TRUE(encoder->submit(r, sink));
    }
    encoder->stop(Deadline::at(Clock::real().now()));
    for (std::uint64_t id = 5; id <= 7; ++id) EXPECT_EQ(sink->wait(id).ends, 1);
    r.id = RequestId(8);
    EXPECT_EQ(encoder->submit(r, sink).error().code, ErrorCode::kUnavailable);
    EXPECT_EQ(encoder->load().running, 0U);
}

TEST_F(LlamaMediaTest, AnEncoderThatCanNotBeUsedIsSaidSoWhenItIsLoaded) {
    [[maybe_unused]] const FailedLoads leaks;
    LlamaOptions o = with_store();
    o.mmproj_path = "/nonexistent/projector.gguf";
    EXPECT_EQ(make_llama_encoder(o).error().code, ErrorCode::kNotFound);
    o.mmproj_path = model_path();
    EXPECT_EQ(make_llama_encoder(o).error().code, ErrorCode::kInvalidArgument);
    const std::string other = projector + ".wide";
    ASSERT_TRUE(write_random_projector(other, {.text_width = 640}));
    o.mmproj_path = other;
    EXPECT_EQ(make_llama_encoder(o).error().code, ErrorCode::kInvalidArgument);
    std::remove(other.c_str());
    o.mmproj_path = projector;
    o.handoffs = nullptr;
    EXPECT_EQ(make_llama_encoder(o).error().code, ErrorCode::kInvalidArgument);
}

}  // namespace
}  // namespace stator::engine
