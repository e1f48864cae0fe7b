#include "stator/transfer/transfer_fixture.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cstdlib>
#include <cstring>
#include <sstream>
#include <thread>

namespace stator::transfer {
namespace {

constexpr const char* kPeerVariable = "STATOR_TRANSFER_TEST_PEER";

std::uint64_t word_at(std::uint64_t seed, std::uint64_t index) {
    std::uint64_t x = (index + 1) * 0x9E3779B97F4A7C15ULL + seed * 0xBF58476D1CE4E5B9ULL;
    x ^= x >> 29;
    return x;
}

std::string printed(const protocol::Handoff& what) {
    std::ostringstream out;
    for (const auto b : what.id) out << static_cast<int>(b) << ' ';
    out << what.bytes << ' ' << what.parts.size() << ' ' << what.places.size();
    for (const auto& place : what.places) out << ' ' << place.method << ' ' << place.address;
    return out.str();
}

std::shared_ptr<const protocol::Handoff> read_handoff(std::istream& in) {
    auto what = std::make_shared<protocol::Handoff>();
    for (auto& b : what->id) {
        int n = 0;
        in >> n;
        b = static_cast<std::uint8_t>(n);
    }
    std::uint32_t parts = 0;
    std::size_t places = 0;
    in >> what->bytes >> parts >> places;
    what->parts = cut(what->bytes, parts);
    what->places.resize(places);
    for (auto& place : what->places) in >> place.method >> place.address;
    return what;
}

void write_line(int fd, std::string line) {
    line += '\n';
    std::size_t sent = 0;
    while (sent < line.size()) {
        const ssize_t n = ::send(fd, line.data() + sent, line.size() - sent, MSG_NOSIGNAL);
        if (n <= 0) return;
        sent += static_cast<std::size_t>(n);
    }
}

bool read_line(int fd, std::string& line) {
    line.clear();
    char c = 0;
    while (::read(fd, &c, 1) == 1) {
        if (c == '\n') return true;
        line += c;
    }
    return false;
}

std::vector<std::string> split(const std::string& text, char by) {
    std::vector<std::string> out;
    std::istringstream in(text);
    for (std::string item; std::getline(in, item, by);) out.push_back(item);
    return out;
}

/// Does what PeerProcess asks for until it closes its end.
void serve(int fd, const WayOptions& way) {
    metrics::Registry registry;
    auto plane = start_transfer(transfer_options(way), registry);
    ASSERT_TRUE(plane) << plane.error().message;
    std::vector<std::shared_ptr<const protocol::HandoffBytes>> kept;
    for (std::string line; read_line(fd, line);) {
        std::istringstream in(line);
        std::string verb;
        std::uint64_t seed = 0;
        in >> verb >> seed;
        if (verb == "offer") {
            std::uint64_t bytes = 0;
            std::uint32_t parts = 0;
            in >> bytes >> parts;
            auto what = offer(**plane, bytes, parts, seed);
            write_line(fd, what ? "ok " + printed(**what)
                                : "error " + std::to_string(static_cast<int>(what.error().code)) +
                                      " " + what.error().message);
        } else if (verb == "claim") {
            auto bytes = claim_now(**plane, read_handoff(in));
            if (bytes && right(**bytes, seed)) {
                kept.push_back(*bytes);
                write_line(fd, "ok");
            } else {
                write_line(fd, bytes ? "wrong bytes" : bytes.error().message);
            }
        } else if (verb == "let_go") {
            kept.clear();
            write_line(fd, "ok");
        } else {
            write_line(fd, std::to_string((*plane)->usage().unclaimed_bytes) + " " +
                               std::to_string(
                                   static_cast<int>(metric(registry, "stator_transfer_granted"))) +
                               " " +
                               std::to_string(static_cast<std::uint64_t>(
                                   metric(registry, "stator_transfer_memory_bytes"))));
        }
    }
    (*plane)->stop();
}

}  // namespace

std::vector<protocol::HandoffPart> cut(std::uint64_t bytes, std::uint32_t n) {
    std::vector<protocol::HandoffPart> parts;
    for (std::uint32_t i = 0; i < n; ++i) {
        const std::uint64_t size = i + 1 < n ? bytes / n : bytes - bytes / n * (n - 1);
        parts.push_back({.first = i, .tokens = 1, .offset = bytes / n * i, .bytes = size});
    }
    return parts;
}

void fill(std::span<std::byte> bytes, std::uint64_t seed) {
    for (std::size_t at = 0; at < bytes.size(); at += 8) {
        const std::uint64_t word = word_at(seed, at / 8);
        std::memcpy(bytes.data() + at, &word, std::min<std::size_t>(8, bytes.size() - at));
    }
}

bool holds(std::span<const std::byte> bytes, std::uint64_t offset, std::uint64_t seed) {
    std::size_t i = 0;
    while (i < bytes.size()) {
        const std::uint64_t at = offset + i;
        const std::uint64_t word = word_at(seed, at / 8);
        const std::size_t skip = at % 8;
        const std::size_t n = std::min<std::size_t>(8 - skip, bytes.size() - i);
        if (std::memcmp(bytes.data() + i, reinterpret_cast<const char*>(&word) + skip, n) != 0) {
            return false;
        }
        i += n;
    }
    return true;
}

bool right(const protocol::HandoffBytes& bytes, std::uint64_t seed,
           const std::vector<std::uint32_t>& parts) {
    if (bytes.parts.size() != bytes.what->parts.size()) return false;
    for (std::uint32_t i = 0; i < bytes.parts.size(); ++i) {
        const bool wanted = parts.empty() || std::ranges::find(parts, i) != parts.end();
        const auto& part = bytes.what->parts[i];
        if (bytes.parts[i].size() != (wanted ? part.bytes : 0)) return false;
        if (!holds(bytes.parts[i], part.offset, seed)) return false;
    }
    return true;
}

Result<std::shared_ptr<const protocol::Handoff>> offer(TransferPlane& plane, std::uint64_t bytes,
                                                       std::uint32_t parts, std::uint64_t seed) {
    auto buffer = plane.reserve(bytes);
    if (!buffer) return tl::unexpected<Error>(buffer.error());
    fill((*buffer)->bytes(), seed);
    protocol::Handoff what;
    what.parts = cut(bytes, parts);
    return plane.publish(std::move(*buffer), std::move(what));
}

Arrived claim_now(TransferPlane& plane, std::shared_ptr<const protocol::Handoff> what,
                  ClaimOptions options) {
    const auto promise = std::make_shared<std::promise<Arrived>>();
    auto future = promise->get_future();
    plane.claim(std::move(what), std::move(options),
                [promise](Arrived result) { promise->set_value(std::move(result)); });
    if (future.wait_for(kPatience) != std::future_status::ready) {
        return error(ErrorCode::kInternal, "nothing was said of a claim");
    }
    return future.get();
}

bool wait_until(const std::function<bool()>& condition) {
    const auto steps = kPatience / std::chrono::milliseconds(5);
    for (int i = 0; i < steps; ++i) {
        if (condition()) return true;
        std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
    return condition();
}

double metric(const metrics::Registry& registry, std::string_view name) {
    std::istringstream in(registry.render());
    for (std::string line; std::getline(in, line);) {
        if (line.starts_with(std::string(name) + " ")) return std::stod(line.substr(name.size()));
    }
    return -1;
}

TransferOptions transfer_options(const WayOptions& way) {
    TransferOptions options;
    options.methods = {way.name.substr(0, way.name.find('+'))};
    options.budget_bytes = way.budget_bytes;
    options.lease = std::chrono::milliseconds(way.lease_ms);
    options.incoming_bytes = 512ULL << 20;
    if (way.name == "tcp+secret" || way.name == "tcp+tls") {
        options.secret = [secret = way.secret] { return secret; };
    }
    if (way.name == "tcp+tls") {
        const auto files = split(way.tls_files, ',');
        const auto load = [](auto context) -> std::shared_ptr<const net::TlsContext> {
            EXPECT_TRUE(context) << context.error().message;
            return *context;
        };
        const auto server = load(net::TlsContext::server(
            {.certificate = files.at(0), .key = files.at(1), .authorities = {}}));
        const auto client = load(
            net::TlsContext::client({.certificate = {}, .key = {}, .authorities = files.at(2)}));
        options.tls = [server] { return server; };
        options.tls_client = [client] { return client; };
    }
    if (way.name == "nixl") {
        if (const char* library = std::getenv("STATOR_NIXL")) options.nixl_library = library;
    }
    return options;
}

PeerProcess::PeerProcess(const WayOptions& way) {
    std::array<int, 2> ends{};
    if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends.data()) != 0) return;
    fd_ = ends[0];
    const std::string argument =
        std::to_string(ends[1]) + "|" + way.name + "|" + std::to_string(way.budget_bytes) + "|" +
        std::to_string(way.lease_ms) + "|" + way.secret + "|" + way.tls_files;
    const std::string variable = std::string(kPeerVariable) + "=" + argument;
    std::vector<std::string> environment;
    for (char** e = environ; *e != nullptr; ++e) environment.emplace_back(*e);
    environment.push_back(variable);
    std::vector<char*> envp;
    for (auto& e : environment) envp.push_back(e.data());
    envp.push_back(nullptr);
    std::array<std::string, 4> words{"peer", "--gtest_filter=TransferPeer.DISABLED_Serves",
                                     "--gtest_also_run_disabled_tests", "--gtest_brief=1"};
    std::array<char*, 5> argv{words[0].data(), words[1].data(), words[2].data(), words[3].data(),
                              nullptr};
    pid_ = ::fork();
    if (pid_ == 0) {
        ::prctl(PR_SET_PDEATHSIG, SIGKILL);
        ::fcntl(ends[1], F_SETFD, 0);
        ::dup2(::open("/dev/null", O_WRONLY | O_CLOEXEC), STDOUT_FILENO);
        ::execve("/proc/self/exe", argv.data(), envp.data());
        ::_exit(127);
    }
    ::close(ends[1]);
}

