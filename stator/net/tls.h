#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "stator/base/error.h"

namespace stator::net {

struct TlsFiles {
    std::string certificate;  ///< PEM chain; a server needs one, a client only for mutual TLS
    std::string key;          ///< PEM
    std::string authorities;  ///< PEM: who may sign the peer. Server: with it, clients must show a
                              ///< certificate. Client: without it, the system's authorities
};

/// Keys and certificates, read once (TLS 1.3 and 1.2, OpenSSL). Immutable and thread-safe:
/// reloading is making a new one and using it for new connections.
class TlsContext {
  public:
    /// kNotFound, kInvalidArgument with file and OpenSSL's reason; kPermissionDenied where a key
    /// file is readable by others.
    [[nodiscard]] static Result<std::shared_ptr<const TlsContext>> server(const TlsFiles& files);
    [[nodiscard]] static Result<std::shared_ptr<const TlsContext>> client(const TlsFiles& files);
    ~TlsContext();

    struct Impl;
    [[nodiscard]] const Impl& impl() const { return *impl_; }

  private:
    TlsContext();
    std::unique_ptr<Impl> impl_;
};

/// One TLS connection without sockets: ciphertext and plaintext go in and out as bytes. Not
/// thread-safe.
class TlsSession {
  public:
    /// `server_name`: what a client expects the certificate to be made for (name or address); empty
    /// on the server's side.
    TlsSession(std::shared_ptr<const TlsContext> context, std::string_view server_name);
    ~TlsSession();
    TlsSession(const TlsSession&) = delete;
    TlsSession& operator=(const TlsSession&) = delete;

    /// Takes ciphertext from the peer; appends what it carries to `plain` and what must be sent to
    /// `cipher`. kUnauthenticated, kDataLoss. True once the peer has closed its side.
    [[nodiscard]] Result<bool> receive(std::string_view bytes, std::string& plain,
                                       std::string& cipher);
    /// Encrypts; before the handshake is done nothing may be sent. The client's first receive("")
    /// starts the handshake.
    [[nodiscard]] Result<void> send(std::string_view bytes, std::string& cipher);
    [[nodiscard]] bool ready() const;  ///< the handshake is done
    void close(std::string& cipher);

  private:
    struct Impl;
    std::unique_ptr<Impl> impl_;
};

}  // namespace stator::net
