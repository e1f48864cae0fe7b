#include <fmt/format.h>
#include <unistd.h>

#include <charconv>
#include <cstdlib>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "stator/base/clock.h"
#include "stator/cli/chat_client.h"
#include "stator/cli/chat_input.h"
#include "stator/cli/command_line.h"
#include "stator/cli/commands.h"
#include "stator/cli/help.h"
#include "stator/cli/terminal.h"
#include "stator/config/suggest.h"
#include "stator/config/value.h"

namespace stator::cli {
namespace {

constexpr std::size_t kMaxPrompt = 16 * 1024 * 1024;

struct ChatFlags {
    std::string url = "http://127.0.0.1:8000";
    std::string model;
    std::string system;
    std::string temperature;
    std::string max_tokens;
    std::string api_key;
    std::vector<std::string> words;
};

template <typename T>
Result<std::optional<T>> number_flag(std::string_view flag, const std::string& text, T low,
                                     T high) {
    if (text.empty()) return std::nullopt;
    T value{};
    const auto [end, ec] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (ec == std::errc() && end == text.data() + text.size() && value >= low && value <= high)
        return value;
    return error(ErrorCode::kInvalidArgument,
                 "{}: {} is not possible here; it must be a number from "
                 "{} to {}",
                 flag, config::in_quotes(text), low, high);
}

/// One conversation with one server.
class Conversation {
  public:
    Conversation(ChatServer server, ChatQuestion question, std::string system)
        : server_(std::move(server)), question_(std::move(question)), system_(std::move(system)) {
        reset();
    }

    void reset() {
        question_.messages.clear();
        if (!system_.empty()) question_.messages.push_back({"system", system_});
    }
    void set_system(std::string text) {
        system_ = std::move(text);
        reset();
    }
    [[nodiscard]] const std::string& model() const { return question_.model; }

    /// Asks and keeps question and answer; after an error the conversation is as it was before.
    Result<ChatAnswer> say(std::string text, const std::function<void(std::string_view)>& on_text,
                           const std::function<bool()>& cancelled) {
        question_.messages.push_back({"user", std::move(text)});
        auto answer = ask(server_, question_, on_text, cancelled, Clock::real());
        if (answer && !answer->text.empty()) {
            question_.messages.push_back({"assistant", answer->text});
        } else {
            question_.messages.pop_back();
        }
        return answer;
    }

  private:
    ChatServer server_;
    ChatQuestion question_;
    std::string system_;
};

/// What the caller got wrong is wrong usage, what the server did is not.
ExitCode exit_code_of(const Error& error) {
    return error.code == ErrorCode::kInvalidArgument ? ExitCode::kUsage : ExitCode::kFailed;
}

ExitCode answer_once(Conversation& conversation, std::string prompt) {
    const bool terminal = is_terminal(STDOUT_FILENO);
    const Interrupts interrupts;
    const auto answer = conversation.say(
        std::move(prompt),
        [terminal](std::string_view text) { print_out(terminal ? printable(text) : text); },
        [&interrupts] { return interrupts.count() > 0; });
    if (!answer) {
        print_problem(answer.error());
        return exit_code_of(answer.error());
    }
    if (!answer->text.ends_with('\n')) print_out("\n");
    if (terminal) {
        const Style style = style_of(STDERR_FILENO);
        print_err(fmt::format("{}{}{}\n", style.dim, answer_statistics(*answer), style.reset));
    }
    return answer->cancelled ? ExitCode::kFailed : ExitCode::kDone;
}

/// Questions and answers in turn on a terminal.
class Repl {
  public:
    explicit Repl(Conversation& conversation)
        : conversation_(conversation), style_(style_of(STDOUT_FILENO)) {}

    void run() {
        print_out(fmt::format("{}{}{}, at your service. /help shows what else there is.\n",
                              style_.bold, conversation_.model(), style_.reset));
        MessageLines message;
        std::string line;
        while (!leave_) {
            print_out(
                fmt::format("{}{}{} ", style_.bold, message.empty() ? ">" : ".", style_.reset));
            switch (lines_.read(line)) {
                case LineReader::Outcome::kEnd:
                    print_out("\n");
                    return;
                case LineReader::Outcome::kInterrupted:
                    interrupted(message);
                    continue;
                case LineReader::Outcome::kLine:
                    break;
            }
            interrupts_.clear();
            if (!message.add(line)) continue;
            take(message.take());
        }
    }

  private:
    void interrupted(MessageLines& message) {
        static_cast<void>(message.take());
        if (interrupts_.count() > 1) {
            leave_ = true;
            print_out("\n");
            return;
        }
        print_out("\n(Ctrl-C once more, or /quit, to leave)\n");
    }

