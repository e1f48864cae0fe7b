// What one send() on a loopback TCP connection costs the sender, as CPU time.
//
//   send_cost BYTES CONNECTIONS ROUNDS PERIOD_US CORE_SEND CORE_READ
//
// Every PERIOD_US the sender writes BYTES to each connection, as a server does that streams tokens;
// another process reads. Prints nanoseconds of CPU per send().
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

namespace {

[[noreturn]] void fail(const char* what) {
    std::perror(what);
    std::exit(1);
}

void pin(int core) {
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(core, &set);
    if (sched_setaffinity(0, sizeof set, &set) != 0) fail("sched_setaffinity");
}

std::int64_t cpu_ns() {
    timespec t{};
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return t.tv_sec * 1'000'000'000LL + t.tv_nsec;
}

/// Reads everything until all connections are closed.
void read_all(const std::vector<int>& sockets) {
    const int epoll = epoll_create1(0);
    for (const int s : sockets) {
        epoll_event e{.events = EPOLLIN, .data = {.fd = s}};
        if (epoll_ctl(epoll, EPOLL_CTL_ADD, s, &e) != 0) fail("epoll_ctl");
    }
    std::size_t open = sockets.size();
    std::vector<epoll_event> events(sockets.size());
    char buffer[65536];
    while (open > 0) {
        const int n = epoll_wait(epoll, events.data(), static_cast<int>(events.size()), -1);
        for (int i = 0; i < n; ++i) {
            if (recv(events[i].data.fd, buffer, sizeof buffer, 0) > 0) continue;
            epoll_ctl(epoll, EPOLL_CTL_DEL, events[i].data.fd, nullptr);
            --open;
        }
    }
}

struct Pairs {
    std::vector<int> senders, readers;
};

Pairs connect_pairs(int count) {
    const int listener = socket(AF_INET, SOCK_STREAM, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof address;
    if (bind(listener, reinterpret_cast<sockaddr*>(&address), size) != 0 ||
        listen(listener, 8) != 0) {
        fail("listen");
    }
    getsockname(listener, reinterpret_cast<sockaddr*>(&address), &size);
    Pairs out;
    for (int i = 0; i < count; ++i) {
        out.readers.push_back(socket(AF_INET, SOCK_STREAM, 0));
        if (connect(out.readers.back(), reinterpret_cast<sockaddr*>(&address), size) != 0) {
            fail("connect");
        }
        out.senders.push_back(accept(listener, nullptr, nullptr));
        const int on = 1;
        setsockopt(out.senders.back(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    }
    close(listener);
    return out;
}

std::int64_t send_rounds(const std::vector<int>& sockets, const std::string& bytes, int rounds,
                         long period_us) {
    std::int64_t spent = 0;
    const timespec period{.tv_sec = 0, .tv_nsec = period_us * 1000};
    for (int round = 0; round < rounds; ++round) {
        const std::int64_t before = cpu_ns();
        for (const int s : sockets) {
            if (send(s, bytes.data(), bytes.size(), MSG_NOSIGNAL) !=
                static_cast<ssize_t>(bytes.size())) {
                fail("send");
            }
        }
        spent += cpu_ns() - before;
        nanosleep(&period, nullptr);
    }
    return spent / (static_cast<std::int64_t>(rounds) * static_cast<std::int64_t>(sockets.size()));
}

}  // namespace

int main(int argc, char** argv) {
    if (argc != 7) {
        std::fputs("usage: send_cost BYTES CONNECTIONS ROUNDS PERIOD_US CORE_SEND CORE_READ\n",
                   stderr);
        return 2;
    }
    const Pairs pairs = connect_pairs(std::atoi(argv[2]));
    const pid_t reader = fork();
    if (reader < 0) fail("fork");
    if (reader == 0) {
        pin(std::atoi(argv[6]));
        for (const int s : pairs.senders) close(s);
        read_all(pairs.readers);
        return 0;
    }
    pin(std::atoi(argv[5]));
    for (const int s : pairs.readers) close(s);
    const std::string bytes(static_cast<std::size_t>(std::atoi(argv[1])), 'x');
    std::printf("%lld\n", static_cast<long long>(send_rounds(
                              pairs.senders, bytes, std::atoi(argv[3]), std::atol(argv[4]))));
    for (const int s : pairs.senders) close(s);
    waitpid(reader, nullptr, 0);
    return 0;
}
