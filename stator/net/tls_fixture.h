#pragma once

#include <gtest/gtest.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <sys/stat.h>

#include <cstdio>
#include <memory>
#include <string>

#include "stator/net/stream_fixture.h"
#include "stator/net/tls.h"

namespace stator::net {

/// An authority that signs certificates for tests, as files in a folder.
class Authority {
  public:
    struct Subject {
        std::string name = "stator.test";  ///< DNS name; empty = none
        std::string address;               ///< IP address it is made for too
        long valid_seconds = 3600;         ///< negative: it has run out already
    };

    Authority(const TemporaryFolder& folder, const std::string& name)
        : folder_(folder), file_(folder.file(name + ".pem")), key_(::EVP_EC_gen("P-256")) {
        certificate_ = make(key_.get(), name, 3600);
        add(certificate_.get(), NID_basic_constraints, "critical,CA:TRUE");
        sign(certificate_.get());
        write_certificate(file_, certificate_.get());
    }

    [[nodiscard]] const std::string& file() const { return file_; }

    /// Certificate and key; `authorities` is this one.
    [[nodiscard]] TlsFiles issue(const std::string& file, const Subject& subject) const {
        const Key key(::EVP_EC_gen("P-256"));
        const Certificate certificate = make(key.get(), file, subject.valid_seconds);
        std::string names;
        if (!subject.name.empty()) names += "DNS:" + subject.name;
        if (!subject.address.empty()) names += (names.empty() ? "IP:" : ",IP:") + subject.address;
        add(certificate.get(), NID_subject_alt_name, names.c_str());
        sign(certificate.get());
        const TlsFiles files{.certificate = folder_.file(file + ".pem"),
                             .key = folder_.file(file + ".key"),
                             .authorities = file_};
        write_certificate(files.certificate, certificate.get());
        std::FILE* out = std::fopen(files.key.c_str(), "w");
        ::PEM_write_PrivateKey(out, key.get(), nullptr, nullptr, 0, nullptr, nullptr);
        std::fclose(out);
        ::chmod(files.key.c_str(), S_IRUSR | S_IWUSR);
        return files;
    }

  private:
    struct Free {
        void operator()(EVP_PKEY* key) const { ::EVP_PKEY_free(key); }
        void operator()(X509* certificate) const { ::X509_free(certificate); }
    };
    using Key = std::unique_ptr<EVP_PKEY, Free>;
    using Certificate = std::unique_ptr<X509, Free>;

    [[nodiscard]] Certificate make(EVP_PKEY* key, const std::string& name, long valid) const {
        Certificate made(::X509_new());
        ::X509_set_version(made.get(), X509_VERSION_3);
        ::ASN1_INTEGER_set(::X509_get_serialNumber(made.get()), ++serial_);
        ::X509_gmtime_adj(::X509_getm_notBefore(made.get()), valid < 0 ? 2 * valid : -60);
        ::X509_gmtime_adj(::X509_getm_notAfter(made.get()), valid);
        ::X509_set_pubkey(made.get(), key);
        ::X509_NAME_add_entry_by_txt(::X509_get_subject_name(made.get()), "CN", MBSTRING_ASC,
                                     reinterpret_cast<const unsigned char*>(name.c_str()), -1, -1,
                                     0);
        ::X509_set_issuer_name(
            made.get(), ::X509_get_subject_name(certificate_ ? certificate_.get() : made.get()));
        return made;
    }
    static void add(X509* certificate, int what, const char* value) {
        X509_EXTENSION* extension = ::X509V3_EXT_conf_nid(nullptr, nullptr, what, value);
        ::X509_add_ext(certificate, extension, -1);
        ::X509_EXTENSION_free(extension);
    }
    void sign(X509* certificate) const { ::X509_sign(certificate, key_.get(), ::EVP_sha256()); }
    static void write_certificate(const std::string& path, X509* certificate) {
        std::FILE* out = std::fopen(path.c_str(), "w");
        ::PEM_write_X509(out, certificate);
        std::fclose(out);
    }

    const TemporaryFolder& folder_;
    std::string file_;
    Key key_;
    Certificate certificate_;
    mutable long serial_ = 0;
};

}  // namespace stator::net
