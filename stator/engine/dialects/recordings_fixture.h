#pragma once

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <initializer_list>
#include <iterator>
#include <string>
#include <string_view>

#include "stator/codec/json.h"

namespace stator::engine {

/// A file of $STATOR_DATA/fixtures; empty where there is none.
inline std::string recorded(const std::string& name) {
    const char* folder = std::getenv("STATOR_DATA");
    if (folder == nullptr || *folder == 0) return {};
    std::ifstream in(std::filesystem::path(folder) / "fixtures" / name, std::ios::binary);
    return {std::istreambuf_iterator<char>(in), {}};
}

/// Of an answer that is not chunked.
inline std::string recorded_body(const std::string& name) {
    const std::string text = recorded(name + ".response.http");
    const std::size_t head = text.find("\r\n\r\n");
    return head == std::string::npos ? "" : text.substr(head + 4);
}

inline std::string compact(codec::JsonView v) {
    std::string out;
    if (v.present()) v.write_to(out);
    return out;
}

/// What stands at the path in a JSON text; empty: nothing.
inline std::string at(const std::string& body, std::initializer_list<std::string_view> path) {
    codec::JsonDocument document;
    auto root = document.parse(body);
    if (!root) return "no JSON: " + root.error().message;
    codec::JsonView v = *root;
    for (const auto key : path) v = v.find(key);
    return compact(v);
}

}  // namespace stator::engine
