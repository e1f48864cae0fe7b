#pragma once

#include <gtest/gtest.h>
#include <llama.h>

#include <condition_variable>
#include <cstdlib>
#include <functional>
#include <limits>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "stator/engine/llama/llama_engine.h"
#include "stator/engine/llama/sampler.h"
#include "stator/model/llama_log.h"

// Tests with these run a real model: STATOR_MODEL names a small GGUF file. Without it they are
// skipped.

namespace stator::engine {

using protocol::FinishReason;
using protocol::GenerateRequest;
using tokens::TokenId;

/// Kernels round differently when the batch has another shape, and quantised activations amplify
/// it: plain llama.cpp's own logits of one prompt, computed in one batch and token by token, differ
/// by 0.14 (rms) and 0.5 (largest) on a 135M model. Two logits may each move by that much, so up to
/// twice it apart they can change places; once they do, greedy texts go separate ways.
inline constexpr float kNearTie = 1.0F;

inline const char* model_path() {
    const char* path = std::getenv("STATOR_MODEL");
    return path != nullptr && *path != '\0' ? path : nullptr;
}

/// llama.cpp's own plain decoding loop, one sequence, no batching of requests: the oracle.
class PlainLlama {
  public:
    PlainLlama() {
        model::route_llama_log();
        auto mp = llama_model_default_params();
        model_ = llama_model_load_from_file(model_path(), mp);
        auto cp = llama_context_default_params();
        cp.n_ctx = 2048;
        cp.n_threads = cp.n_threads_batch = 1;
        cp.flash_attn_type = LLAMA_FLASH_ATTN_TYPE_ENABLED;
        context_ = llama_init_from_model(model_, cp);
        vocab_ = llama_model_get_vocab(model_);
    }
    ~PlainLlama() {
        llama_free(context_);
        llama_model_free(model_);
    }
    PlainLlama(const PlainLlama&) = delete;
    PlainLlama& operator=(const PlainLlama&) = delete;

    std::vector<TokenId> tokens(const std::string& text) const {
        std::vector<llama_token> out(text.size() + 8);
        const int n = llama_tokenize(vocab_, text.data(), static_cast<int>(text.size()), out.data(),
                                     static_cast<int>(out.size()), true, true);
        return {out.begin(), out.begin() + n};
    }

    [[nodiscard]] llama_model* model() const { return model_; }
    [[nodiscard]] llama_context* context() const { return context_; }

    struct Greedy {
        std::vector<TokenId> tokens;
        std::vector<std::vector<protocol::TokenLogprob>> best;  ///< of each step, the 10 likeliest

        /// How far the logit of `token` lies below the best at step `i`; infinite if it is not
        /// near.
        [[nodiscard]] float gap(std::size_t i, TokenId token) const {
            for (const auto& b : best[i]) {
                if (b.token == token) return best[i][0].logprob - b.logprob;
            }
            return std::numeric_limits<float>::infinity();
        }
    };
    /// End-of-generation tokens are left out, as with ignore_eos.
    Greedy greedy(const std::vector<TokenId>& prompt, int count) {
        llama_memory_clear(llama_get_memory(context_), true);
        return go_on({prompt.begin(), prompt.end()}, count);
    }
    /// From what the context holds; `feed` comes first, and may be empty where there are logits.
    Greedy go_on(std::vector<llama_token> feed, int count) {
        Greedy out;
        for (int i = 0; i < count; ++i) {
            if (!feed.empty()) {
                llama_decode(context_,
                             llama_batch_get_one(feed.data(), static_cast<int>(feed.size())));
            }
            float* l = llama_get_logits_ith(context_, -1);
            const std::span<float> logits(l,
                                          static_cast<std::size_t>(llama_vocab_n_tokens(vocab_)));
            for (std::size_t t = 0; t < logits.size(); ++t) {
                if (llama_vocab_is_eog(vocab_, static_cast<llama_token>(t))) logits[t] = -1e9F;
            }
            out.best.push_back(llama::logprobs_of(logits, 0, 10).top);
            out.tokens.push_back(out.best.back()[0].token);
            feed = {static_cast<llama_token>(out.tokens.back())};
        }
        return out;
    }

  private:
    llama_model* model_ = nullptr;
    llama_context* context_ = nullptr;
    const llama_vocab* vocab_ = nullptr;
};

/// Collects everything; wait() returns once a request has ended.
class Collector final : public StepSink {
  public:
    struct Outcome {
        std::vector<TokenId> tokens;
        std::vector<float> logprobs;
        std::vector<std::vector<protocol::TokenLogprob>> top;
        std::optional<FinishReason> finish;
        std::uint32_t cached = 0;
        std::optional<Error> error;
        std::shared_ptr<const protocol::Handoff> handoff;
        std::uint32_t prompt_tokens = 0;  ///< as said at the end
        int ends = 0;
    };

