// What an API server may send to those who watch it: no list and no stream of events breaks the
// reader, and how the bytes are cut makes no difference to what is known in the end.
#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <set>
#include <string>
#include <string_view>

#include "stator/kube/election.h"
#include "stator/kube/endpoint_set.h"
#include "stator/kube/reflector.h"
#include "stator/kube/scale.h"

namespace {

using namespace stator;

std::string follow(std::string_view list, std::string_view watch, std::size_t piece, int status) {
    kube::EndpointSet set{kube::PortChoice{}};
    kube::ReflectorOptions options;
    options.collection = "/c";
    options.max_event_bytes = 8'192;
    options.max_page_bytes = 65'536;
    options.max_objects = 64;
    kube::Reflector r(options, set);
    TimePoint now{1};
    std::set<std::string> present;
    const auto take = [&] {
        auto changes = set.take_changes();
        for (const auto& a : changes.gone) {
            if (present.erase(net::to_string(a)) != 1) std::abort();
        }
        for (const auto& e : changes.put) present.insert(net::to_string(e.address));
        if (present.size() != set.size()) std::abort();
    };
    for (int round = 0; round < 3; ++round) {
        now = now + r.next_time().left(now);
        const auto path = r.take_call(now);
        if (!path) std::abort();
        const bool watching = path->find("watch=1") != std::string::npos;
        r.on_head(round == 2 ? status : 200, {}, now);
        std::string_view body = watching ? watch : list;
        while (!body.empty()) {
            r.on_body(body.substr(0, piece), now);
            body.remove_prefix(std::min(piece, body.size()));
        }
        if (!r.take_drop()) r.on_end("", now);
        take();
        if (r.objects() > 64) std::abort();
    }
    std::string out = r.trouble();
    for (const auto& p : present) out += "\n" + p;
    return out;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    if (size < 2) return 0;
    const std::string_view all(reinterpret_cast<const char*>(data + 2), size - 2);
    const int status = 200 + data[0] * 2;
    // A list, a zero byte, a watch.
    const auto middle = all.find('\0');
    const std::string_view list = all.substr(0, middle);
    const std::string_view watch =
        middle == std::string_view::npos ? std::string_view() : all.substr(middle + 1);
    const std::string whole = follow(list, watch, 1 << 20, status);
    if (follow(list, watch, 1 + data[1] % 32, status) != whole) std::abort();

    kube::Election election({.in_namespace = "n", .lease = "l", .self = "me"});
    for (int i = 0; i < 2; ++i) {
        if (election.take_call(TimePoint{i * 10'000'000'000LL}, 0)) {
            election.on_answer(status, list, TimePoint{i * 10'000'000'000LL});
        }
    }
    (void)kube::read_scale({status, std::string(list)});
    return 0;
}
