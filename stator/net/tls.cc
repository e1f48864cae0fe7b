#include "stator/net/tls.h"

#include <arpa/inet.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <sys/stat.h>

#include <array>
#include <cerrno>
#include <limits>
#include <utility>

#include "stator/net/posix_socket.h"

namespace stator::net {
namespace {

struct FreeContext {
    void operator()(SSL_CTX* context) const { ::SSL_CTX_free(context); }
};
struct FreeSsl {
    void operator()(SSL* ssl) const { ::SSL_free(ssl); }
};
using ContextPtr = std::unique_ptr<SSL_CTX, FreeContext>;

constexpr int kMaxChain = 8;  // certificates between the peer's and an authority's

/// OpenSSL's reason for the failure just now; empties its queue, which is the thread's.
std::string openssl_reason() {
    const unsigned long code = ::ERR_get_error();
    const int system_error = errno;
    ::ERR_clear_error();
    if (code == 0) return "no reason given";
    if (ERR_SYSTEM_ERROR(code)) return system_message(ERR_GET_REASON(code));
    const char* reason = ::ERR_reason_error_string(code);
    if (reason != nullptr) return reason;
    return system_error != 0 ? system_message(system_error) : "error " + std::to_string(code);
}

Result<void> check_file(const std::string& path, std::string_view what) {
    struct stat status{};
    if (::stat(path.c_str(), &status) != 0) {
        const int reason = errno;
        const auto code = reason == EACCES ? ErrorCode::kPermissionDenied : ErrorCode::kNotFound;
        return error(code, "can't read the {} '{}': {}", what, path, system_message(reason));
    }
    if (!S_ISREG(status.st_mode)) {
        return error(ErrorCode::kInvalidArgument, "the {} '{}' is no file", what, path);
    }
    return {};
}

/// A key that others can read is no secret.
Result<void> check_private(const std::string& path) {
    struct stat status{};
    if (::stat(path.c_str(), &status) == 0 && (status.st_mode & (S_IRWXG | S_IRWXO)) != 0) {
        return error(
            ErrorCode::kPermissionDenied,
            "the TLS key '{}' has mode {:04o}: others than its owner may use it; chmod 600 "
            "it",
            path, status.st_mode & 07777U);
    }
    return {};
}

Result<void> load_identity(SSL_CTX* context, const TlsFiles& files) {
    if (files.certificate.empty() || files.key.empty()) {
        return error(ErrorCode::kInvalidArgument,
                     "a TLS certificate and its key belong together: '{}' and '{}' are given",
                     files.certificate, files.key);
    }
    if (auto ok = check_file(files.certificate, "TLS certificate"); !ok) return ok;
    if (auto ok = check_file(files.key, "TLS key"); !ok) return ok;
    if (auto ok = check_private(files.key); !ok) return ok;
    ::ERR_clear_error();
    if (::SSL_CTX_use_certificate_chain_file(context, files.certificate.c_str()) != 1) {
        return error(ErrorCode::kInvalidArgument, "the TLS certificate '{}' can't be used: {}",
                     files.certificate, openssl_reason());
    }
    if (::SSL_CTX_use_PrivateKey_file(context, files.key.c_str(), SSL_FILETYPE_PEM) != 1) {
        return error(ErrorCode::kInvalidArgument,
                     "the TLS key '{}' can't be used with the certificate '{}': {}", files.key,
                     files.certificate, openssl_reason());
    }
    return {};
}

Result<void> load_authorities(SSL_CTX* context, const std::string& path) {
    if (auto ok = check_file(path, "file of TLS authorities"); !ok) return ok;
    ::ERR_clear_error();
    if (::SSL_CTX_load_verify_file(context, path.c_str()) != 1) {
        return error(ErrorCode::kInvalidArgument,
                     "the file of TLS authorities '{}' can't be used: {}", path, openssl_reason());
    }
    return {};
}

/// A key with a pass phrase: refused, where OpenSSL would ask the terminal for it.
int no_pass_phrase(char* /*buffer*/, int /*size*/, int /*writing*/, void* /*context*/) { return 0; }

Result<ContextPtr> new_context(const SSL_METHOD* method) {
    ContextPtr context(::SSL_CTX_new(method));
    if (!context || ::SSL_CTX_set_min_proto_version(context.get(), TLS1_2_VERSION) != 1) {
        return error(ErrorCode::kInternal, "TLS can't be set up: {}", openssl_reason());
    }
    ::SSL_CTX_set_options(context.get(), SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION |
                                             SSL_OP_CIPHER_SERVER_PREFERENCE);
    ::SSL_CTX_set_default_passwd_cb(context.get(), no_pass_phrase);
    ::SSL_CTX_set_verify_depth(context.get(), kMaxChain);
    ::SSL_CTX_set_mode(context.get(), SSL_MODE_RELEASE_BUFFERS | SSL_MODE_AUTO_RETRY);
    // Links live long and are few: what resuming a session would save is not worth the state.
    ::SSL_CTX_set_session_cache_mode(context.get(), SSL_SESS_CACHE_OFF);
    ::SSL_CTX_set_num_tickets(context.get(), 0);
    return context;
}

bool is_address(const std::string& name) {
    std::array<unsigned char, 16> ignored{};
    return ::inet_pton(AF_INET, name.c_str(), ignored.data()) == 1 ||
           ::inet_pton(AF_INET6, name.c_str(), ignored.data()) == 1;
}

}  // namespace

struct TlsContext::Impl {
    ContextPtr context;
    bool server = false;
};

TlsContext::TlsContext() : impl_(std::make_unique<Impl>()) {}
TlsContext::~TlsContext() = default;

Result<std::shared_ptr<const TlsContext>> TlsContext::server(const TlsFiles& files) {
    auto context = new_context(::TLS_server_method());
    if (!context) return tl::unexpected<Error>(context.error());
    if (auto ok = load_identity(context->get(), files); !ok) {
        return tl::unexpected<Error>(ok.error());
    }
    if (!files.authorities.empty()) {
        if (auto ok = load_authorities(context->get(), files.authorities); !ok) {
            return tl::unexpected<Error>(ok.error());
        }
        ::SSL_CTX_set_verify(context->get(), SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT,
                             nullptr);
    }
    std::shared_ptr<TlsContext> made(new TlsContext);
    made->impl_->context = std::move(*context);
    made->impl_->server = true;
    return made;
}

Result<std::shared_ptr<const TlsContext>> TlsContext::client(const TlsFiles& files) {
    auto context = new_context(::TLS_client_method());
    if (!context) return tl::unexpected<Error>(context.error());
    if (!files.certificate.empty() || !files.key.empty()) {
        if (auto ok = load_identity(context->get(), files); !ok) {
            return tl::unexpected<Error>(ok.error());
        }
    }
    if (files.authorities.empty()) {
        ::SSL_CTX_set_default_verify_paths(context->get());
    } else if (auto ok = load_authorities(context->get(), files.authorities); !ok) {
        return tl::unexpected<Error>(ok.error());
    }
    ::SSL_CTX_set_verify(context->get(), SSL_VERIFY_PEER, nullptr);
    std::shared_ptr<TlsContext> made(new TlsContext);
    made->impl_->context = std::move(*context);
    return made;
}

struct TlsSession::Impl {
    /// 1: went on; 0: nothing more without further bytes; -1: the peer has closed; else an error.
    Result<int> outcome(int returned);
    void take_cipher(std::string& cipher) const;

