// Drives the Kubernetes client for tests against a real API server:
//
//   kube_tool API TOKEN_FILE CA_FILE scale TARGET            prints wanted and present replicas
//   kube_tool API TOKEN_FILE CA_FILE scale TARGET REPLICAS   sets them
//   kube_tool API TOKEN_FILE CA_FILE cost NAMESPACE POD COST
//   kube_tool API TOKEN_FILE CA_FILE lead NAMESPACE LEASE NAME SECONDS   prints a line per change
//
// "-" stands for no file.
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <future>
#include <string>
#include <thread>
#include <vector>

#include "stator/kube/elector.h"
#include "stator/kube/scale.h"

namespace {

using namespace stator;

template <typename F>
void on_loop(runtime::Loop& loop, F f) {
    std::promise<void> done;
    loop.post([&] {
        f();
        done.set_value();
    });
    done.get_future().wait();
}

int call(runtime::Loop& loop, kube::Client& client, const kube::Request& request) {
    std::promise<Result<kube::Answer>> promise;
    loop.post([&] {
        client.call(request, [&](Result<kube::Answer> a) { promise.set_value(std::move(a)); });
    });
    const auto answer = promise.get_future().get();
    if (!answer) {
        std::printf("error %s\n", answer.error().message.c_str());
        return 1;
    }
    if (const auto ok = kube::check_answer(*answer); !ok) {
        std::printf("error %s\n", ok.error().message.c_str());
        return 1;
    }
    if (const auto scale = kube::read_scale(*answer)) {
        std::printf("%lld %lld %s\n", static_cast<long long>(scale->wanted),
                    static_cast<long long>(scale->present), scale->pod_selector.c_str());
    } else {
        std::printf("ok\n");
    }
    return 0;
}

int lead(runtime::Loop& loop, const std::shared_ptr<kube::Client>& client,
         const std::vector<std::string>& words) {
    kube::ElectionOptions options;
    options.in_namespace = words[0];
    options.lease = words[1];
    options.self = words[2];
    std::shared_ptr<kube::Elector> elector;
    on_loop(loop, [&] {
        elector = kube::make_elector(client, options, [](bool leading) {
            std::printf("%s\n", leading ? "leads" : "follows");
            std::fflush(stdout);
        });
        elector->start();
    });
    std::this_thread::sleep_for(std::chrono::duration<double>(std::atof(words[3].c_str())));
    std::promise<void> done;
    loop.post([&] { elector->stop([&] { done.set_value(); }); });
    done.get_future().wait_for(std::chrono::seconds(20));
    on_loop(loop, [&] { elector.reset(); });
    return 0;
}

}  // namespace

int main(int argc, char** argv) {
    const std::vector<std::string> words(argv + 1, argv + argc);
    const auto file = [](const std::string& s) { return s == "-" ? std::string() : s; };
    if (words.size() < 5) {
        std::fprintf(stderr, "usage: see the source\n");
        return 2;
    }
    const std::vector<std::string> rest(words.begin() + 4, words.end());
    runtime::Loop loop("kube");
    loop.start();
    std::shared_ptr<kube::Client> client;
    std::string why;
    const auto access = kube::find_access(
        {.api = words[0], .token_file = file(words[1]), .ca_file = file(words[2])});
    on_loop(loop, [&] {
        if (!access) {
            why = access.error().message;
            return;
        }
        auto made = kube::Client::create(loop, *access, Clock::real());
        if (made) {
            client = *made;
        } else {
            why = made.error().message;
        }
    });
    int rc = 2;
    if (!client) {
        std::printf("error %s\n", why.c_str());
    } else if (words[3] == "scale") {
        const auto target = kube::parse_scale_target(rest[0], "default");
        if (!target) {
            std::printf("error %s\n", target.error().message.c_str());
        } else {
            rc = call(loop, *client,
                      rest.size() > 1 ? kube::set_scale(*target, std::atoll(rest[1].c_str()))
                                      : kube::get_scale(*target));
        }
    } else if (words[3] == "cost" && rest.size() == 3) {
        rc = call(loop, *client,
                  kube::set_deletion_cost(rest[0], rest[1], std::atoi(rest[2].c_str())));
    } else if (words[3] == "lead" && rest.size() == 4) {
        rc = lead(loop, client, rest);
    }
    on_loop(loop, [&] {
        if (client) client->stop();
    });
    on_loop(loop, [&] { client.reset(); });
    loop.stop();
    return rc;
}
