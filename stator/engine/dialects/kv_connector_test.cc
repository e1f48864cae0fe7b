#include "stator/engine/dialects/kv_connector.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include "stator/codec/json.h"
#include "stator/engine/dialects/recordings_fixture.h"
#include "stator/engine/dialects/request_body.h"
#include "stator/protocol/handoff.h"

namespace stator::engine {
namespace {

using protocol::GenerateRequest;
using protocol::Leg;
using testing::HasSubstr;
using testing::Not;

const std::string kNixl =
    R"({"do_remote_prefill":true,"do_remote_decode":false,"remote_block_ids":[[4,5]],)"
    R"("remote_engine_id":"e","remote_request_id":"r","remote_host":"h","remote_port":5600,)"
    R"("tp_size":1,"remote_num_tokens":4,"new":{"later":[1,null]},"remote_prefill_cached_tokens":2})";

std::string vllm_answer(const std::string& params, const std::string& finish = "length") {
    return R"({"choices":[{"index":0,"finish_reason":")" + finish +
           R"(","token_ids":[7]}],"usage":{"prompt_tokens":4},"kv_transfer_params":)" + params +
           "}";
}

/// `json` without a member, or with another value of it.
std::string changed(const std::string& json, const std::string& key, const std::string& value) {
    codec::JsonDocument document;
    const auto root = document.parse(json).value();
    std::string out = "{";
    root.each_member([&](std::string_view k, codec::JsonView v) {
        const std::string to = k == key ? value : compact(v);
        if (!to.empty()) out += (out.size() > 1 ? ",\"" : "\"") + std::string(k) + "\":" + to;
        return true;
    });
    return out + "}";
}

GenerateRequest request(Leg leg) {
    GenerateRequest r;
    r.prompt = {1, 2, 3, 4};
    r.max_tokens = 8;
    r.min_tokens = 2;
    r.leg = leg;
    r.sampling.temperature = 0.5F;
    r.stop_token_ids = {9};
    r.cache_salt = 77;
    return r;
}

std::string body(Dialect dialect, KvConnector connector, const GenerateRequest& r,
                 std::string_view object = {}) {
    DialectOptions o;
    o.dialect = dialect;
    o.model = "m";
    o.connector = connector;
    std::string out;
    const auto ok = append_request_body(out, r, o, "name", object);
    return ok ? out : ok.error().message;
}

