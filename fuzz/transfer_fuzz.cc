// The messages of the transfer plane and its places' addresses: no input breaks the readers, and
// what they accept says the same when it is written again.
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

#include "stator/transfer/place.h"
#include "stator/transfer/wire.h"

namespace {

void require(bool condition) {
    if (!condition) std::abort();
}

void read_messages(std::string_view bytes) {
    using namespace stator::transfer;
    while (true) {
        const std::string_view before = bytes;
        const auto message = take_message(bytes);
        if (!message || !*message) return;
        std::string again;
        append_message(again, **message);
        require(again == before.substr(0, before.size() - bytes.size()));
    }
}

void read_places(std::string_view text) {
    using namespace stator::transfer;
    if (const auto place = parse_shm_place(text))
        require(parse_shm_place(to_string(*place)) == *place);
    if (const auto place = parse_tcp_place(text))
        require(parse_tcp_place(to_string(*place)) == *place);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    const std::string_view bytes(reinterpret_cast<const char*>(data), size);
    read_messages(bytes);
    read_places(bytes);
    return 0;
}