PeerProcess::~PeerProcess() {
    ::close(fd_);
    if (pid_ <= 0) return;
    int status = 0;
    for (int i = 0; i < 2000; ++i) {
        if (::waitpid(pid_, &status, WNOHANG) == pid_) {
            EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0)
                << "the peer ended with status " << status;
            return;
        }
        std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
    ADD_FAILURE() << "the peer does not end";
    kill();
}

void PeerProcess::kill() {
    if (pid_ <= 0) return;
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
    pid_ = -1;
}

std::string PeerProcess::ask(const std::string& line) {
    write_line(fd_, line);
    std::string answer;
    return read_line(fd_, answer) ? answer : "the peer has gone";
}

Result<std::shared_ptr<const protocol::Handoff>> PeerProcess::offer(std::uint64_t bytes,
                                                                    std::uint32_t parts,
                                                                    std::uint64_t seed) {
    std::istringstream in(ask("offer " + std::to_string(seed) + " " + std::to_string(bytes) + " " +
                              std::to_string(parts)));
    std::string verdict;
    in >> verdict;
    if (verdict == "ok") return read_handoff(in);
    int code = 0;
    in >> code;
    std::string message;
    std::getline(in, message);
    return error(static_cast<ErrorCode>(code), "{}", message);
}

std::string PeerProcess::claim(const protocol::Handoff& what, std::uint64_t seed) {
    return ask("claim " + std::to_string(seed) + " " + printed(what));
}

void PeerProcess::let_go() { EXPECT_EQ(ask("let_go 0"), "ok"); }

PeerProcess::Held PeerProcess::held() {
    std::istringstream in(ask("held 0"));
    Held held;
    in >> held.unclaimed >> held.granted >> held.memory;
    return held;
}

// Not a test: what PeerProcess starts.
TEST(TransferPeer, DISABLED_Serves) {
    const char* argument = std::getenv(kPeerVariable);
    if (argument == nullptr) GTEST_SKIP() << "is started by other tests";
    auto words = split(argument, '|');
    words.resize(6);
    WayOptions way;
    way.name = words[1];
    way.budget_bytes = std::stoull(words[2]);
    way.lease_ms = std::stoi(words[3]);
    way.secret = words[4];
    way.tls_files = words[5];
    serve(std::stoi(words[0]), way);
}

}  // namespace stator::transfer
