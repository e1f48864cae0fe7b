#pragma once

#include <functional>
#include <string>
#include <string_view>

#include "stator/base/error.h"
#include "stator/net/http_url.h"

namespace stator::kube {

/// What a person says about the API server. All empty: the pod's own service account.
struct AccessOptions {
    std::string api;         ///< https://host:port, or http:// (a proxy on this machine, tests)
    std::string token_file;  ///< a bearer token, read again as it is rotated; empty: none is sent
    std::string ca_file;     ///< PEM; empty: the system's authorities
    bool operator==(const AccessOptions&) const = default;
};

/// Where the API server is and how we show who we are.
struct Access {
    net::HttpUrl api;
    std::string token_file;
    std::string ca_file;
    std::string own_namespace;  ///< of the pod; "default" outside of one
};

/// The environment's variables, and files; both asked for at each call.
using GetVariable = std::function<std::string(const char* name)>;
[[nodiscard]] std::string get_variable(const char* name);
constexpr std::string_view kServiceAccountFolder = "/var/run/secrets/kubernetes.io/serviceaccount";

/// In a pod (no `api` given): KUBERNETES_SERVICE_HOST and _PORT, and the files token, ca.crt and
/// namespace in `folder`; the options' files take the place of the pod's. With `api`: what the
/// options say. kInvalidArgument says what is missing. A token over plain http to another machine
/// is refused.
[[nodiscard]] Result<Access> find_access(const AccessOptions& options,
                                         const GetVariable& variable = get_variable,
                                         std::string_view folder = kServiceAccountFolder);

/// The whole of a small file without white space at its end. kNotFound, kUnavailable, kTooLarge.
[[nodiscard]] Result<std::string> read_small_file(const std::string& path, std::size_t most);

}  // namespace stator::kube