TEST(KvConnector, RecordedNixlObjectsComeThroughAsTheyWere) {
    if (recorded_body("vllm032_pd_nixl/chat.1prefill").empty()) {
        GTEST_SKIP() << "STATOR_DATA has no recordings of engines";
    }
    struct Case {
        const char* name;
        std::size_t prompt;
        std::uint32_t cached;
    };
    for (const Case c :
         {Case{"completions_3blocks", 101, 0}, Case{"completions_again_full_local_hit", 101, 96},
          Case{"completions_exact_multiple", 128, 0}, Case{"completions_short_below_block", 24, 0},
          Case{"completions_stream", 169, 0}, Case{"generate_extra_args", 103, 0},
          Case{"generate_top_level", 0, 0}}) {
        const std::string name = std::string("vllm032_pd_nixl/") + c.name;
        const std::string answer = recorded_body(name + ".1prefill");
        std::size_t prompt = c.prompt;
        if (prompt == 0) {
            prompt = std::stoul(at(answer, {"kv_transfer_params", "remote_num_tokens"}));
        }
        const auto read = read_prefill_answer(KvConnector::kVllmNixl, answer, prompt);
        ASSERT_TRUE(read) << name << ": " << read.error().message;
        EXPECT_EQ(read->object, at(answer, {"kv_transfer_params"}));
        EXPECT_EQ(read->cached_tokens, c.cached);
        EXPECT_TRUE(check_object(KvConnector::kVllmNixl, read->object));
        EXPECT_FALSE(read_prefill_answer(KvConnector::kVllmNixl, answer, prompt + 1));
        if (c.prompt == 0) continue;
        // What was sent to the other engine in the recording.
        const std::string sent = recorded(name + ".2decode.request.json");
        const bool nested = name.ends_with("extra_args");
        const std::string expected =
            nested ? at(sent, {"body", "sampling_params", "extra_args", "kv_transfer_params"})
                   : at(sent, {"body", "kv_transfer_params"});
        const std::string ours = body(nested ? Dialect::kVllmGenerate : Dialect::kVllmCompletions,
                                      KvConnector::kVllmNixl, request(Leg::kDecode), read->object);
        EXPECT_EQ(nested ? at(ours, {"sampling_params", "extra_args", "kv_transfer_params"})
                         : at(ours, {"kv_transfer_params"}),
                  expected);
        // … and to this one.
        const std::string asked = recorded(name + ".1prefill.request.json");
        const std::string prefill =
            body(nested ? Dialect::kVllmGenerate : Dialect::kVllmCompletions,
                 KvConnector::kVllmNixl, request(Leg::kPrefill));
        for (const std::string_view key :
             {"do_remote_decode", "do_remote_prefill", "remote_engine_id", "remote_block_ids",
              "remote_host", "remote_port"}) {
            EXPECT_EQ(
                nested ? at(prefill, {"sampling_params", "extra_args", "kv_transfer_params", key})
                       : at(prefill, {"kv_transfer_params", key}),
                nested ? at(asked,
                            {"body", "sampling_params", "extra_args", "kv_transfer_params", key})
                       : at(asked, {"body", "kv_transfer_params", key}))
                << key;
        }
    }
    // Objects that have killed an engine.
    for (const std::string name : {"vllm032_pd_nixl/fail_incomplete_params",
                                   "vllm032_kv_params_robustness/blocks_but_no_host"}) {
        const std::string params =
            at(recorded(name + ".request.json"), {"body", "kv_transfer_params"});
        ASSERT_THAT(params, HasSubstr("do_remote_prefill")) << name;
        EXPECT_FALSE(check_object(KvConnector::kVllmNixl, params)) << name;
    }
    const auto shared = read_prefill_answer(
        KvConnector::kVllmShared, recorded_body("vllm032_exampleconnector/a101_store"), 101);
    ASSERT_TRUE(shared) << shared.error().message;
    EXPECT_EQ(shared->object, "{}");
}

TEST(KvConnector, ANixlObjectHasAllThatADecodeWorkerNeeds) {
    ASSERT_TRUE(check_object(KvConnector::kVllmNixl, kNixl));
    EXPECT_TRUE(check_object(KvConnector::kVllmNixl, changed(kNixl, "remote_block_ids", "[4]")))
        << "older versions: not by group";
    for (const char* key : {"do_remote_prefill", "remote_block_ids", "remote_engine_id",
                            "remote_request_id", "remote_host", "remote_port"}) {
        for (const char* value :
             {"", "null", "false", "\"\"", "[]", "0", "-1", "1.5", "[[]]", "[[\"a\"]]", "70000"}) {
            if (std::string_view(key) == "remote_block_ids" && *value == '7') continue;
            const std::string object = changed(kNixl, key, value);
            const auto checked = check_object(KvConnector::kVllmNixl, object);
            ASSERT_FALSE(checked) << object;
            EXPECT_EQ(checked.error().code, ErrorCode::kDataLoss);
            EXPECT_FALSE(read_prefill_answer(KvConnector::kVllmNixl, vllm_answer(object), 4));
        }
    }
    for (const char* not_one : {"", "null", "[]", "{", "{}", "\"x\"", "{}{}"}) {
        EXPECT_FALSE(check_object(KvConnector::kVllmNixl, not_one)) << not_one;
    }
    const std::string large =
        changed(kNixl, "new", '"' + std::string(protocol::kMaxObjectBytes, 'x') + '"');
    EXPECT_FALSE(check_object(KvConnector::kVllmNixl, large));
    EXPECT_FALSE(read_prefill_answer(KvConnector::kVllmNixl, vllm_answer(large), 4));
}