    void on_step(protocol::StepBatch&& batch) override {
        const std::scoped_lock lock(mutex_);
        for (const auto& event : batch.events) {
            Outcome& o = outcomes_[event.id.value];
            for (std::uint32_t i = event.first; i < event.first + event.count; ++i) {
                const auto& t = batch.tokens[i];
                o.tokens.push_back(t.token);
                o.logprobs.push_back(t.logprob);
                o.top.emplace_back(batch.top.begin() + t.top_first,
                                   batch.top.begin() + t.top_first + t.top_count);
            }
            if (event.count > 0) o.cached = event.cached_tokens;
            if (event.error) o.error = event.error;
            if (event.finish) {
                o.finish = event.finish;
                o.handoff = event.handoff;
                o.prompt_tokens = event.prompt_tokens;
                if (event.handoff) o.cached = event.cached_tokens;
                ++o.ends;
            }
        }
        changed_.notify_all();
    }

    Outcome wait(std::uint64_t id) {
        std::unique_lock lock(mutex_);
        changed_.wait(lock, [&] { return outcomes_[id].finish.has_value(); });
        return outcomes_[id];
    }
    void wait_first_token(std::uint64_t id) {
        std::unique_lock lock(mutex_);
        changed_.wait(lock, [&] { return !outcomes_[id].tokens.empty(); });
    }

  private:
    std::mutex mutex_;
    std::condition_variable changed_;
    std::map<std::uint64_t, Outcome> outcomes_;
};

class LlamaEngineTest : public testing::Test {
  protected:
    void SetUp() override {
        if (model_path() == nullptr) GTEST_SKIP() << "STATOR_MODEL names no model";
    }

    static LlamaOptions options() {
        LlamaOptions o;
        o.model_path = model_path();
        o.context_tokens = 4096;
        o.max_sequence_tokens = 2048;
        o.threads = 1;
        o.seed = 1;
        return o;
    }

    void start(const LlamaOptions& o, KvEventSink events = {}) {
        auto made = make_llama_engine(o, std::move(events));
        ASSERT_TRUE(made) << made.error().message;
        engine = std::move(*made);
    }

    Result<void> submit(std::uint64_t id, std::vector<TokenId> prompt, std::uint32_t max_tokens,
                        const std::function<void(GenerateRequest&)>& change = {}) {
        GenerateRequest r;
        r.id = RequestId(id);
        r.prompt = std::move(prompt);
        r.max_tokens = max_tokens;
        r.ignore_eos = false;
        r.sampling.temperature = 0.0F;
        if (change) change(r);
        return engine->submit(std::move(r), sink);
    }

    /// Another engine, which shares nothing with `engine` but the collector.
    std::unique_ptr<Engine> another(const LlamaOptions& o) {
        auto made = make_llama_engine(o, {});
        EXPECT_TRUE(made) << made.error().message;
        return made ? std::move(*made) : nullptr;
    }

    std::unique_ptr<Engine> engine;
    std::shared_ptr<Collector> sink = std::make_shared<Collector>();
};

inline std::vector<std::string> questions() {
    const std::vector<std::string> topics{
        "the sea",      "a steam engine", "photosynthesis", "the number seven", "bread", "a violin",
        "glaciers",     "the moon",       "how birds fly",  "a lighthouse",     "chess", "tea",
        "the alphabet", "magnets",        "a thunderstorm", "the colour green"};
    std::vector<std::string> out;
    for (const auto& t : topics) {
        out.push_back("<|im_start|>user\nTell me in a few sentences about " + t +
                      ".<|im_end|>\n<|im_start|>assistant\n");
    }
    return out;
}

/// How texts differ from the oracle's: how many, and the widest gap of logits at which one left its
/// path.
struct Differences {
    int texts = 0;
    float widest_gap = 0.0F;
};

/// `got` may leave the oracle's path only at a near-tie.
inline void expect_equal_up_to_near_tie(const PlainLlama::Greedy& want,
                                        const std::vector<TokenId>& got, const std::string& what,
                                        Differences& differences) {
    EXPECT_EQ(got.size(), want.tokens.size()) << what;
    for (std::size_t i = 0; i < std::min(got.size(), want.tokens.size()); ++i) {
        if (got[i] == want.tokens[i]) continue;
        const float gap = want.gap(i, got[i]);
        ++differences.texts;
        differences.widest_gap = std::max(differences.widest_gap, gap);
        EXPECT_LT(gap, kNearTie) << what << " differs at token " << i;
        return;
    }
}

}  // namespace stator::engine