    std::shared_ptr<const TlsContext> context;
    std::unique_ptr<SSL, FreeSsl> ssl;
    BIO* in = nullptr;   ///< the session's
    BIO* out = nullptr;  ///< the session's
    std::string server_name;
    bool failed = false;
    bool established = false;  ///< the handshake was done before whatever failed
};

TlsSession::TlsSession(std::shared_ptr<const TlsContext> context, std::string_view server_name)
    : impl_(std::make_unique<Impl>()) {
    impl_->context = std::move(context);
    impl_->server_name = server_name;
    const TlsContext::Impl& from = impl_->context->impl();
    impl_->ssl.reset(::SSL_new(from.context.get()));
    SSL* ssl = impl_->ssl.get();
    impl_->in = ::BIO_new(::BIO_s_mem());
    impl_->out = ::BIO_new(::BIO_s_mem());
    // An empty buffer means "later", not "ended".
    ::BIO_set_mem_eof_return(impl_->in, -1);
    ::BIO_set_mem_eof_return(impl_->out, -1);
    ::SSL_set_bio(ssl, impl_->in, impl_->out);
    if (from.server) {
        ::SSL_set_accept_state(ssl);
        return;
    }
    ::SSL_set_connect_state(ssl);
    const std::string& name = impl_->server_name;
    ::SSL_set_hostflags(ssl, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
    if (name.empty()) {
        impl_->failed = true;  // whoever answers would do: refused
    } else if (is_address(name)) {
        ::X509_VERIFY_PARAM_set1_ip_asc(::SSL_get0_param(ssl), name.c_str());
    } else {
        ::SSL_set1_host(ssl, name.c_str());
        ::SSL_set_tlsext_host_name(ssl, name.c_str());
    }
}

TlsSession::~TlsSession() = default;

void TlsSession::Impl::take_cipher(std::string& cipher) const {
    char* data = nullptr;
    const long size = BIO_get_mem_data(out, &data);
    if (size > 0) cipher.append(data, static_cast<std::size_t>(size));
    BIO_reset(out);
}

Result<int> TlsSession::Impl::outcome(int returned) {
    if (returned > 0) {
        established = ::SSL_is_init_finished(ssl.get()) != 0;
        return 1;
    }
    switch (::SSL_get_error(ssl.get(), returned)) {
        case SSL_ERROR_WANT_READ:
        case SSL_ERROR_WANT_WRITE:
            return 0;
        case SSL_ERROR_ZERO_RETURN:
            return -1;
        default:
            break;
    }
    failed = true;
    const long verified = ::SSL_get_verify_result(ssl.get());
    const std::string reason = openssl_reason();
    if (!established && verified != X509_V_OK) {
        return error(ErrorCode::kUnauthenticated, "the peer's certificate is refused{}: {}",
                     server_name.empty() ? "" : " for '" + server_name + "'",
                     ::X509_verify_cert_error_string(verified));
    }
    if (!established) {
        return error(ErrorCode::kUnauthenticated, "the TLS handshake failed: {}", reason);
    }
    // Under TLS 1.3 a server refuses a client's certificate when the client thinks it is through.
    if (reason.find("alert") != std::string::npos &&
        reason.find("certificate") != std::string::npos) {
        return error(ErrorCode::kUnauthenticated, "the peer refuses our certificate: {}", reason);
    }
    return error(ErrorCode::kDataLoss, "the TLS stream is damaged: {}", reason);
}

Result<bool> TlsSession::receive(std::string_view bytes, std::string& plain, std::string& cipher) {
    if (impl_->failed) {
        return error(ErrorCode::kUnauthenticated,
                     impl_->server_name.empty() && !impl_->context->impl().server
                         ? "a TLS client needs the name of its server"
                         : "the TLS connection has failed before");
    }
    ::ERR_clear_error();
    while (!bytes.empty()) {
        const auto piece = bytes.substr(0, std::numeric_limits<int>::max());
        ::BIO_write(impl_->in, piece.data(), static_cast<int>(piece.size()));
        bytes.remove_prefix(piece.size());
    }
    Result<int> result = 1;
    if (!ready()) result = impl_->outcome(::SSL_do_handshake(impl_->ssl.get()));
    std::array<char, 16 * 1024> piece;  // NOLINT: a TLS record's size, written before it is read
    while (result && *result == 1) {
        const int n = ::SSL_read(impl_->ssl.get(), piece.data(), static_cast<int>(piece.size()));
        if (n > 0) plain.append(piece.data(), static_cast<std::size_t>(n));
        result = impl_->outcome(n);
    }
    impl_->take_cipher(cipher);  // after a failure too: the alert tells the peer why
    if (!result) return tl::unexpected<Error>(std::move(result.error()));
    return *result == -1;
}

Result<void> TlsSession::send(std::string_view bytes, std::string& cipher) {
    if (impl_->failed || !ready()) {
        return error(ErrorCode::kInternal, "nothing can be sent before the TLS handshake is done");
    }
    ::ERR_clear_error();
    while (!bytes.empty()) {
        const auto piece = bytes.substr(0, std::numeric_limits<int>::max());
        const auto result = impl_->outcome(
            ::SSL_write(impl_->ssl.get(), piece.data(), static_cast<int>(piece.size())));
        if (!result) return tl::unexpected<Error>(result.error());
        if (*result != 1) {
            return error(ErrorCode::kDataLoss, "the TLS stream takes no more output");
        }
        bytes.remove_prefix(piece.size());
    }
    impl_->take_cipher(cipher);
    return {};
}

bool TlsSession::ready() const { return ::SSL_is_init_finished(impl_->ssl.get()) != 0; }

void TlsSession::close(std::string& cipher) {
    if (impl_->failed || !ready()) return;
    ::ERR_clear_error();
    ::SSL_shutdown(impl_->ssl.get());
    ::ERR_clear_error();
    impl_->take_cipher(cipher);
}

}  // namespace stator::net
