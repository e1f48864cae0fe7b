// The readers of both request bodies: every field, good and bad.
#include <gtest/gtest.h>
#include <rapidcheck.h>

#include <functional>

#include "stator/codec/json.h"
#include "stator/codec/json_writer.h"
#include "stator/frontend/chat_request.h"
#include "stator/frontend/completion_request.h"

namespace stator::frontend {
namespace {

constexpr std::uint32_t kVocab = 1000;

RequestRules rules() {
    RequestRules r;
    r.vocab_size = kVocab;
    r.max_choices = 8;
    return r;
}

/// A chat body with `extra` members, e.g. R"("n":2)".
std::string chat_body(const std::string& extra) {
    return R"({"model":"m","messages":[{"role":"user","content":"Hi"}])" +
           (extra.empty() ? "" : "," + extra) + "}";
}
std::string completion_body(const std::string& extra) {
    return R"({"model":"m","prompt":"Hi")" + (extra.empty() ? "" : "," + extra) + "}";
}

Result<ChatRequest> chat(const std::string& body, const RequestRules& r = rules()) {
    codec::JsonDocument document;
    auto root = document.parse(body);
    if (!root) return tl::unexpected<Error>(root.error());
    return read_chat_request(*root, r);
}
Result<CompletionRequest> completion(const std::string& body, const RequestRules& r = rules()) {
    codec::JsonDocument document;
    auto root = document.parse(body);
    if (!root) return tl::unexpected<Error>(root.error());
    return read_completion_request(*root, r);
}

struct BadCase {
    const char* extra;
    const char* param;
    ErrorCode code = ErrorCode::kInvalidArgument;
};

constexpr auto kUnserved = ErrorCode::kUnsupported;

const BadCase kBadInBoth[] = {
    {R"("temperature":-0.1)", "temperature"},
    {R"("temperature":2.01)", "temperature"},
    {R"("temperature":"hot")", "temperature"},
    {R"("temperature":true)", "temperature"},
    {R"("temperature":[1])", "temperature"},
    {R"("top_p":0)", "top_p"},
    {R"("top_p":1.0001)", "top_p"},
    {R"("top_p":1e-60)", "top_p"},
    {R"("top_k":-2)", "top_k"},
    {R"("top_k":1.5)", "top_k"},
    {R"("top_k":4294967296)", "top_k"},
    {R"("min_p":1)", "min_p"},
    {R"("min_p":0.99999999999)", "min_p"},
    {R"("min_p":-0.5)", "min_p"},
    {R"("frequency_penalty":2.5)", "frequency_penalty"},
    {R"("presence_penalty":-2.5)", "presence_penalty"},
    {R"("repetition_penalty":0)", "repetition_penalty"},
    {R"("repetition_penalty":2.1)", "repetition_penalty"},
    {R"("seed":1.5)", "seed"},
    {R"("seed":"1")", "seed"},
    {R"("seed":9223372036854775808)", "seed"},
    {R"("n":0)", "n"},
    {R"("n":-1)", "n"},
    {R"("n":9)", "n"},
    {R"("n":"1")", "n"},
    {R"("max_tokens":0)", "max_tokens"},
    {R"("max_tokens":-5)", "max_tokens"},
    {R"("max_tokens":1.0)", "max_tokens"},
    {R"("max_tokens":"5")", "max_tokens"},
    {R"("max_tokens":4294967296)", "max_tokens"},
    {R"("min_tokens":-1)", "min_tokens"},
    {R"("ignore_eos":1)", "ignore_eos"},
    {R"("return_token_ids":"yes")", "return_token_ids"},
    {R"("stream":"true")", "stream"},
    {R"("stream":1)", "stream"},
    {R"("stream_options":{"include_usage":true})", "stream_options"},
    {R"("stream":true,"stream_options":[])", "stream_options"},
    {R"("stream":true,"stream_options":{"include_usage":1})", "stream_options.include_usage"},
    {R"("stream":true,"stream_options":{"continuous_usage_stats":"x"})",
     "stream_options.continuous_usage_stats"},
    {R"("stream":true,"stream_options":{"include_obfuscation":[]})",
     "stream_options.include_obfuscation"},
    {R"("stop":"")", "stop"},
    {R"("stop":5)", "stop"},
    {R"("stop":["a",""])", "stop[1]"},
    {R"("stop":["a",5])", "stop[1]"},
    {R"("stop":["1","2","3","4","5","6","7","8","9","a","b","c","d","e","f","g","h"])", "stop"},
    {R"("stop_token_ids":5)", "stop_token_ids"},
    {R"("stop_token_ids":[1000])", "stop_token_ids[0]"},
    {R"("stop_token_ids":[1,-1])", "stop_token_ids[1]"},
    {R"("stop_token_ids":["a"])", "stop_token_ids[0]"},
    {R"("logit_bias":[1])", "logit_bias"},
    {R"("logit_bias":{"1000":1})", "logit_bias"},
    {R"("logit_bias":{"-1":1})", "logit_bias"},
    {R"("logit_bias":{"":1})", "logit_bias"},
    {R"("logit_bias":{"1x":1})", "logit_bias"},
    {R"("logit_bias":{"5":101})", "logit_bias.5"},
    {R"("logit_bias":{"5":"1"})", "logit_bias.5"},
    {R"("response_format":"text")", "response_format"},
    {R"("response_format":{"type":"json_object"})", "response_format", kUnserved},
    {R"("response_format":{"type":"json_schema","json_schema":{}})", "response_format.json_schema",
     kUnserved},
    {R"("guided_json":{"a":1})", "guided_json", kUnserved},
    {R"("use_beam_search":true)", "use_beam_search", kUnserved},
    {R"("prompt_logprobs":2)", "prompt_logprobs", kUnserved},
};

const BadCase kBadInChat[] = {
    {R"("max_completion_tokens":0)", "max_completion_tokens"},
    {R"("max_completion_tokens":-1)", "max_completion_tokens"},
    {R"("logprobs":1)", "logprobs"},
    {R"("logprobs":true,"top_logprobs":21)", "top_logprobs"},
    {R"("logprobs":true,"top_logprobs":-1)", "top_logprobs"},
    {R"("top_logprobs":2)", "top_logprobs"},
};

const BadCase kBadInCompletions[] = {
    {R"("logprobs":21)", "logprobs"},
    {R"("logprobs":-1)", "logprobs"},
    {R"("logprobs":true)", "logprobs"},
    {R"("echo":true)", "echo", kUnserved},
    {R"("suffix":"x")", "suffix", kUnserved},
    {R"("best_of":2)", "best_of", kUnserved},
    {R"("best_of":0)", "best_of"},
    {R"("n":3,"best_of":2)", "best_of"},
};

template <typename Read>
void expect_bad(const BadCase& c, Read read, const std::string& body) {
    const auto result = read(body, rules());
    ASSERT_FALSE(result.has_value()) << body;
    EXPECT_EQ(result.error().param, c.param) << body;
    EXPECT_EQ(result.error().code, c.code) << body;
    EXPECT_NE(result.error().message.find(c.param), std::string::npos)
        << body << ": " << result.error().message;
}

TEST(RequestReaders, BadFieldsAreNamed) {
    for (const BadCase& c : kBadInBoth) {
        expect_bad(c, chat, chat_body(c.extra));
        expect_bad(c, completion, completion_body(c.extra));
    }
    for (const BadCase& c : kBadInChat) expect_bad(c, chat, chat_body(c.extra));
    for (const BadCase& c : kBadInCompletions) expect_bad(c, completion, completion_body(c.extra));
}

TEST(RequestReaders, ModelIsRequired) {
    for (const char* body :
         {R"({"messages":[{"role":"user","content":"x"}],"prompt":"x"})",
          R"({"model":5,"messages":[{"role":"user","content":"x"}],"prompt":"x"})",
          R"({"model":null,"messages":[{"role":"user","content":"x"}],"prompt":"x"})",
          R"({"model":"","messages":[{"role":"user","content":"x"}],"prompt":"x"})"}) {
        EXPECT_EQ(chat(body).error().param, "model");
        EXPECT_EQ(completion(body).error().param, "model");
    }
}

TEST(RequestReaders, DefaultsComeFromTheModel) {
    RequestRules r = rules();
    r.defaults = {.temperature = 0.25F, .top_p = 0.5F, .top_k = 40, .min_p = 0.125F};
    const auto request = chat(chat_body(""), r);
    ASSERT_TRUE(request) << request.error().message;
    const auto& f = request->fields;
    EXPECT_EQ(f.model, "m");
    EXPECT_EQ(f.sampling.temperature, 0.25F);
    EXPECT_EQ(f.sampling.top_p, 0.5F);
    EXPECT_EQ(f.sampling.top_k, 40);
    EXPECT_EQ(f.sampling.min_p, 0.125F);
    EXPECT_EQ(f.sampling.repetition_penalty, 1.0F);
    EXPECT_FALSE(f.sampling.seed);
    EXPECT_EQ(f.n, 1U);
    EXPECT_FALSE(f.max_tokens);
    EXPECT_EQ(f.top_logprobs, -1);
    EXPECT_FALSE(f.stream);
    EXPECT_FALSE(f.include_usage);
}

TEST(RequestReaders, ReadsEverySharedField) {
    const std::string all =
        R"("temperature":0,"top_p":0.9,"top_k":-1,"min_p":0.05,"frequency_penalty":-2,)"
        R"("presence_penalty":2,"repetition_penalty":1.25,"seed":-7,"n":3,"max_tokens":64,)"
        R"("min_tokens":4,"ignore_eos":true,"return_token_ids":true,"stream":true,)"
        R"("stream_options":{"include_usage":true},"stop":["a","b"],"stop_token_ids":[1,2],)"
        R"("logit_bias":{"5":-100,"999":0.5},"response_format":{"type":"text"},)"
        R"("user":"u","metadata":{"a":"b"},"store":false,"unknown_field":{"x":[1]})";
    const auto check = [](const GenerationFields& f) {
        EXPECT_EQ(f.sampling.temperature, 0.0F);
        EXPECT_EQ(f.sampling.top_p, 0.9F);
        EXPECT_EQ(f.sampling.top_k, 0);
        EXPECT_EQ(f.sampling.min_p, 0.05F);
        EXPECT_EQ(f.sampling.frequency_penalty, -2.0F);
        EXPECT_EQ(f.sampling.presence_penalty, 2.0F);
        EXPECT_EQ(f.sampling.repetition_penalty, 1.25F);
        EXPECT_EQ(f.sampling.seed, static_cast<std::uint64_t>(-7));
        EXPECT_EQ(f.n, 3U);
        EXPECT_EQ(f.max_tokens, 64U);
        EXPECT_EQ(f.min_tokens, 4U);
        EXPECT_TRUE(f.ignore_eos && f.return_token_ids && f.stream && f.include_usage);
        EXPECT_EQ(f.stop, (std::vector<std::string>{"a", "b"}));
        EXPECT_EQ(f.stop_token_ids, (std::vector<tokens::TokenId>{1, 2}));
        ASSERT_EQ(f.sampling.logit_bias.size(), 2U);
        EXPECT_EQ(f.sampling.logit_bias[1], (std::pair<tokens::TokenId, float>{999, 0.5F}));
    };
    const auto a = chat(chat_body(all));
    ASSERT_TRUE(a) << a.error().message;
    check(a->fields);
    const auto b = completion(completion_body(all));
    ASSERT_TRUE(b) << b.error().message;
    check(b->fields);
}

TEST(RequestReaders, NullIsAbsent) {
    const std::string nulls =
        R"("temperature":null,"top_p":null,"top_k":null,"min_p":null,"seed":null,"n":null,)"
        R"("max_tokens":null,"stop":null,"stream":null,"stream_options":null,"logit_bias":null,)"
        R"("logprobs":null,"user":null,"response_format":null,"tools":null,"suffix":null,"echo":null)";
    EXPECT_TRUE(chat(chat_body(nulls)));
    EXPECT_TRUE(completion(completion_body(nulls)));
}

TEST(RequestReaders, UnservedFieldsPassWhereTheyChangeNothing) {
    EXPECT_TRUE(chat(chat_body(
        R"("tools":[],"functions":[],"tool_choice":"none","function_call":"auto","modalities":["text"],"parallel_tool_calls":true)")));
    EXPECT_TRUE(completion(completion_body(R"("echo":false,"suffix":"","best_of":1)")));
    EXPECT_TRUE(completion(completion_body(R"("n":2,"best_of":2)")));
}

TEST(RequestReaders, StopAsAString) {
    EXPECT_EQ(chat(chat_body(R"("stop":"END")"))->fields.stop, std::vector<std::string>{"END"});
    EXPECT_TRUE(chat(chat_body(R"("stop":[])"))->fields.stop.empty());
    EXPECT_EQ(chat(chat_body(R"("stop":")" + std::string(1025, 'x') + "\"")).error().param, "stop");
}

TEST(ChatRequestReader, MaxCompletionTokensWins) {
    const auto r = chat(chat_body(R"("max_tokens":5,"max_completion_tokens":7)"));
    EXPECT_EQ(r->fields.max_tokens, 7U);
    EXPECT_EQ(r->fields.max_tokens_field, "max_completion_tokens");
}

TEST(ChatRequestReader, Logprobs) {
    EXPECT_EQ(chat(chat_body(R"("logprobs":true)"))->fields.top_logprobs, 0);
    EXPECT_EQ(chat(chat_body(R"("logprobs":true,"top_logprobs":20)"))->fields.top_logprobs, 20);
    EXPECT_EQ(chat(chat_body(R"("logprobs":false,"top_logprobs":0)"))->fields.top_logprobs, -1);
    RequestRules r = rules();
    r.max_top_logprobs = 3;
    EXPECT_FALSE(chat(chat_body(R"("logprobs":true,"top_logprobs":4)"), r));
}

using Tokens = std::vector<tokens::TokenId>;

TEST(CompletionRequestReader, PromptForms) {
    const auto prompts = [](const std::string& prompt) {
        const auto r = completion(R"({"model":"m","prompt":)" + prompt + "}");
        EXPECT_TRUE(r) << r.error().message;
        return r ? r->prompts : std::vector<PromptInput>{};
    };
    EXPECT_EQ(prompts(R"("text")"), (std::vector<PromptInput>{"text"}));
    EXPECT_EQ(prompts(R"(["a","b"])"), (std::vector<PromptInput>{"a", "b"}));
    EXPECT_EQ(prompts("[1,2,999]"), (std::vector<PromptInput>{Tokens{1, 2, 999}}));
    EXPECT_EQ(prompts("[[1],[2,3]]"), (std::vector<PromptInput>{Tokens{1}, Tokens{2, 3}}));
    EXPECT_EQ(prompts(R"(["a",[2,3]])"), (std::vector<PromptInput>{"a", Tokens{2, 3}}));
}

TEST(CompletionRequestReader, BadPrompts) {
    for (const char* prompt :
         {R"("")", "[]", "null", "5", "{}", "true", R"([""])", "[[]]", "[1,\"a\"]", "[1,-1]",
          "[1000]", "[1.5]", "[[1],[]]", "[[1],[1000]]", "[[\"a\"]]", R"(["a",5])", "[null]"}) {
        const auto r = completion(std::string(R"({"model":"m","prompt":)") + prompt + "}");
        ASSERT_FALSE(r) << prompt;
        EXPECT_EQ(r.error().param, "prompt") << prompt;
    }
    EXPECT_EQ(completion(R"({"model":"m"})").error().param, "prompt");
}

TEST(CompletionRequestReader, ChoicesAreBounded) {
    EXPECT_TRUE(completion(R"({"model":"m","prompt":["a","b"],"n":4})"));
    const auto r = completion(R"({"model":"m","prompt":["a","b","c"],"n":3})");
    ASSERT_FALSE(r);
    EXPECT_EQ(r.error().param, "n");
    const auto many = completion(R"({"model":"m","prompt":["1","2","3","4","5","6","7","8","9"]})");
    EXPECT_EQ(many.error().param, "prompt");
}

TEST(CompletionRequestReader, Logprobs) {
    EXPECT_EQ(completion(completion_body(R"("logprobs":0)"))->fields.top_logprobs, 0);
    EXPECT_EQ(completion(completion_body(R"("logprobs":5)"))->fields.top_logprobs, 5);
    EXPECT_EQ(completion(completion_body(""))->fields.top_logprobs, -1);
}

/// Whatever number a field holds: it is either taken as it is, or refused with its name.
TEST(RequestReaders, NumbersAreTakenOrRefused) {
    EXPECT_TRUE(rc::check([] {
        const auto value = *rc::gen::arbitrary<double>();
        RC_PRE(std::isfinite(value));
        std::string number;
        codec::JsonWriter(number).number(value);
        const auto r = chat(chat_body("\"temperature\":" + number));
        const bool good = value >= 0 && value <= 2;
        RC_ASSERT(r.has_value() == good);
        if (good) RC_ASSERT(r->fields.sampling.temperature == static_cast<float>(value));
        if (!good) RC_ASSERT(r.error().param == "temperature");
    }));
}

/// A field of any type never crashes a reader, and a refusal names a field.
TEST(RequestReaders, AnyTypeAnywhere) {
    const char* fields[] = {"model",  "messages",       "prompt", "temperature", "n",
                            "stop",   "stop_token_ids", "seed",   "logit_bias",  "stream",
                            "tools",  "stream_options", "echo",   "logprobs",    "top_logprobs",
                            "suffix", "max_tokens",     "top_k",  "modalities",  "response_format"};
    const char* values[] = {"null",
                            "true",
                            "0",
                            "-1",
                            "1e300",
                            "18446744073709551615",
                            R"("")",
                            R"("x")",
                            "[]",
                            "[1]",
                            R"(["a"])",
                            "[[]]",
                            "{}",
                            R"({"a":1})",
                            "[{}]",
                            R"([null,{"type":5}])",
                            R"({"type":7})"};
    for (const char* field : fields) {
        for (const char* value : values) {
            const std::string body = std::string("{\"model\":\"m\",\"prompt\":\"p\",\"") + field +
                                     "\":" + value +
                                     R"(,"messages":[{"role":"user","content":"x"}]})";
            if (const auto r = chat(body); !r) EXPECT_FALSE(r.error().param.empty()) << body;
            if (const auto r = completion(body); !r) EXPECT_FALSE(r.error().param.empty()) << body;
        }
    }
}

}  // namespace
}  // namespace stator::frontend
