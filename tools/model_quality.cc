// model_quality score REFERENCE.gguf CANDIDATE.gguf TEXT [THREADS]
//     Prints, as JSON, how well two models predict a text and how alike they are: mean negative
//     log-likelihood per token of each, how often they agree on the likeliest token, and the mean
//     Kullback-Leibler divergence.
// model_quality answers MODEL.gguf PROMPTS [SYSTEM]
//     Prints the model's greedy answer (96 tokens at most) to each line of PROMPTS, in the model's
//     chat format, after the system message SYSTEM where one is given.
// model_quality speed MODEL.gguf TEXT
//     Prints, as JSON, tokens per CPU second on one thread: prefill, and decoding of 1 and of 8
//     sequences at once.
#include <fmt/format.h>
#include <llama.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <iterator>
#include <memory>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "stator/base/clock.h"

namespace {

constexpr int kWindowTokens = 512;  ///< the text is scored in windows of this many tokens
constexpr int kContextTokens = 1024;
constexpr int kAnswerTokens = 96;
constexpr int kDecodeSequences = 8;
constexpr int kDecodeSteps = 48;

class Model {
  public:
    Model(const char* path, int threads) {
        auto mp = llama_model_default_params();
        mp.n_gpu_layers = 0;
        model_.reset(llama_model_load_from_file(path, mp));
        if (!model_) throw std::runtime_error(fmt::format("can't load {}", path));
        auto cp = llama_context_default_params();
        cp.n_ctx = kContextTokens;
        cp.n_batch = kContextTokens;
        cp.n_threads = cp.n_threads_batch = threads;
        cp.n_seq_max = kDecodeSequences;
        cp.kv_unified = true;
        context_.reset(llama_init_from_model(model_.get(), cp));
        if (!context_) throw std::runtime_error(fmt::format("can't make a context for {}", path));
        vocab_ = llama_model_get_vocab(model_.get());
    }

    [[nodiscard]] std::vector<llama_token> tokenize(std::string_view text, bool special) const {
        std::vector<llama_token> out(text.size() + 8);
        const int n = llama_tokenize(vocab_, text.data(), static_cast<int>(text.size()), out.data(),
                                     static_cast<int>(out.size()), special, special);
        if (n < 0) throw std::runtime_error("the text has more tokens than bytes");
        out.resize(static_cast<std::size_t>(n));
        return out;
    }

    [[nodiscard]] std::string piece(llama_token token) const {
        std::string buffer(256, '\0');
        const int n = llama_token_to_piece(vocab_, token, buffer.data(),
                                           static_cast<int>(buffer.size()), 0, false);
        buffer.resize(static_cast<std::size_t>(std::max(n, 0)));
        return buffer;
    }

    [[nodiscard]] bool ends(llama_token token) const { return llama_vocab_is_eog(vocab_, token); }
    [[nodiscard]] int vocab_size() const { return llama_vocab_n_tokens(vocab_); }
    [[nodiscard]] const char* chat_template() const {
        return llama_model_chat_template(model_.get(), nullptr);
    }

    void clear() { llama_memory_clear(llama_get_memory(context_.get()), true); }

    /// One decode step of sequences 0..n-1, all with this token at this position.
    void step(int sequences, llama_token token, int position) {
        auto batch = llama_batch_init(sequences, 0, 1);
        batch.n_tokens = sequences;
        for (int s = 0; s < sequences; ++s) {
            batch.token[s] = token;
            batch.pos[s] = position;
            batch.n_seq_id[s] = 1;
            batch.seq_id[s][0] = s;
            batch.logits[s] = 1;
        }
        decode(batch);
    }

    /// Feeds tokens from position `from` on. Every one yields logits if `all`, else the last one
    /// only.
    void feed(std::span<const llama_token> tokens, int from, bool all) {
        const auto n = static_cast<int>(tokens.size());
        auto batch = llama_batch_init(n, 0, 1);
        batch.n_tokens = n;
        for (int i = 0; i < n; ++i) {
            batch.token[i] = tokens[static_cast<std::size_t>(i)];
            batch.pos[i] = from + i;
            batch.n_seq_id[i] = 1;
            batch.seq_id[i][0] = 0;
            batch.logits[i] = static_cast<std::int8_t>(all || i + 1 == n);
        }
        decode(batch);
    }

    [[nodiscard]] std::span<const float> logits(int index) const {
        return {llama_get_logits_ith(context_.get(), index),
                static_cast<std::size_t>(vocab_size())};
    }

