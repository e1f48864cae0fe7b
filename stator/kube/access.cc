#include "stator/kube/access.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>

#include "stator/net/socket_address.h"

namespace stator::kube {
namespace {

constexpr std::size_t kMaxNamespaceBytes = 256;

}  // namespace

std::string get_variable(const char* name) {
    const char* value = std::getenv(name);  // NOLINT(concurrency-mt-unsafe)
    return value != nullptr ? value : "";
}

Result<std::string> read_small_file(const std::string& path, std::size_t most) {
    const int fd = ::open(path.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0) {
        const int reason = errno;
        return error(reason == ENOENT ? ErrorCode::kNotFound : ErrorCode::kUnavailable,
                     "'{}' can't be read: {}", path, ::strerrordesc_np(reason));
    }
    std::string text(most + 1, '\0');
    std::size_t size = 0;
    ssize_t n = 0;
    while (size < text.size() && (n = ::read(fd, text.data() + size, text.size() - size)) > 0) {
        size += static_cast<std::size_t>(n);
    }
    const int reason = errno;
    ::close(fd);
    if (n < 0) {
        return error(ErrorCode::kUnavailable, "'{}' can't be read: {}", path,
                     ::strerrordesc_np(reason));
    }
    if (size > most) {
        return error(ErrorCode::kTooLarge, "'{}' has more than {} bytes", path, most);
    }
    text.resize(size);
    while (!text.empty() && static_cast<unsigned char>(text.back()) <= ' ') text.pop_back();
    return text;
}

Result<Access> find_access(const AccessOptions& options, const GetVariable& variable,
                           std::string_view folder) {
    Access access;
    access.token_file = options.token_file;
    access.ca_file = options.ca_file;
    std::string url = options.api;
    if (url.empty()) {
        std::string host = variable("KUBERNETES_SERVICE_HOST");
        const std::string port = variable("KUBERNETES_SERVICE_PORT");
        if (host.empty() || port.empty()) {
            return error(ErrorCode::kInvalidArgument,
                         "there is no Kubernetes API server to be seen: this is no pod "
                         "(KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT are not set); "
                         "outside of one say --kube-api https://HOST:PORT");
        }
        if (host.contains(':') && host.front() != '[') host = "[" + host + "]";
        url = "https://" + host + ":" + port;
        if (access.token_file.empty()) access.token_file = std::string(folder) + "/token";
        if (access.ca_file.empty()) access.ca_file = std::string(folder) + "/ca.crt";
    }
    auto parsed = net::parse_http_url(url);
    if (!parsed) return tl::unexpected(std::move(parsed.error()));
    access.api = std::move(*parsed);
    if (!access.token_file.empty() && !access.api.tls && !net::is_local(access.api.address)) {
        return error(ErrorCode::kInvalidArgument,
                     "a token must not be sent in clear text to another machine: '{}' should be "
                     "https://",
                     url.substr(0, 256));
    }
    const auto own = read_small_file(std::string(folder) + "/namespace", kMaxNamespaceBytes);
    access.own_namespace = own && !own->empty() ? *own : "default";
    return access;
}

}  // namespace stator::kube
