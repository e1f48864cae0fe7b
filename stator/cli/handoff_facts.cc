#include "stator/cli/handoff_facts.h"

#include <sys/resource.h>
#include <unistd.h>

#include <fstream>

#include "stator/codec/json.h"
#include "stator/codec/json_writer.h"

namespace stator::cli {

ProcessCost own_cost() {
    ProcessCost out;
    rusage usage{};
    if (::getrusage(RUSAGE_SELF, &usage) == 0) {
        out.cpu_seconds =
            static_cast<double>(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
            static_cast<double>(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) * 1e-6;
    }
    std::ifstream statm("/proc/self/statm");
    std::uint64_t size = 0;
    std::uint64_t resident = 0;
    if (statm >> size >> resident) {
        out.resident_bytes = resident * static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE));
    }
    return out;
}

std::string to_json(const HandoffFacts& facts) {
    std::string out;
    codec::JsonWriter w(out);
    w.begin_object().key("cpu_seconds").number(facts.cpu_seconds);
    w.key("resident_bytes").number(facts.resident_bytes).key("fill").number(unsigned{facts.fill});
    w.key("off").begin_object();
    for (const auto& [method, why] : facts.why_off) w.key(method).string(why);
    w.end_object().end_object();
    return out;
}

Result<HandoffFacts> read_handoff_facts(std::string_view json) {
    constexpr std::uint64_t kHighestByte = 255;
    codec::JsonDocument document;
    const auto root = document.parse(json);
    if (root) {
        const auto cpu = root->find("cpu_seconds").as_double();
        const auto resident = root->find("resident_bytes").as_uint();
        const auto fill = root->find("fill").as_uint();
        if (cpu && resident && fill && *fill <= kHighestByte) {
            HandoffFacts out{.cpu_seconds = *cpu,
                             .resident_bytes = *resident,
                             .fill = static_cast<std::uint8_t>(*fill),
                             .why_off = {}};
            root->find("off").each_member([&](std::string_view method, codec::JsonView why) {
                out.why_off.emplace(method, why.as_string().value_or(""));
                return true;
            });
            return out;
        }
    }
    return error(ErrorCode::kDataLoss, "the other side is no `stator bench transfer --listen`");
}

}  // namespace stator::cli