  private:
    struct Free {
        void operator()(llama_model* m) const { llama_model_free(m); }
        void operator()(llama_context* c) const { llama_free(c); }
    };
    void decode(llama_batch batch) {
        const int rc = llama_decode(context_.get(), batch);
        llama_batch_free(batch);
        if (rc != 0) throw std::runtime_error(fmt::format("llama_decode returned {}", rc));
    }
    std::unique_ptr<llama_model, Free> model_;
    std::unique_ptr<llama_context, Free> context_;
    const llama_vocab* vocab_ = nullptr;
};

std::string read_file(const char* path) {
    std::ifstream in(path, std::ios::binary);
    if (!in) throw std::runtime_error(fmt::format("can't read {}", path));
    return {std::istreambuf_iterator<char>(in), {}};
}

std::size_t likeliest(std::span<const float> logits) {
    return static_cast<std::size_t>(std::ranges::max_element(logits) - logits.begin());
}

/// ln(sum(exp(logits))), without overflow.
double log_sum_exp(std::span<const float> logits) {
    const double top = *std::ranges::max_element(logits);
    double sum = 0;
    for (const float l : logits) sum += std::exp(l - top);
    return top + std::log(sum);
}

struct Score {
    std::size_t tokens = 0;
    double nll_reference = 0;
    double nll_candidate = 0;
    double divergence = 0;  ///< sum of KL(reference || candidate), in nats
    std::size_t agreed = 0;
};

void score_position(std::span<const float> a, std::span<const float> b, llama_token next,
                    Score& score) {
    const double za = log_sum_exp(a);
    const double zb = log_sum_exp(b);
    const auto n = static_cast<std::size_t>(next);
    score.nll_reference += za - a[n];
    score.nll_candidate += zb - b[n];
    for (std::size_t k = 0; k < a.size(); ++k) {
        const double pa = std::exp(a[k] - za);
        score.divergence += pa * ((a[k] - za) - (b[k] - zb));
    }
    score.agreed += static_cast<std::size_t>(likeliest(a) == likeliest(b));
    ++score.tokens;
}

Score score_text(Model& reference, Model& candidate, std::string_view text) {
    const auto tokens = reference.tokenize(text, false);
    if (tokens.size() < 2) throw std::runtime_error("the text has fewer than two tokens");
    Score score;
    for (std::size_t start = 0; start + 1 < tokens.size(); start += kWindowTokens) {
        const auto window = std::span(tokens).subspan(
            start, std::min<std::size_t>(kWindowTokens, tokens.size() - start));
        reference.clear();
        candidate.clear();
        reference.feed(window, 0, true);
        candidate.feed(window, 0, true);
        for (std::size_t i = 0; i + 1 < window.size(); ++i) {
            const auto position = static_cast<int>(i);
            score_position(reference.logits(position), candidate.logits(position), window[i + 1],
                           score);
        }
    }
    return score;
}

void print_score(const Score& s) {
    const auto n = static_cast<double>(s.tokens);
    fmt::print(
        "{{\"tokens\": {}, \"nll_reference\": {:.5f}, \"nll_candidate\": {:.5f}, "
        "\"perplexity_reference\": {:.4f}, \"perplexity_candidate\": {:.4f}, "
        "\"top1_agreement\": {:.4f}, \"kl_divergence\": {:.5f}}}\n",
        s.tokens, s.nll_reference / n, s.nll_candidate / n, std::exp(s.nll_reference / n),
        std::exp(s.nll_candidate / n), static_cast<double>(s.agreed) / n, s.divergence / n);
}

/// Tokens per CPU second while `work` makes that many tokens. One thread, so this thread's CPU time
/// is all of it.
template <typename Work>
double rate(int tokens, Work work) {
    const double start = stator::thread_cpu_seconds();
    work();
    return tokens / (stator::thread_cpu_seconds() - start);
}

void print_speed(Model& model, std::string_view text) {
    auto tokens = model.tokenize(text, false);
    if (tokens.size() < kWindowTokens)
        throw std::runtime_error(
            fmt::format("the text has {} tokens, {} are needed", tokens.size(), kWindowTokens));
    tokens.resize(kWindowTokens);
    model.feed(std::span(tokens).first(8), 0, false);  // touches the weights once
    model.clear();
    const double prefill = rate(kWindowTokens, [&] { model.feed(tokens, 0, false); });
    const auto decode = [&](int sequences) {
        model.clear();
        return rate(sequences * kDecodeSteps, [&] {
            for (int i = 0; i < kDecodeSteps; ++i)
                model.step(sequences, tokens[static_cast<std::size_t>(i)], i);
        });
    };
    const double one = decode(1);
    const double eight = decode(kDecodeSequences);
    fmt::print("{{\"prefill_512\": {:.1f}, \"decode_1\": {:.1f}, \"decode_8\": {:.1f}}}\n", prefill,
               one, eight);
}

std::string as_chat(const Model& model, const std::string& system, const std::string& question) {
    std::vector<llama_chat_message> messages;
    if (!system.empty()) messages.push_back({"system", system.c_str()});
    messages.push_back({"user", question.c_str()});
    std::string out(system.size() + question.size() + 1024, '\0');
    const int n = llama_chat_apply_template(model.chat_template(), messages.data(), messages.size(),
                                            true, out.data(), static_cast<int>(out.size()));
    if (n < 0 || static_cast<std::size_t>(n) > out.size())
        throw std::runtime_error("llama.cpp does not know this model's chat template");
    out.resize(static_cast<std::size_t>(n));
    return out;
}

std::string answer(Model& model, const std::string& system, const std::string& question) {
    auto prompt = model.tokenize(as_chat(model, system, question), true);
    if (prompt.size() + kAnswerTokens > kContextTokens)
        throw std::runtime_error(fmt::format("a prompt has {} tokens, at most {} fit",
                                             prompt.size(), kContextTokens - kAnswerTokens));
    model.clear();
    model.feed(prompt, 0, false);
    std::string text;
    auto position = static_cast<int>(prompt.size());
    for (int i = 0; i < kAnswerTokens; ++i) {
        const auto token = static_cast<llama_token>(likeliest(model.logits(-1)));
        if (model.ends(token)) break;
        text += model.piece(token);
        model.feed(std::span(&token, 1), position++, false);
    }
    return text;
}

void print_answers(Model& model, const std::string& prompts, const std::string& system) {
    std::size_t start = 0;
    while (start < prompts.size()) {
        const auto end = std::min(prompts.find('\n', start), prompts.size());
        const std::string question = prompts.substr(start, end - start);
        start = end + 1;
        if (!question.empty())
            fmt::print("Q: {}\nA: {}\n\n", question, answer(model, system, question));
    }
}

int parse_threads(const char* text) {
    int threads = 0;
    const auto [end, ec] = std::from_chars(text, text + std::strlen(text), threads);
    if (ec != std::errc{} || *end != '\0' || threads < 1 || threads > 256)
        throw std::runtime_error(
            fmt::format("threads is '{}', it must be a number from 1 to 256", text));
    return threads;
}

int run(int argc, char** argv) {
    const std::string_view mode = argc > 1 ? argv[1] : "";
    if (mode == "score" && (argc == 5 || argc == 6)) {
        const int threads = argc == 6 ? parse_threads(argv[5]) : 1;
        Model reference(argv[2], threads);
        Model candidate(argv[3], threads);
        if (reference.vocab_size() != candidate.vocab_size())
            throw std::runtime_error("the two models have different vocabularies");
        print_score(score_text(reference, candidate, read_file(argv[4])));
        return 0;
    }
    if (mode == "answers" && (argc == 4 || argc == 5)) {
        Model model(argv[2], 1);
        print_answers(model, read_file(argv[3]), argc == 5 ? argv[4] : "");
        return 0;
    }
    if (mode == "speed" && argc == 4) {
        Model model(argv[2], 1);
        print_speed(model, read_file(argv[3]));
        return 0;
    }
    throw std::runtime_error(
        "usage: model_quality score REFERENCE.gguf CANDIDATE.gguf TEXT [THREADS]\n"
        "       model_quality answers MODEL.gguf PROMPTS [SYSTEM]\n"
        "       model_quality speed MODEL.gguf TEXT");
}

void log_errors(ggml_log_level level, const char* text, void*) {
    if (level == GGML_LOG_LEVEL_ERROR) fmt::print(stderr, "{}", text);
}

}  // namespace

int main(int argc, char** argv) {
    llama_log_set(log_errors, nullptr);
    llama_backend_init();
    try {
        return run(argc, argv);
    } catch (const std::exception& e) {
        fmt::print(stderr, "model_quality: {}\n", e.what());
        return 2;
    }
}