TEST(KvConnector, AVllmThatEndsOtherwiseThanByLengthLeavesNothing) {
    const auto good = read_prefill_answer(KvConnector::kVllmNixl, vllm_answer(kNixl), 4);
    ASSERT_TRUE(good);
    EXPECT_EQ(good->object, kNixl);
    EXPECT_EQ(good->cached_tokens, 2U);
    EXPECT_FALSE(read_prefill_answer(KvConnector::kVllmNixl, vllm_answer(kNixl), 5));
    EXPECT_FALSE(read_prefill_answer(KvConnector::kVllmNixl, vllm_answer("null"), 4));
    for (const char* how : {"stop", "abort", "error"}) {
        EXPECT_FALSE(read_prefill_answer(KvConnector::kVllmNixl, vllm_answer(kNixl, how), 4));
        EXPECT_FALSE(read_prefill_answer(KvConnector::kVllmShared, vllm_answer("null", how), 4));
        EXPECT_FALSE(read_prefill_answer(KvConnector::kVllmMooncake, vllm_answer("null", how), 4));
    }
    EXPECT_TRUE(read_prefill_answer(KvConnector::kVllmShared, vllm_answer("null"), 4));
    EXPECT_TRUE(read_prefill_answer(KvConnector::kVllmMooncake, vllm_answer("null"), 4));
}

TEST(KvConnector, NoBytesOfAnAnswerAreTooOdd) {
    EXPECT_TRUE(rc::check([] {
        const auto connector = *rc::gen::element(
            KvConnector::kNone, KvConnector::kVllmNixl, KvConnector::kVllmShared,
            KvConnector::kVllmMooncake, KvConnector::kSglang, KvConnector::kTrtllm);
        std::string text = vllm_answer(kNixl);
        const auto from = *rc::gen::inRange<std::size_t>(0, text.size());
        text.replace(from, *rc::gen::inRange<std::size_t>(0, 30),
                     *rc::gen::arbitrary<std::string>());
        const auto read = read_prefill_answer(connector, text, 4);
        // Whatever passes is good for the reader.
        if (read && !is_early(connector)) RC_ASSERT(check_object(connector, read->object));
    }));
}

TEST(KvConnector, APrefillLegOfVllmShapesNoOutput) {
    auto r = request(Leg::kPrefill);
    r.top_logprobs = 3;
    r.constraint = std::make_shared<const protocol::OutputConstraint>();
    const std::string completions = body(Dialect::kVllmCompletions, KvConnector::kVllmNixl, r);
    EXPECT_EQ(at(completions, {"max_tokens"}), "1");
    EXPECT_EQ(at(completions, {"ignore_eos"}), "true");
    EXPECT_EQ(at(completions, {"stream"}), "false");
    EXPECT_EQ(at(completions, {"prompt"}), "[1,2,3,4]");
    EXPECT_EQ(at(completions, {"cache_salt"}), "\"77\"");
    for (const char* key : {"min_tokens", "stop_token_ids", "logprobs", "structured_outputs",
                            "stream_options", "return_token_ids"}) {
        EXPECT_EQ(at(completions, {key}), "") << key;
    }
    const std::string generate = body(Dialect::kVllmGenerate, KvConnector::kVllmNixl, r);
    EXPECT_EQ(at(generate, {"sampling_params", "max_tokens"}), "1");
    EXPECT_EQ(
        at(generate, {"sampling_params", "extra_args", "kv_transfer_params", "do_remote_decode"}),
        "true");
    const std::string shared = body(Dialect::kVllmGenerate, KvConnector::kVllmShared, r);
    EXPECT_THAT(shared, Not(HasSubstr("kv_transfer")));
    EXPECT_THAT(body(Dialect::kVllmGenerate, KvConnector::kNone, r), HasSubstr("no connector"));
}

TEST(KvConnector, NothingOfATransferIsInAWholeRequest) {
    for (const auto& [dialect, connector] :
         {std::pair{Dialect::kVllmGenerate, KvConnector::kVllmNixl},
          std::pair{Dialect::kVllmCompletions, KvConnector::kVllmMooncake},
          std::pair{Dialect::kSglang, KvConnector::kSglang},
          std::pair{Dialect::kTrtllm, KvConnector::kTrtllm}}) {
        for (const Leg leg : {Leg::kWhole, Leg::kDecode}) {
            auto r = request(leg);
            r.cache_salt = 0;
            const std::string text = body(dialect, connector, r);
            EXPECT_EQ(at(text, {"stream"}), "true") << text;
            EXPECT_THAT(text, Not(HasSubstr("transfer")));
            EXPECT_THAT(text, Not(HasSubstr("bootstrap")));
            EXPECT_THAT(text, Not(HasSubstr("disagg")));
        }
    }
}

