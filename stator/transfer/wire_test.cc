#include "stator/transfer/wire.h"

#include <gtest/gtest.h>
#include <rapidcheck.h>

#include <vector>

#include "stator/transfer/place.h"

namespace stator::transfer {
namespace {

std::vector<Message> one_of_each() {
    PlaneId id{};
    for (std::size_t i = 0; i < id.size(); ++i) id[i] = static_cast<std::uint8_t>(i * 7);
    Nonce nonce{};
    nonce[31] = 9;
    return {Hello{.plane = id, .nonce = nonce},
            Welcome{.prove = 1, .nonce = nonce},
            Proof{nonce},
            Claim{.request = 1, .id = id, .key = id, .push_from = 3, .push_bytes = 4, .check = 1},
            Grant{.request = 1, .grant = 2, .offset = 3, .bytes = 4, .arena_bytes = 5},
            Refusal{.request = 6, .code = 4, .text = "gone"},
            Fetch{.grant = 1, .offset = 2, .bytes = 3, .check = 1},
            Chunk{.grant = 1, .offset = 2, .bytes = 3, .checked = 1, .check = 4},
            Done{7},
            Release{id},
            Write{.grant = 1,
                  .metadata = std::string("a\0b", 3),
                  .ranges = {{.offset = 1, .bytes = 2, .address = 3}, {}}},
            Written{.grant = 1, .code = 2, .text = "no"}};
}

TEST(TransferWire, SaysTheSameWhenItIsReadInAnyPieces) {
    const auto messages = one_of_each();
    ASSERT_EQ(messages.size(), std::variant_size_v<Message>);
    std::string bytes;
    for (const Message& m : messages) append_message(bytes, m);
    for (std::size_t piece : {1UL, 3UL, 7UL, 64UL, bytes.size()}) {
        std::string held;
        std::vector<Message> read;
        for (std::size_t at = 0; at < bytes.size(); at += piece) {
            held += bytes.substr(at, piece);
            std::string_view view(held);
            while (true) {
                auto message = take_message(view);
                ASSERT_TRUE(message) << message.error().message;
                if (!*message) break;
                read.push_back(**message);
            }
            held = view;
        }
        EXPECT_EQ(read, messages);
        EXPECT_TRUE(held.empty());
    }
}

TEST(TransferWire, RefusesWhatIsLongerOrShorterThanItsType) {
    for (const Message& m : one_of_each()) {
        for (const int change : {-1, 1}) {
            std::string bytes;
            append_message(bytes, m);
            bytes.resize(static_cast<std::size_t>(static_cast<int>(bytes.size()) + change), '\0');
            bytes[0] = static_cast<char>(bytes[0] + change);
            std::string_view view(bytes);
            EXPECT_FALSE(take_message(view)) << "type " << m.index() + 1;
        }
    }
}

TEST(TransferWire, RefusesLengthsThatNothingBacks) {
    std::string bytes;
    append_message(bytes, Done{1});
    for (const char type : {'\0', '\x0d', '\x7f'}) {
        std::string other = bytes;
        other[4] = type;
        std::string_view view(other);
        EXPECT_FALSE(take_message(view));
    }
    std::string huge = bytes;
    huge[3] = '\x7f';
    std::string_view view(huge);
    EXPECT_FALSE(take_message(view));
    // A list that says it has more ranges than bytes follow.
    std::string write;
    append_message(write, Write{.grant = 1, .metadata = {}, .ranges = {}});
    write[write.size() - 4] = '\x10';
    std::string_view of_write(write);
    EXPECT_FALSE(take_message(of_write));
    std::string chunk;
    append_message(chunk, Chunk{.grant = 1, .offset = 0, .bytes = kMaxChunkBytes + 1});
    std::string_view of_chunk(chunk);
    EXPECT_FALSE(take_message(of_chunk));
}

TEST(TransferWire, IsNotBrokenByAnyBytes) {
    EXPECT_TRUE(rc::check([](std::string bytes, bool plausible) {
        if (plausible && bytes.size() >= 8) {
            bytes[0] = static_cast<char>(bytes.size() - 8);
            bytes[1] = bytes[2] = bytes[3] = bytes[5] = bytes[6] = bytes[7] = '\0';
            bytes[4] = static_cast<char>(bytes[4] % 13);
        }
        std::string_view view(bytes);
        const auto message = take_message(view);
        if (message && *message) {
            std::string again;
            append_message(again, **message);
            RC_ASSERT(again == bytes.substr(0, bytes.size() - view.size()));
        }
    }));
}

TEST(TransferPlace, IsReadAsItWasWritten) {
    const ShmPlace shm{.host = "boot/net:[1]", .plane = {1, 2, 3}};
    EXPECT_EQ(parse_shm_place(to_string(shm)), shm);
    TcpPlace tcp{.plane = {4, 255}, .tls = true, .address = {}};
    tcp.address.host = "::1";
    tcp.address.port = 443;
    EXPECT_EQ(parse_tcp_place(to_string(tcp)), tcp);
    for (const char* wrong : {"", "1", "2;a;b", "1;;", "1;x;plain;tcp://h:1",
                              "1;00000000000000000000000000000000;maybe;tcp://h:1",
                              "1;00000000000000000000000000000000;plain;tcp://h:0",
                              "1;00000000000000000000000000000000;plain;unix:/x"}) {
        EXPECT_FALSE(parse_shm_place(wrong)) << wrong;
        EXPECT_FALSE(parse_tcp_place(wrong)) << wrong;
    }
}

}  // namespace
}  // namespace stator::transfer
