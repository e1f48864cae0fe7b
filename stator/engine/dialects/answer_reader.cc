#include "stator/engine/dialects/answer_reader.h"

#include <charconv>
#include <utility>

#include "stator/engine/dialects/engine_error.h"

namespace stator::engine {

using codec::JsonType;
using codec::JsonView;
using protocol::FinishReason;

namespace {

tl::unexpected<Error> unlike(std::string_view what) {
    auto why = error(ErrorCode::kDataLoss, "the engine's answer is not as expected: {}", what);
    why.value().retryable = true;
    return why;
}

std::uint32_t count_of(JsonView v) {
    const auto n = v.as_uint();
    return n && *n <= UINT32_MAX ? static_cast<std::uint32_t>(*n) : 0;
}

/// vLLM's, TensorRT-LLM's and SGLang's words. None: not one of them.
std::optional<FinishReason> finish_of(std::string_view word) {
    if (word == "stop" || word == "tool_calls" || word == "repetition") return FinishReason::kStop;
    if (word == "length") return FinishReason::kLength;
    if (word == "abort" || word == "cancelled") return FinishReason::kCancelled;
    if (word == "error") return FinishReason::kError;
    return {};
}

/// "token_id:123".
std::optional<protocol::TokenId> named_token(std::string_view name) {
    constexpr std::string_view kPrefix = "token_id:";
    if (!name.starts_with(kPrefix)) return {};
    name.remove_prefix(kPrefix.size());
    protocol::TokenId id = 0;
    const auto [end, ec] = std::from_chars(name.data(), name.data() + name.size(), id);
    if (ec != std::errc() || end != name.data() + name.size()) return {};
    return id;
}

std::optional<protocol::TokenId> token_of(JsonView v) {
    const auto id = v.as_uint();
    if (!id || *id >= tokens::kFirstMediaToken) return {};
    return static_cast<protocol::TokenId>(*id);
}

}  // namespace

Result<void> AnswerReader::take(std::string_view data, Piece& out) {
    out.tokens.clear();
    out.top.clear();
    out = {.tokens = std::move(out.tokens), .top = std::move(out.top), .finish = {}, .error = {}};
    if (ended_) return {};
    if (data == "[DONE]") {
        if (!finishing_) return unlike("it ended without a reason");
        give_end(out);
        return {};
    }
    const auto root = document_.parse(data);
    if (!root) return unlike(root.error().message);
    if (root->find("error").present() && !root->find("error").is_null()) {
        fail(*root, out);
        return {};
    }
    return dialect_ == Dialect::kSglang ? sglang(*root, out) : openai(*root, out);
}

Result<void> AnswerReader::end(Piece& out) {
    out = {};
    if (ended_) return {};
    if (!finishing_) {
        return error(ErrorCode::kUnavailable, "the engine's answer broke off after {} tokens",
                     produced_);
    }
    give_end(out);
    return {};
}

// ---- vLLM's two routes and TensorRT-LLM's

Result<void> AnswerReader::openai(JsonView root, Piece& out) {
    usage(root.find("usage"));
    const JsonView choices = root.find("choices");
    if (choices.type() != JsonType::kArray) return unlike("it has no choices");
    if (choices.size() > 1) return unlike("several choices, where one was asked for");
    Result<void> done;
    choices.each_element([&](std::size_t, JsonView c) {
        done = choice(c, out);
        return false;
    });
    if (!done) return done;
    out.prompt_tokens = prompt_tokens_;
    out.cached_tokens = cached_tokens_;
    out.cached_told = cached_told_;
    // Usage comes behind the choices, in an event of its own.
    if (finishing_ && choices.size() == 0) give_end(out);
    return {};
}

Result<void> AnswerReader::choice(JsonView c, Piece& out) {
    if (finishing_) return unlike("tokens behind its end");
    std::optional<FinishReason> finish;
    if (const auto word = c.find("finish_reason").as_string()) {
        finish = finish_of(*word);
        if (!finish && *word != "not_finished") return unlike("its finish_reason is not known");
    }
    Piece& to = finish ? last_ : out;
    const std::size_t first = to.tokens.size();
    if (auto ok = tokens_of(c.find("token_ids"), 0, to); !ok) return ok;
    const JsonView logprobs = c.find("logprobs");
    if (logprobs_ && !logprobs.is_null() && to.tokens.size() > first) {
        auto ok = dialect_ == Dialect::kVllmGenerate ? generate_logprobs(logprobs, to, first)
                                                     : named_logprobs(logprobs, to, first);
        if (!ok) return ok;
    }
    if (!finish) return {};
    finishing_ = true;
    last_.finish = finish;
    if (*finish == FinishReason::kError) {
        last_.error = error(ErrorCode::kInternal, "the engine failed at this request").value();
        last_.error->retryable = true;
    }
    return {};
}

/// {"content":[{"token_id","logprob","top_logprobs":[{"token_id","logprob"}]}]}
Result<void> AnswerReader::generate_logprobs(JsonView logprobs, Piece& out,
                                             std::size_t first) const {
    Result<void> done;
    std::size_t at = first;
    logprobs.find("content").each_element([&](std::size_t, JsonView entry) {
        if (at >= out.tokens.size()) return false;
        protocol::TokenOutput& token = out.tokens[at++];
        token.logprob = static_cast<float>(entry.find("logprob").as_double().value_or(0));
        token.top_first = static_cast<std::uint32_t>(out.top.size());
        entry.find("top_logprobs").each_element([&](std::size_t, JsonView one) {
            const auto id = token_of(one.find("token_id"));
            if (!id) {
                done = unlike("a token id of its log probabilities");
                return false;
            }
            out.top.push_back(
                {.token = *id,
                 .logprob = static_cast<float>(one.find("logprob").as_double().value_or(0))});
            return true;
        });
        token.top_count = static_cast<std::uint32_t>(out.top.size()) - token.top_first;
        return done.has_value();
    });
    return done;
}

/// {"token_logprobs":[…],"top_logprobs":[{"token_id:7":-0.5}]}
Result<void> AnswerReader::named_logprobs(JsonView logprobs, Piece& out, std::size_t first) const {
    Result<void> done;
    logprobs.find("token_logprobs").each_element([&](std::size_t i, JsonView v) {
        if (first + i >= out.tokens.size()) return false;
        out.tokens[first + i].logprob = static_cast<float>(v.as_double().value_or(0));
        return true;
    });
    logprobs.find("top_logprobs").each_element([&](std::size_t i, JsonView best) {
        if (first + i >= out.tokens.size()) return false;
        protocol::TokenOutput& token = out.tokens[first + i];
        token.top_first = static_cast<std::uint32_t>(out.top.size());
        best.each_member([&](std::string_view name, JsonView v) {
            const auto id = named_token(name);
            if (!id) {
                done = unlike("it names tokens by their texts");
                return false;
            }
            out.top.push_back(
                {.token = *id, .logprob = static_cast<float>(v.as_double().value_or(0))});
            return true;
        });
        token.top_count = static_cast<std::uint32_t>(out.top.size()) - token.top_first;
        return done.has_value();
    });
    return done;
}

// ---- SGLang's

/// {"output_ids":[…],"meta_info":{…}}: the ids from the answer's beginning, or, where the server
/// runs with --incremental-streaming-output, since the event before; completion_tokens says which.
Result<void> AnswerReader::sglang(JsonView root, Piece& out) {
    const JsonView meta = root.find("meta_info");
    if (meta.type() != JsonType::kObject) return unlike("it has no meta_info");
    prompt_tokens_ = count_of(meta.find("prompt_tokens"));
    cached_tokens_ = count_of(meta.find("cached_tokens"));
    cached_told_ = true;
    out.prompt_tokens = prompt_tokens_;
    out.cached_tokens = cached_tokens_;
    out.cached_told = cached_told_;
    const JsonView ids = root.find("output_ids");
    const std::uint64_t so_far = meta.find("completion_tokens").as_uint().value_or(ids.size());
    if (so_far < produced_) return unlike("it takes tokens back");
    const std::uint64_t fresh = so_far - produced_;
    if (ids.size() != so_far && ids.size() != fresh) {
        return unlike("as many ids as it has tokens, or as are new");
    }
    const std::size_t skip = ids.size() - fresh;
    const bool cumulative = ids.size() == so_far;
    if (auto ok = tokens_of(ids, skip, out); !ok) return ok;
    if (logprobs_ && fresh > 0) {
        if (auto ok = sglang_logprobs(meta, out, 0, cumulative ? skip : 0); !ok) return ok;
    }
    const JsonView finish = meta.find("finish_reason");
    if (finish.is_null()) return {};
    const auto word = finish.find("type").as_string();
    const auto how = word ? finish_of(*word) : std::nullopt;
    if (!how) return unlike("its finish_reason is not known");
    ended_ = finishing_ = true;
    out.finish = how;
    // An abort that was not asked for has a message and a status.
    if (const auto message = finish.find("message").as_string();
        *how == FinishReason::kCancelled && message) {
        const auto status = finish.find("status_code").as_int().value_or(500);
        out.finish = FinishReason::kError;
        out.error = engine_error(static_cast<int>(status), {});
        out.error->message = std::string(*message);
    }
    return {};
}

/// {"output_token_logprobs":[[logprob, id, text]],"output_top_logprobs":[[[logprob, id, text]]]}
Result<void> AnswerReader::sglang_logprobs(JsonView meta, Piece& out, std::size_t first,
                                           std::size_t skip) const {
    const auto pair = [](JsonView v) {
        protocol::TokenLogprob p;
        bool ok = false;
        v.each_element([&](std::size_t i, JsonView part) {
            if (i == 0) p.logprob = static_cast<float>(part.as_double().value_or(0));
            if (i == 1) {
                const auto id = token_of(part);
                ok = id.has_value();
                p.token = id.value_or(0);
            }
            return i < 1;
        });
        return ok ? std::optional(p) : std::nullopt;
    };
    Result<void> done;
    const JsonView own = meta.find("output_token_logprobs");
    own.each_element([&](std::size_t i, JsonView v) {
        if (i < skip || first + i - skip >= out.tokens.size()) return i < skip;
        const auto p = pair(v);
        if (!p) {
            done = unlike("a log probability without its token");
            return false;
        }
        out.tokens[first + i - skip].logprob = p->logprob;
        return true;
    });
    const JsonView best = meta.find("output_top_logprobs");
    best.each_element([&](std::size_t i, JsonView list) {
        if (i < skip || first + i - skip >= out.tokens.size()) return i < skip;
        protocol::TokenOutput& token = out.tokens[first + i - skip];
        token.top_first = static_cast<std::uint32_t>(out.top.size());
        list.each_element([&](std::size_t, JsonView v) {
            const auto p = pair(v);
            if (!p) {
                done = unlike("a log probability without its token");
                return false;
            }
            out.top.push_back(*p);
            return true;
        });
        token.top_count = static_cast<std::uint32_t>(out.top.size()) - token.top_first;
        return done.has_value();
    });
    return done;
}

// ---- of all

Result<void> AnswerReader::tokens_of(JsonView ids, std::size_t skip, Piece& out) {
    if (ids.is_null()) return {};
    if (ids.type() != JsonType::kArray) return unlike("its token ids are no array");
    Result<void> done;
    ids.each_element([&](std::size_t i, JsonView v) {
        if (i < skip) return true;
        const auto id = token_of(v);
        if (!id) {
            done = unlike("a token id that is none");
            return false;
        }
        out.tokens.push_back({.token = *id});
        ++produced_;
        return true;
    });
    return done;
}

void AnswerReader::usage(JsonView usage) {
    if (usage.is_null()) return;
    prompt_tokens_ = count_of(usage.find("prompt_tokens"));
    const JsonView cached = usage.find("prompt_tokens_details").find("cached_tokens");
    if (cached.is_null()) return;
    cached_tokens_ = count_of(cached);
    cached_told_ = true;
}

void AnswerReader::fail(JsonView root, Piece& out) {
    std::string text;
    root.write_to(text);
    const JsonView said = root.find("error");
    auto status = said.find("code").as_int().value_or(500);
    if (status < 400 || status > 599) status = 500;
    ended_ = finishing_ = true;
    out.finish = FinishReason::kError;
    out.error = engine_error(static_cast<int>(status), text);
    out.prompt_tokens = prompt_tokens_;
    out.cached_tokens = cached_tokens_;
    out.cached_told = cached_told_;
}

void AnswerReader::give_end(Piece& out) {
    ended_ = true;
    out = std::move(last_);
    out.prompt_tokens = prompt_tokens_;
    out.cached_tokens = cached_tokens_;
    out.cached_told = cached_told_;
}

}  // namespace stator::engine