    void take(std::string text) {
        const auto first = text.find_first_not_of(" \t\n");
        if (first == std::string::npos) return;
        if (text[first] == '/') {
            command(std::string_view(text).substr(first));
        } else {
            answer(std::move(text));
        }
    }

    void command(std::string_view text) {
        const auto blank = std::min(text.find(' '), text.size());
        const std::string_view word = text.substr(0, blank);
        const std::string_view rest = text.substr(std::min(blank + 1, text.size()));
        if (word == "/quit" || word == "/exit") {
            leave_ = true;
        } else if (word == "/reset") {
            conversation_.reset();
            print_out("The conversation begins anew.\n");
        } else if (word == "/system") {
            conversation_.set_system(std::string(rest));
            print_out(rest.empty() ? "No system message any more; the conversation begins anew.\n"
                                   : "Noted; the conversation begins anew.\n");
        } else if (word == "/help") {
            print_out(help_entry("/reset", "forget the conversation") +
                      help_entry("/system TEXT", "change what the model is told, and begin anew") +
                      help_entry("/quit or Ctrl-D", "leave") +
                      help_entry("Ctrl-C", "stop the answer; once more: leave") +
                      help_entry("\\ at a line's end", "the message goes on in the next line"));
        } else {
            constexpr std::array<std::string_view, 4> kWords{"/help", "/reset", "/system", "/quit"};
            print_out(fmt::format("There is no command {}.{}\n", config::in_quotes(word),
                                  config::did_you_mean(word, kWords)));
        }
    }

    void answer(std::string text) {
        interrupts_.clear();
        const auto answer = conversation_.say(
            std::move(text), [](std::string_view piece) { print_out(printable(piece)); },
            [this] { return interrupts_.count() > 0; });
        if (interrupts_.count() > 1) leave_ = true;
        interrupts_.clear();
        if (!answer) {
            print_problem(answer.error());
            return;
        }
        print_out(fmt::format("{}{}{}{}\n", answer->text.ends_with('\n') ? "" : "\n", style_.dim,
                              answer_statistics(*answer), style_.reset));
    }

    Conversation& conversation_;
    Style style_;
    Interrupts interrupts_;
    LineReader lines_{STDIN_FILENO};
    bool leave_ = false;
};

ExitCode chat(const ChatFlags& flags, ChatQuestion question) {
    ChatServer server{flags.url, flags.api_key};
    if (const char* key = std::getenv("STATOR_API_KEY"); server.api_key.empty() && key != nullptr)
        server.api_key = key;
    if (question.model.empty()) {
        auto model = first_model(server);
        if (!model) {
            print_problem(model.error());
            return exit_code_of(model.error());
        }
        question.model = std::move(*model);
    }
    Conversation conversation(std::move(server), std::move(question), flags.system);
    if (!flags.words.empty())
        return answer_once(conversation, fmt::format("{}", fmt::join(flags.words, " ")));
    if (!is_terminal(STDIN_FILENO)) {
        std::string prompt = read_all(STDIN_FILENO, kMaxPrompt);
        if (prompt.empty()) {
            print_problem("There is no prompt: standard input is empty.");
            return ExitCode::kUsage;
        }
        return answer_once(conversation, std::move(prompt));
    }
    Repl(conversation).run();
    return ExitCode::kDone;
}

}  // namespace

ExitCode run_chat(const Invocation& invocation) {
    CommandLine line("stator chat");
    ChatFlags flags;
    line.add_value("--url", flags.url);
    line.add_value("--model", flags.model);
    line.add_value("--system", flags.system);
    line.add_value("--temperature", flags.temperature);
    line.add_value("--max-tokens", flags.max_tokens);
    line.add_value("--api-key", flags.api_key);
    line.add_words(flags.words);
    const auto outcome = line.parse(invocation.args);
    if (!outcome) {
        print_problem(outcome.error());
        return ExitCode::kUsage;
    }
    if (*outcome == CommandLine::Outcome::kHelp) {
        print_out(chat_help(style_of(STDOUT_FILENO)));
        return ExitCode::kDone;
    }
    ChatQuestion question;
    question.model = flags.model;
    const auto temperature = number_flag<double>("--temperature", flags.temperature, 0.0, 2.0);
    const auto max_tokens =
        number_flag<std::uint32_t>("--max-tokens", flags.max_tokens, 1, 1'000'000'000);
    if (!temperature || !max_tokens) {
        print_problem(temperature ? max_tokens.error() : temperature.error());
        return ExitCode::kUsage;
    }
    question.temperature = *temperature;
    question.max_tokens = *max_tokens;
    return chat(flags, std::move(question));
}

}  // namespace stator::cli