TEST(KvConnector, BothSglangsAreToldToMeet) {
    MeetingPlace place{.host = "10.0.0.7", .port = 8998, .engine_id = {}};
    const std::string object = mint_object(KvConnector::kSglang, place, ~0ULL);
    ASSERT_TRUE(check_object(KvConnector::kSglang, object)) << object;
    EXPECT_EQ(object, R"({"bootstrap_host":"10.0.0.7","bootstrap_port":8998,)"
                      R"("bootstrap_room":9223372036854775807})");
    const std::string p =
        body(Dialect::kSglang, KvConnector::kSglang, request(Leg::kPrefill), object);
    const std::string d =
        body(Dialect::kSglang, KvConnector::kSglang, request(Leg::kDecode), object);
    EXPECT_EQ(changed(p, "stream", "true"), d) << "the same but for the stream";
    EXPECT_EQ(at(p, {"stream"}), "false");
    EXPECT_EQ(at(d, {"bootstrap_room"}), "9223372036854775807");
    EXPECT_EQ(at(d, {"bootstrap_host"}), "\"10.0.0.7\"");
    EXPECT_EQ(at(d, {"sampling_params", "max_new_tokens"}), "8");
    for (const char* key : {"bootstrap_host", "bootstrap_port", "bootstrap_room"}) {
        EXPECT_FALSE(check_object(KvConnector::kSglang, changed(object, key, "")));
    }
    place.rank = 3;
    const std::string ranked = mint_object(KvConnector::kSglang, place, 5);
    EXPECT_EQ(at(body(Dialect::kSglang, KvConnector::kSglang, request(Leg::kDecode), ranked),
                 {"disagg_prefill_dp_rank"}),
              "3");
    EXPECT_EQ(at(body(Dialect::kSglang, KvConnector::kSglang, request(Leg::kPrefill), ranked),
                 {"disagg_prefill_dp_rank"}),
              "");
    const auto done = read_prefill_answer(
        KvConnector::kSglang,
        R"({"output_ids":[5],"meta_info":{"finish_reason":{"type":"length"},"cached_tokens":3}})",
        4);
    ASSERT_TRUE(done);
    EXPECT_EQ(done->cached_tokens, 3U);
    EXPECT_FALSE(read_prefill_answer(
        KvConnector::kSglang,
        R"({"output_ids":[],"meta_info":{"finish_reason":{"type":"abort","message":"gone"}}})", 4));
}

TEST(KvConnector, BothMooncakesKnowTheTransfer) {
    const MeetingPlace place{.host = "fd00::7", .port = 8998, .engine_id = "abc_dp0"};
    const std::string object = mint_object(KvConnector::kVllmMooncake, place, 0xABC);
    ASSERT_TRUE(check_object(KvConnector::kVllmMooncake, object)) << object;
    const std::string p =
        body(Dialect::kVllmCompletions, KvConnector::kVllmMooncake, request(Leg::kPrefill), object);
    EXPECT_EQ(at(p, {"kv_transfer_params"}),
              R"({"do_remote_decode":true,"do_remote_prefill":false,)"
              R"("transfer_id":"xfer-0000000000000abc"})");
    const std::string d =
        body(Dialect::kVllmCompletions, KvConnector::kVllmMooncake, request(Leg::kDecode), object);
    EXPECT_EQ(at(d, {"kv_transfer_params", "transfer_id"}), "\"xfer-0000000000000abc\"");
    EXPECT_EQ(at(d, {"kv_transfer_params", "remote_engine_id"}), "\"abc_dp0\"");
    EXPECT_EQ(at(d, {"kv_transfer_params", "remote_bootstrap_addr"}), "\"http://[fd00::7]:8998\"");
    EXPECT_FALSE(check_object(KvConnector::kVllmMooncake,
                              mint_object(KvConnector::kVllmMooncake, {"h", 1, ""}, 1)))
        << "the engine's id is not known";
    EXPECT_EQ(read_mooncake_engine(R"({"0":{"engine_id":"a"},"1":{"engine_id":"b"}})", 1), "b");
    EXPECT_FALSE(read_mooncake_engine(R"({"0":{"engine_id":"a"}})", 1));
    EXPECT_FALSE(read_mooncake_engine("[]", 0));
}

