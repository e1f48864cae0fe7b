#include "stator/cli/link_security.h"

#include <sys/stat.h>

#include <csignal>
#include <utility>

#include "stator/base/log.h"
#include "stator/cli/text_file.h"
#include "stator/config/value.h"

namespace stator::cli {
namespace {

constexpr std::size_t kMaxSecretBytes = 4096;
constexpr std::size_t kMinSecretBytes = 16;

Result<std::string> read_secret(const std::string& path) {
    auto text = read_text_file("The link secret file", path, kMaxSecretBytes);
    if (!text) return text;
    while (!text->empty() && (text->back() == '\n' || text->back() == '\r')) text->pop_back();
    if (text->size() < kMinSecretBytes) {
        return error(ErrorCode::kInvalidArgument,
                     "The link secret in {} has {} bytes; take at least {}, for instance from "
                     "`openssl rand -hex 32`.",
                     config::path_in_quotes(path), text->size(), kMinSecretBytes);
    }
    struct stat info{};
    if (::stat(path.c_str(), &info) == 0 && S_ISREG(info.st_mode) &&
        (info.st_mode & (S_IRGRP | S_IROTH)) != 0) {
        return error(ErrorCode::kInvalidArgument,
                     "The link secret file {} can be read by other users: chmod 600 it.",
                     config::path_in_quotes(path));
    }
    return text;
}

Result<std::shared_ptr<const net::TlsContext>> read_tls(const config::LinkSettings& s,
                                                        LinkSecurity::Side side) {
    if (s.certificate.empty() != s.key.empty()) {
        return error(ErrorCode::kInvalidArgument,
                     "--link-certificate and --link-key belong together; only one was given.");
    }
    const net::TlsFiles files{s.certificate, s.key, s.authorities};
    if (side == LinkSecurity::Side::kFrontend) {
        if (s.authorities.empty() && s.certificate.empty()) return nullptr;
        return net::TlsContext::client(files);
    }
    if (!s.certificate.empty()) return net::TlsContext::server(files);
    if (s.authorities.empty()) return nullptr;
    return error(ErrorCode::kInvalidArgument,
                 "A worker with --link-authorities needs --link-certificate and --link-key too.");
}

}  // namespace

Result<std::shared_ptr<LinkSecurity>> LinkSecurity::read(const config::LinkSettings& settings,
                                                         Side side) {
    std::shared_ptr<LinkSecurity> made(new LinkSecurity(settings, side));
    if (auto ok = made->reload(); !ok) return tl::unexpected(ok.error());
    return made;
}

Result<void> LinkSecurity::reload() {
    std::string secret;
    if (!settings_.secret_file.empty()) {
        auto read = read_secret(settings_.secret_file);
        if (!read) return tl::unexpected(read.error());
        secret = std::move(*read);
    }
    auto tls = read_tls(settings_, side_);
    if (!tls) return tl::unexpected(tls.error());
    auto client = read_tls(settings_, Side::kFrontend);
    if (!client) return tl::unexpected(client.error());
    const std::scoped_lock lock(mutex_);
    secret_ = std::move(secret);
    tls_ = std::move(*tls);
    client_tls_ = std::move(*client);
    return {};
}

bool LinkSecurity::reloadable() const {
    return !settings_.secret_file.empty() || !settings_.certificate.empty() ||
           !settings_.authorities.empty();
}

std::string LinkSecurity::secret() const {
    const std::scoped_lock lock(mutex_);
    return secret_;
}

std::shared_ptr<const net::TlsContext> LinkSecurity::tls() const {
    const std::scoped_lock lock(mutex_);
    return tls_;
}

std::shared_ptr<const net::TlsContext> LinkSecurity::client_tls() const {
    const std::scoped_lock lock(mutex_);
    return client_tls_;
}

int wait_for_end(StopSignal& stop, LinkSecurity& security, const std::function<void(int)>& other) {
    while (true) {
        const int signal = stop.wait();
        if (StopSignal::ends(signal)) return signal;
        if (signal == SIGHUP && security.reloadable()) {
            if (const auto reloaded = security.reload()) {
                log_info("Link secret and certificates were read again.");
            } else {
                log_error("Link secret or certificates can't be read; the old ones stay.",
                          {{"reason", reloaded.error().message}});
            }
        }
        if (other) other(signal);
    }
}

Result<void> check_link_bind(const net::SocketAddress& listen, const config::LinkSettings& settings,
                             bool allow_unauthenticated) {
    const bool proves = !settings.secret_file.empty() || !settings.authorities.empty();
    if (net::is_local(listen) || proves || allow_unauthenticated) return {};
    return error(ErrorCode::kInvalidArgument,
                 "Taking links on {} would let anyone who can reach this machine use the model: "
                 "give --link-secret-file FILE (the same on both sides) or --link-authorities, or "
                 "say --allow-unauthenticated if that is meant.",
                 net::to_string(listen));
}

}  // namespace stator::cli
