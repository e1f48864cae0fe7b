#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace stator::cli {

/// Puts a message together from lines: a backslash at a line's end joins the next one.
class MessageLines {
  public:
    /// True once the message is whole.
    bool add(std::string_view line);
    [[nodiscard]] bool empty() const { return text_.empty(); }
    /// The whole message; begins the next one.
    [[nodiscard]] std::string take();

  private:
    std::string text_;
};

/// `text` without characters that steer a terminal (control characters but line feed and tab): what
/// a model writes must not be able to.
[[nodiscard]] std::string printable(std::string_view text);

/// Lines of a descriptor, woken by signals (unlike std::getline).
class LineReader {
  public:
    explicit LineReader(int descriptor) : descriptor_(descriptor) {}
    enum class Outcome : unsigned char { kLine, kEnd, kInterrupted };
    /// A line without its end. A signal that arrives while waiting gives kInterrupted and drops
    /// what was typed. A line is cut at 1 MiB.
    [[nodiscard]] Outcome read(std::string& line);

  private:
    static constexpr std::size_t kMaxLine = 1024 * 1024;
    int descriptor_;
    std::string buffer_;
};

/// Everything until the end, at most `max_bytes` of it.
[[nodiscard]] std::string read_all(int descriptor, std::size_t max_bytes);

/// SIGINT as a count that a program looks at; system calls that wait are woken. One instance at a
/// time.
class Interrupts {
  public:
    Interrupts();
    ~Interrupts();  ///< SIGINT does again what it did before
    Interrupts(const Interrupts&) = delete;
    Interrupts& operator=(const Interrupts&) = delete;

    /// How many since clear().
    [[nodiscard]] int count() const;
    void clear();
};

}  // namespace stator::cli
