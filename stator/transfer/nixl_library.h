#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "stator/base/error.h"

// Inside of the room.
namespace stator::transfer {

/// NIXL's C interface (libnixl_capi.so, NIXL 1.0 and later), opened at run time: neither its
/// headers nor the library are needed to build this. Status: 0 done, 1 under way, else an error.
struct NixlLibrary {
    using Handle = void*;
    /// nixl_capi_agent_config_t.
    struct AgentConfig {
        bool progress_thread = false;
        bool listen_thread = false;
        int listen_port = 0;
        int thread_sync = 0;
        unsigned workers = 1;
        std::uint64_t progress_delay_us = 0;
        std::uint64_t listen_delay_us = 100'000;
        bool telemetry = false;
    };
    static constexpr int kDram = 0;   ///< memory type
    static constexpr int kWrite = 1;  ///< operation
    static constexpr int kInProgress = 1;

    /// From the first of the usual places that has it, or from `path` alone if it is not empty.
    /// kUnsupported says in a sentence why there is none.
    [[nodiscard]] static Result<std::unique_ptr<NixlLibrary>> open(const std::string& path);

    int (*create_configured_agent)(const char* name, const AgentConfig*, Handle* agent);
    int (*destroy_agent)(Handle agent);
    int (*get_plugin_params)(Handle agent, const char* plugin, Handle* memories, Handle* params);
    int (*destroy_mem_list)(Handle);
    int (*destroy_params)(Handle);
    int (*create_backend)(Handle agent, const char* plugin, Handle params, Handle* backend);
    int (*destroy_backend)(Handle);
    int (*create_opt_args)(Handle*);
    int (*destroy_opt_args)(Handle);
    int (*opt_args_add_backend)(Handle opt, Handle backend);
    int (*create_reg_dlist)(int memory, Handle*);
    int (*destroy_reg_dlist)(Handle);
    int (*reg_dlist_add_desc)(Handle, std::uintptr_t address, std::size_t bytes,
                              std::uint64_t device, const void* metadata,
                              std::size_t metadata_bytes);
    int (*register_mem)(Handle agent, Handle reg_dlist, Handle opt);
    int (*deregister_mem)(Handle agent, Handle reg_dlist, Handle opt);
    int (*get_local_md)(Handle agent, void** bytes, std::size_t* size);  ///< free() it
    int (*load_remote_md)(Handle agent, const void* bytes, std::size_t size,
                          char** name);  ///< free() it
    int (*invalidate_remote_md)(Handle agent, const char* name);
    int (*create_xfer_dlist)(int memory, Handle*);
    int (*destroy_xfer_dlist)(Handle);
    int (*xfer_dlist_add_desc)(Handle, std::uintptr_t address, std::size_t bytes,
                               std::uint64_t device);
    int (*create_xfer_req)(Handle agent, int operation, Handle local, Handle remote,
                           const char* remote_agent, Handle* request, Handle opt);
    int (*post_xfer_req)(Handle agent, Handle request, Handle opt);
    int (*get_xfer_status)(Handle agent, Handle request);
    int (*release_xfer_req)(Handle agent, Handle request);
    int (*destroy_xfer_req)(Handle request);
    bool (*is_stub)();
};

}  // namespace stator::transfer
