#include "stator/engine/kv_feed/engine_event.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include "stator/codec/msgpack.h"
#include "stator/engine/kv_feed/engine_feed_fixture.h"

namespace stator::engine {
namespace {

using codec::JsonView;
using codec::MsgpackWriter;
using testing::ElementsAre;
using testing::IsEmpty;
using Kind = EngineKvEvent::Kind;

/// A field of an event as the recording's own decoder saw it: by name, or by place.
JsonView field_of(JsonView event, std::string_view name, std::size_t place) {
    if (event.type() == codec::JsonType::kObject) return event.find(name);
    JsonView out;
    event.each_element([&](std::size_t i, JsonView v) {
        if (i == place) out = v;
        return i < place;
    });
    return out;
}

std::uint64_t bits_of(JsonView v) {
    if (const auto u = v.as_uint()) return *u;
    if (const auto i = v.as_int()) return static_cast<std::uint64_t>(*i);
    // "bytes:<hex>": the last 8.
    const auto text = v.as_string().value();
    return std::stoull(std::string(text.substr(text.size() - 16)), nullptr, 16);
}

void expect_same(const EngineKvEvent& e, JsonView expected) {
    const auto type = field_of(expected, "type", 0).as_string().value();
    ASSERT_EQ(e.kind, type == "BlockStored"    ? Kind::kStored
                      : type == "BlockRemoved" ? Kind::kRemoved
                                               : Kind::kCleared);
    if (e.kind == Kind::kCleared) return;
    std::vector<std::uint64_t> hashes;
    field_of(expected, "block_hashes", 1).each_element([&](std::size_t, JsonView v) {
        hashes.push_back(bits_of(v));
        return true;
    });
    EXPECT_EQ(e.hashes, hashes);
    const bool stored = e.kind == Kind::kStored;
    EXPECT_EQ(e.medium, field_of(expected, "medium", stored ? 6 : 2).as_string().value_or(""));
    if (!stored) return;
    const JsonView parent = field_of(expected, "parent_block_hash", 2);
    EXPECT_EQ(e.parent.has_value(), !parent.is_null());
    if (e.parent) EXPECT_EQ(*e.parent, bits_of(parent));
    std::vector<tokens::TokenId> tokens;
    field_of(expected, "token_ids", 3).each_element([&](std::size_t, JsonView v) {
        tokens.push_back(static_cast<tokens::TokenId>(v.as_uint().value()));
        return true;
    });
    EXPECT_EQ(e.tokens, tokens);
    EXPECT_EQ(e.block_tokens, field_of(expected, "block_size", 4).as_uint());
    EXPECT_EQ(e.lora, field_of(expected, "lora_name", 7).as_string().value_or(""));
    EXPECT_EQ(e.salt, expected.find("cache_salt").as_string().value_or(""));
    EXPECT_EQ(e.spec_kind, field_of(expected, "kv_cache_spec_kind", 10).as_string().value_or(""));
    EXPECT_EQ(e.has_extra_keys, field_of(expected, "extra_keys", 8).present());
    std::size_t keys = 0;
    field_of(expected, "extra_keys", 8).each_element([&](std::size_t block, JsonView list) {
        list.each_element([&](std::size_t, JsonView key) {
            const EngineExtraKey& got = e.extra.at(keys++);
            EXPECT_EQ(got.block, block);
            const bool pair = key.type() == codec::JsonType::kArray;
            EXPECT_EQ(got.offset.has_value(), pair);
            EXPECT_EQ(got.text, (pair ? field_of(key, "", 0) : key).as_string());
            if (pair) EXPECT_EQ(got.offset, field_of(key, "", 1).as_int());
            return true;
        });
        return true;
    });
    EXPECT_EQ(e.extra.size(), keys);
}

class Recorded : public testing::TestWithParam<const char*> {};

TEST_P(Recorded, IsReadAsItsOwnEngineWouldReadIt) {
    const std::string name = GetParam();
    const auto messages = recorded_messages(name + ".bin");
    if (messages.empty()) GTEST_SKIP() << "STATOR_DATA has no recordings of engines";
    std::istringstream lines(recorded_file(name + ".decoded.jsonl"));
    codec::JsonDocument document;
    EngineKvBatch batch;
    std::size_t events = 0;
    for (const RecordedMessage& message : messages) {
        std::string line;
        ASSERT_TRUE(std::getline(lines, line));
        const auto said = document.parse(line);
        ASSERT_TRUE(said) << said.error().message;
        const JsonView expected = said->find("batch");
        if (message.frames.back().empty()) {  // the end of a replay
            EXPECT_TRUE(expected.is_null());
            continue;
        }
        const auto ok = read_engine_batch(message.frames.back(), batch);
        ASSERT_TRUE(ok) << ok.error().message;
        EXPECT_EQ(batch.time, field_of(expected, "", 0).as_double());
        EXPECT_EQ(batch.rank, field_of(expected, "", 2).as_uint());
        const JsonView list = field_of(expected, "", 1);
        ASSERT_EQ(batch.events().size(), list.size());
        list.each_element([&](std::size_t i, JsonView e) {
            expect_same(batch.events()[i], e);
            ++events;
            return true;
        });
    }
    EXPECT_TRUE(events > 0 || name.ends_with("beyond"));
}

INSTANTIATE_TEST_SUITE_P(
    Engines, Recorded,
    testing::Values(
        "vllm032_kv_events_map_int_pub", "vllm032_kv_events_map_int_replay0",
        "vllm032_kv_events_map_int_replay5", "vllm032_kv_events_map_int_replay_beyond",
        "vllm014_kv_events_array_int_pub", "vllm014_kv_events_array_int_replay0",
        "vllm014_kv_events_array_int_replay5", "vllm014_kv_events_array_int_replay_beyond",
        "vllm032_pd_kv_events_both", "vllm032_vl_kv_events", "vllm032_dp2_kv_events",
        "vllm032_dp2_replay_rank1", "sglang0523_kv_events_map_default_pub",
        "sglang0523_kv_events_map_default_replay0", "sglang0523_kv_events_map_default_replay3",
        "sglang0523_kv_events_map_dynamo_pub", "sglang0523_kv_events_map_dynamo_replay0",
        "sglang0523_kv_events_map_dynamo_replay3"),
    [](const auto& info) { return std::string(info.param); });

std::string batch_of(const std::function<void(MsgpackWriter&)>& event) {
    std::string out;
    MsgpackWriter w(out);
    w.array(2).real(1.5).array(1);
    event(w);
    return out;
}

EngineKvEvent only(const std::string& payload, EngineKvBatch& batch) {
    const auto ok = read_engine_batch(payload, batch);
    EXPECT_TRUE(ok) << ok.error().message;
    EXPECT_EQ(batch.events().size(), 1U);
    return batch.events()[0];
}

TEST(EngineEvent, Vllm09HasFiveFields) {
    EngineKvBatch batch;
    const auto payload = batch_of([](MsgpackWriter& w) {
        w.array(6).string("BlockStored").array(1).number(7).nil().array(2).number(1).number(2);
        w.number(2).nil();
    });
    const auto e = only(payload, batch);
    EXPECT_EQ(e.kind, Kind::kStored);
    EXPECT_THAT(e.hashes, ElementsAre(7));
    EXPECT_THAT(e.tokens, ElementsAre(1, 2));
    EXPECT_EQ(e.medium, "");
    EXPECT_FALSE(e.has_extra_keys);
    EXPECT_FALSE(batch.rank);
}

TEST(EngineEvent, SglangsArraysHaveAMapBehindTheMemory) {
    EngineKvBatch batch;
    const auto payload = batch_of([](MsgpackWriter& w) {
        w.array(8).string("BlockStored").array(1).integer(-7).integer(-8).array(1).number(5);
        w.number(1).nil().string("CPU_TIER1");
        w.map(3).string("cache_salt").string("s").string("new").map(1).string("a").nil();
        w.string("metadata").map(1).string("cache_salt").string("other");
    });
    const auto e = only(payload, batch);
    EXPECT_EQ(e.kind, Kind::kStored);
    EXPECT_EQ(e.hashes.at(0), static_cast<std::uint64_t>(-7));
    EXPECT_EQ(e.parent, static_cast<std::uint64_t>(-8));
    EXPECT_EQ(e.salt, "s");
    EXPECT_EQ(e.medium, "CPU_TIER1");
}

TEST(EngineEvent, BinaryHashesAreTheirLastEightBytes) {
    EngineKvBatch batch;
    std::string digest(32, '\x01');
    digest[31] = 2;
    const auto payload = batch_of([&](MsgpackWriter& w) {
        w.map(2).string("type").string("BlockRemoved").string("block_hashes").array(1);
        w.binary(digest);
    });
    EXPECT_THAT(only(payload, batch).hashes, ElementsAre(0x0101010101010102));
}

TEST(EngineEvent, WhatIsNotKnownIsPassedOver) {
    EngineKvBatch batch;
    const auto payload = batch_of([](MsgpackWriter& w) {
        w.map(4).string("type").string("BlockStored").string("block_hashes").array(1).number(1);
        w.string("future").map(1).string("deep").array(2).nil().real(1);
        w.string("token_ids").array(2).string("a").number(3);
    });
    const auto e = only(payload, batch);
    EXPECT_EQ(e.kind, Kind::kStored);
    EXPECT_FALSE(e.tokens_known);
    const auto inactive = batch_of([](MsgpackWriter& w) {
        w.map(2).string("type").string("BlockInactive").string("block_hashes").array(0);
    });
    EXPECT_EQ(only(inactive, batch).kind, Kind::kUnknown);
    const auto odd = batch_of([](MsgpackWriter& w) {
        w.map(2).string("type").string("BlockRemoved").string("block_hashes").array(1).string("x");
    });
    EXPECT_EQ(only(odd, batch).kind, Kind::kUnknown);
    EXPECT_EQ(only(batch_of([](MsgpackWriter& w) { w.number(1); }), batch).kind, Kind::kUnknown);
}

TEST(EngineEvent, BrokenBytesAreAnErrorAndLeaveNothing) {
    EngineKvBatch batch;
    const auto whole = batch_of([](MsgpackWriter& w) {
        w.map(2).string("type").string("BlockRemoved").string("block_hashes").array(1).number(1);
    });
    for (std::size_t n = 0; n < whole.size(); ++n) {
        EXPECT_FALSE(read_engine_batch(std::string_view(whole).substr(0, n), batch)) << n;
        EXPECT_THAT(batch.events(), IsEmpty());
    }
    // Metadata in metadata without end is no way to the stack's end.
    std::string deep;
    MsgpackWriter w(deep);
    w.array(2).real(0).array(1).array(8).string("BlockStored").array(0).nil().array(0);
    w.number(1).nil().nil();
    for (int i = 0; i < 100'000; ++i) w.map(1).string("lora_name");
    EXPECT_FALSE(read_engine_batch(deep, batch));
}

RC_GTEST_PROP(EngineEvent, AnyBytesAreABatchOrAnError, (const std::string& bytes)) {
    EngineKvBatch batch;
    if (!read_engine_batch(bytes, batch)) RC_ASSERT(batch.events().empty());
}

}  // namespace
}  // namespace stator::engine
