#include "stator/cli/chat_input.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <array>
#include <csignal>

namespace stator::cli {
namespace {

TEST(MessageLines, BackslashGoesOn) {
    MessageLines m;
    EXPECT_TRUE(m.empty());
    EXPECT_TRUE(m.add("one"));
    EXPECT_EQ(m.take(), "one");
    EXPECT_FALSE(m.add("a\\"));
    EXPECT_FALSE(m.empty());
    EXPECT_FALSE(m.add("\\"));
    EXPECT_TRUE(m.add("b"));
    EXPECT_EQ(m.take(), "a\n\nb");
    EXPECT_TRUE(m.empty());
}

TEST(Printable, ModelsCannotSteerTheTerminal) {
    EXPECT_EQ(printable("a\tb\nc"), "a\tb\nc");
    EXPECT_EQ(printable("\x1b[31mred\x07\r\x7f"), "[31mred");
    EXPECT_EQ(printable("\xc2\x9b"
                        "31m"),
              "31m");
    EXPECT_EQ(printable("caf\xc3\xa9 \xc2\xa0"), "caf\xc3\xa9 \xc2\xa0");
    EXPECT_EQ(printable("\xc2"), "\xc2");
}

class Pipe : public ::testing::Test {
  protected:
    void SetUp() override { ASSERT_EQ(::pipe(ends_.data()), 0); }
    void TearDown() override {
        ::close(ends_[0]);
        if (ends_[1] >= 0) ::close(ends_[1]);
    }
    void write(std::string_view text) {
        ASSERT_EQ(::write(ends_[1], text.data(), text.size()), static_cast<ssize_t>(text.size()));
    }
    void end() {
        ::close(ends_[1]);
        ends_[1] = -1;
    }
    std::array<int, 2> ends_{};
};

TEST_F(Pipe, LinesInAnyPieces) {
    LineReader reader(ends_[0]);
    std::string line;
    write("one\r\ntw");
    EXPECT_EQ(reader.read(line), LineReader::Outcome::kLine);
    EXPECT_EQ(line, "one");
    write("o\n\nlast");
    EXPECT_EQ(reader.read(line), LineReader::Outcome::kLine);
    EXPECT_EQ(line, "two");
    EXPECT_EQ(reader.read(line), LineReader::Outcome::kLine);
    EXPECT_EQ(line, "");
    end();
    EXPECT_EQ(reader.read(line), LineReader::Outcome::kLine);
    EXPECT_EQ(line, "last");
    EXPECT_EQ(reader.read(line), LineReader::Outcome::kEnd);
}

TEST_F(Pipe, ReadAllStopsAtItsBound) {
    write("0123456789");
    end();
    EXPECT_EQ(read_all(ends_[0], 4), "0123");
}

TEST(Interrupts, AreCounted) {
    Interrupts interrupts;
    EXPECT_EQ(interrupts.count(), 0);
    std::raise(SIGINT);
    std::raise(SIGINT);
    EXPECT_EQ(interrupts.count(), 2);
    interrupts.clear();
    EXPECT_EQ(interrupts.count(), 0);
}

}  // namespace
}  // namespace stator::cli
