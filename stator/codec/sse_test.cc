#include "stator/codec/sse.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <vector>

namespace stator::codec {

/// For gtest's messages; found by argument-dependent lookup.
static void PrintTo(const SseReader::Event& e, std::ostream* os) {
    *os << e.type << ": " << e.data;
}

namespace {

using Event = SseReader::Event;
using testing::ElementsAre;
using testing::IsEmpty;

std::vector<Event> drain(SseReader& reader) {
    std::vector<Event> events;
    while (auto e = reader.next()) events.push_back(std::move(*e));
    return events;
}

std::vector<Event> events_of(std::string_view stream) {
    SseReader reader;
    EXPECT_TRUE(reader.feed(stream));
    return drain(reader);
}

TEST(Sse, DataAndTypes) {
    EXPECT_THAT(events_of("data: a\n\ndata:b\n\nevent: error\ndata:  c\n\ndata: d\n\n"),
                ElementsAre(Event{"message", "a"}, Event{"message", "b"}, Event{"error", " c"},
                            Event{"message", "d"}));
}

TEST(Sse, SeveralDataLinesAreJoined) {
    EXPECT_THAT(events_of("data: a\ndata\ndata: b\n\n"), ElementsAre(Event{"message", "a\n\nb"}));
    EXPECT_THAT(events_of("data\ndata\n\n"), ElementsAre(Event{"message", "\n"}));
    EXPECT_THAT(events_of("data:\n\n"), ElementsAre(Event{"message", ""}));
}

TEST(Sse, AllLineEndings) {
    EXPECT_THAT(events_of("data: a\r\rdata: b\r\n\r\ndata: c\n\ndata: d\r\n\rdata: e\r\n\n"),
                ElementsAre(Event{"message", "a"}, Event{"message", "b"}, Event{"message", "c"},
                            Event{"message", "d"}, Event{"message", "e"}));
    EXPECT_THAT(events_of("data: a\r\ndata: b\r\n\r\n"), ElementsAre(Event{"message", "a\nb"}));
    EXPECT_THAT(events_of("data: a\n\rdata: b\n\n"),
                ElementsAre(Event{"message", "a"}, Event{"message", "b"}));
}

TEST(Sse, IgnoresCommentsAndOtherFields) {
    EXPECT_THAT(events_of(": hello\n\n:\nid: 7\nretry: 10\nfoo: bar\ndatax: y\n data: z\n\n"
                          "id: 8\ndata: a\n\n"),
                ElementsAre(Event{"message", "a"}));
}

TEST(Sse, TypeWithoutDataIsForgotten) {
    EXPECT_THAT(events_of("event: x\n\ndata: a\n\nevent\ndata: b\n\n"),
                ElementsAre(Event{"message", "a"}, Event{"message", "b"}));
}

TEST(Sse, UnfinishedEventIsNotGiven) {
    EXPECT_THAT(events_of("data: a"), IsEmpty());
    EXPECT_THAT(events_of("data: a\n"), IsEmpty());
    EXPECT_THAT(events_of(""), IsEmpty());
}

TEST(Sse, ByteOrderMarkOnlyAtTheStart) {
    EXPECT_THAT(events_of("\xEF\xBB\xBF"
                          "data: a\n\n\xEF\xBB\xBF"
                          "data: b\n\n"),
                ElementsAre(Event{"message", "a"}));
}

TEST(Sse, LongLinesAreRefusedForGood) {
    SseReader reader(10);
    ASSERT_TRUE(reader.feed("data: a\n\n"));
    ASSERT_TRUE(reader.feed("data: 1234"));
    const auto r = reader.feed("5");
    ASSERT_FALSE(r);
    EXPECT_EQ(r.error().code, ErrorCode::kTooLarge);
    EXPECT_NE(r.error().message.find("10 bytes"), std::string::npos) << r.error().message;
    EXPECT_FALSE(reader.feed("\n\ndata: b\n\n"));
    EXPECT_THAT(drain(reader), ElementsAre(Event{"message", "a"}));
}

TEST(Sse, LimitsAreExact) {
    SseReader line(10);
    ASSERT_TRUE(line.feed("data: 1234\n\n"));
    EXPECT_FALSE(line.feed("data: 12345\n\n"));
    SseReader event(10);
    ASSERT_TRUE(event.feed("data:12345\ndata:6789\n\n"));  // 5 + 1 + 4
    EXPECT_THAT(drain(event), ElementsAre(Event{"message", "12345\n6789"}));
    ASSERT_TRUE(event.feed("data:12345\n"));
    EXPECT_FALSE(event.feed("data:67890\n"));
    SseReader none(0);
    EXPECT_TRUE(none.feed("\n\n"));
    EXPECT_FALSE(none.feed("x"));
}

TEST(Sse, CommentsDoNotAddUp) {
    SseReader reader(16);
    for (int i = 0; i < 1000; ++i) ASSERT_TRUE(reader.feed(": keep-alive\n"));
    ASSERT_TRUE(reader.feed("data: a\n\n"));
    EXPECT_THAT(drain(reader), ElementsAre(Event{"message", "a"}));
}

RC_GTEST_PROP(SseProperty, AnySplitGivesTheSameEvents, ()) {
    std::string stream;
    const int pieces = *rc::gen::inRange(0, 30);
    for (int i = 0; i < pieces; ++i) {
        stream += *rc::gen::elementOf(std::vector<std::string>{
            "data", "data:", "data: ", "event: x", ":", " ", "a", "\n", "\n\n", "\r", "\r\n",
            "\r\n\r\n", "\xEF\xBB\xBF", "id: 1", "\xEF\xBB", "data: some text"});
    }
    const std::size_t limit = *rc::gen::elementOf(std::vector<std::size_t>{8, 20, 1000});
    SseReader whole(limit);
    const bool whole_good = whole.feed(stream).has_value();
    const auto expected = drain(whole);

    SseReader split(limit);
    std::vector<Event> seen;
    bool good = true;
    for (std::size_t at = 0; at < stream.size();) {
        const auto n = *rc::gen::inRange<std::size_t>(1, 6);
        good = split.feed(stream.substr(at, n)).has_value();
        at += n;
        for (Event& e : drain(split)) seen.push_back(std::move(e));
    }
    RC_ASSERT(good == whole_good);
    RC_ASSERT(seen == expected);
}

/// The definition in the standard, followed step by step on the whole stream.
std::vector<Event> naive_events(std::string s) {
    if (s.starts_with("\xEF\xBB\xBF")) s.erase(0, 3);
    std::vector<std::string> lines(1);
    for (std::size_t i = 0; i < s.size(); ++i) {
        if (s[i] != '\r' && s[i] != '\n') {
            lines.back() += s[i];
            continue;
        }
        if (s[i] == '\r' && i + 1 < s.size() && s[i + 1] == '\n') ++i;
        lines.emplace_back();
    }
    lines.pop_back();  // what no line end follows
    std::vector<Event> events;
    std::string type;
    std::string data;
    for (const std::string& line : lines) {
        if (line.empty()) {
            if (!data.empty()) {
                data.pop_back();
                events.push_back({type.empty() ? "message" : type, data});
            }
            data.clear();
            type.clear();
            continue;
        }
        const std::size_t colon = line.find(':');
        const std::string field = line.substr(0, colon);
        std::string value = colon == std::string::npos ? "" : line.substr(colon + 1);
        if (!value.empty() && value[0] == ' ') value.erase(0, 1);
        if (field == "event") type = value;
        if (field == "data") data += value + '\n';
    }
    return events;
}

RC_GTEST_PROP(SseProperty, AgreesWithTheDefinition, ()) {
    std::string stream;
    const int pieces = *rc::gen::inRange(0, 40);
    for (int i = 0; i < pieces; ++i) {
        stream += *rc::gen::elementOf(
            std::vector<std::string>{"data", ":", " ", "event", "a", "b:", "\n", "\r", "\r\n",
                                     "\xEF\xBB\xBF", "data: x\n", "event:e\r", "\n\n"});
    }
    SseReader reader;
    RC_ASSERT(reader.feed(stream).has_value());
    RC_ASSERT(drain(reader) == naive_events(stream));
}

}  // namespace
}  // namespace stator::codec