TEST(KvConnector, TensorRtLlmPassesItsFirstTokenOn) {
    const std::string answer =
        R"({"choices":[{"index":0,"finish_reason":"length","text":"a","disaggregated_params":)"
        R"({"request_type":"context_only","first_gen_tokens":[17],"ctx_request_id":5,)"
        R"("encoded_opaque_state":"AAE=","draft_tokens":null,"later":1}}],)"
        R"("usage":{"prompt_tokens":4,"prompt_tokens_details":{"cached_tokens":2}}})";
    const auto read = read_prefill_answer(KvConnector::kTrtllm, answer, 4);
    ASSERT_TRUE(read) << read.error().message;
    EXPECT_EQ(read->cached_tokens, 2U);
    EXPECT_EQ(read->object,
              R"({"request_type":"generation_only","first_gen_tokens":[17],"ctx_request_id":5,)"
              R"("encoded_opaque_state":"AAE=","draft_tokens":null,"later":1})");
    auto r = request(Leg::kPrefill);
    r.cache_salt = 0;
    const std::string p = body(Dialect::kTrtllm, KvConnector::kTrtllm, r);
    EXPECT_EQ(at(p, {"max_tokens"}), "1");
    EXPECT_EQ(at(p, {"min_tokens"}), "1");
    EXPECT_EQ(at(p, {"temperature"}), "0.5") << "its token is the first of the output";
    EXPECT_EQ(at(p, {"disaggregated_params"}), R"({"request_type":"context_only"})");
    EXPECT_EQ(at(p, {"stream_options"}), "");
    r.leg = Leg::kDecode;
    const std::string d = body(Dialect::kTrtllm, KvConnector::kTrtllm, r, read->object);
    EXPECT_EQ(at(d, {"disaggregated_params"}), read->object);
    EXPECT_EQ(at(d, {"max_tokens"}), "8");
    for (const char* key : {"first_gen_tokens", "ctx_request_id", "encoded_opaque_state"}) {
        EXPECT_FALSE(check_object(KvConnector::kTrtllm, changed(read->object, key, ""))) << key;
    }
    std::string ended = answer;
    ended.replace(ended.find("length"), 6, "stop");
    EXPECT_FALSE(read_prefill_answer(KvConnector::kTrtllm, ended, 4));
}

TEST(KvConnector, Names) {
    EXPECT_EQ(kv_connector(EngineKind::kVllm, "NixlConnector"), KvConnector::kVllmNixl);
    EXPECT_EQ(kv_connector(EngineKind::kVllm, "mooncake"), KvConnector::kVllmMooncake);
    EXPECT_EQ(kv_connector(EngineKind::kVllm, "ExampleConnector"), KvConnector::kVllmShared);
    EXPECT_EQ(kv_connector(EngineKind::kVllm, "P2pNcclConnector"), std::nullopt);
    EXPECT_EQ(kv_connector(EngineKind::kSglang, "mooncake"), KvConnector::kSglang);
    EXPECT_EQ(kv_connector(EngineKind::kTrtllm, ""), KvConnector::kTrtllm);
    EXPECT_EQ(kv_connector(EngineKind::kOpenai, "nixl"), std::nullopt);
    EXPECT_EQ(kv_layout_of(KvConnector::kVllmNixl, "0.32.0"), "vllm/nixl/0.32.0");
    EXPECT_EQ(kv_layout_of(KvConnector::kVllmNixl, ""), "vllm/nixl");
    EXPECT_EQ(kv_layout_of(KvConnector::kNone, "0.32.0"), "");
}

}  // namespace
}  // namespace stator::engine
