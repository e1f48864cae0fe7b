#include "stator/transfer/nixl_library.h"

#include <dlfcn.h>
#include <glob.h>

#include <cstdlib>
#include <utility>
#include <vector>

namespace stator::transfer {
namespace {

constexpr const char* kFile = "libnixl_capi.so";
constexpr const char* kVariable = "NIXL_CAPI_LIBRARY";

/// Where Python's packages and an installation from source have it.
std::vector<std::string> usual_places() {
    std::vector<std::string> patterns;
    for (const char* variable : {"VIRTUAL_ENV", "CONDA_PREFIX"}) {
        if (const char* folder = std::getenv(variable)) {
            patterns.push_back(std::string(folder) +
                               "/lib/python3*/site-packages/.nixl_cu1*.mesonpy.libs/" + kFile);
        }
    }
    for (const char* folder :
         {"/usr/local/lib/python3*/site-packages", "/usr/local/lib/python3*/dist-packages",
          "/usr/lib/python3/dist-packages"}) {
        patterns.push_back(std::string(folder) + "/.nixl_cu1*.mesonpy.libs/" + kFile);
    }
    for (const char* folder :
         {"/opt/nvidia/nvda_nixl/lib*", "/usr/local/nixl/lib*",
          "/opt/nvidia/nvda_nixl/lib/*-linux-gnu", "/usr/local/nixl/lib/*-linux-gnu"}) {
        patterns.push_back(std::string(folder) + "/" + kFile);
    }
    std::vector<std::string> found;
    for (const std::string& pattern : patterns) {
        glob_t matches{};
        if (::glob(pattern.c_str(), 0, nullptr, &matches) == 0) {
            for (std::size_t i = 0; i < matches.gl_pathc; ++i) {
                found.emplace_back(matches.gl_pathv[i]);
            }
        }
        ::globfree(&matches);
    }
    return found;
}

std::string load_error() {
    const char* reason = ::dlerror();
    return reason != nullptr ? reason : "no reason given";
}

Result<void*> open_file(const std::string& path) {
    if (!path.empty()) {
        if (void* handle = ::dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL)) return handle;
        return error(ErrorCode::kUnsupported, "NIXL's library can't be loaded: {}", load_error());
    }
    if (const char* named = std::getenv(kVariable); named != nullptr && *named != '\0') {
        return open_file(named);
    }
    if (void* handle = ::dlopen(kFile, RTLD_NOW | RTLD_LOCAL)) return handle;
    std::string last;
    for (const std::string& place : usual_places()) {
        if (void* handle = ::dlopen(place.c_str(), RTLD_NOW | RTLD_LOCAL)) return handle;
        last = load_error();
    }
    if (!last.empty()) {
        return error(ErrorCode::kUnsupported, "NIXL's library can't be loaded: {}", last);
    }
    return error(ErrorCode::kUnsupported,
                 "NIXL's {} was not found; its path can be given as an option or in {}", kFile,
                 kVariable);
}

}  // namespace

// The library stays loaded: UCX below it has threads and hooks that can't be taken back.
Result<std::unique_ptr<NixlLibrary>> NixlLibrary::open(const std::string& path) {
    if (path == "off") return error(ErrorCode::kUnsupported, "NIXL is switched off");
    auto handle = open_file(path);
    if (!handle) return tl::unexpected<Error>(std::move(handle.error()));
    auto made = std::make_unique<NixlLibrary>();
    const char* missing = nullptr;
    const auto find = [&](auto& function, const char* name) {
        void* symbol = ::dlsym(*handle, name);
        if (symbol == nullptr && missing == nullptr) missing = name;
        function = reinterpret_cast<std::remove_reference_t<decltype(function)>>(symbol);
    };
    NixlLibrary& l = *made;
    find(l.create_configured_agent, "nixl_capi_create_configured_agent");
    find(l.destroy_agent, "nixl_capi_destroy_agent");
    find(l.get_plugin_params, "nixl_capi_get_plugin_params");
    find(l.destroy_mem_list, "nixl_capi_destroy_mem_list");
    find(l.destroy_params, "nixl_capi_destroy_params");
    find(l.create_backend, "nixl_capi_create_backend");
    find(l.destroy_backend, "nixl_capi_destroy_backend");
    find(l.create_opt_args, "nixl_capi_create_opt_args");
    find(l.destroy_opt_args, "nixl_capi_destroy_opt_args");
    find(l.opt_args_add_backend, "nixl_capi_opt_args_add_backend");
    find(l.create_reg_dlist, "nixl_capi_create_reg_dlist");
    find(l.destroy_reg_dlist, "nixl_capi_destroy_reg_dlist");
    find(l.reg_dlist_add_desc, "nixl_capi_reg_dlist_add_desc");
    find(l.register_mem, "nixl_capi_register_mem");
    find(l.deregister_mem, "nixl_capi_deregister_mem");
    find(l.get_local_md, "nixl_capi_get_local_md");
    find(l.load_remote_md, "nixl_capi_load_remote_md");
    find(l.invalidate_remote_md, "nixl_capi_invalidate_remote_md");
    find(l.create_xfer_dlist, "nixl_capi_create_xfer_dlist");
    find(l.destroy_xfer_dlist, "nixl_capi_destroy_xfer_dlist");
    find(l.xfer_dlist_add_desc, "nixl_capi_xfer_dlist_add_desc");
    find(l.create_xfer_req, "nixl_capi_create_xfer_req");
    find(l.post_xfer_req, "nixl_capi_post_xfer_req");
    find(l.get_xfer_status, "nixl_capi_get_xfer_status");
    find(l.release_xfer_req, "nixl_capi_release_xfer_req");
    find(l.destroy_xfer_req, "nixl_capi_destroy_xfer_req");
    find(l.is_stub, "nixl_capi_is_stub");
    if (missing != nullptr) {
        return error(ErrorCode::kUnsupported, "NIXL's library has no function {}", missing);
    }
    if (l.is_stub()) {
        return error(ErrorCode::kUnsupported, "NIXL's library is the stub, without NIXL behind it");
    }
    return made;
}

}  // namespace stator::transfer
