#include "stator/net/tls_fixture.h"

#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <sys/stat.h>

#include <cstdio>

namespace stator::net {
namespace {

struct Free {
    void operator()(EVP_PKEY* key) const { ::EVP_PKEY_free(key); }
    void operator()(X509* certificate) const { ::X509_free(certificate); }
};
using Key = std::unique_ptr<EVP_PKEY, Free>;
using Certificate = std::unique_ptr<X509, Free>;

void add(X509* certificate, int what, const char* value) {
    X509_EXTENSION* extension = ::X509V3_EXT_conf_nid(nullptr, nullptr, what, value);
    ::X509_add_ext(certificate, extension, -1);
    ::X509_EXTENSION_free(extension);
}

void write_certificate(const std::string& path, X509* certificate) {
    std::FILE* out = std::fopen(path.c_str(), "w");
    ::PEM_write_X509(out, certificate);
    std::fclose(out);
}

}  // namespace

struct Authority::Keys {
    Key key{::EVP_EC_gen("P-256")};
    Certificate certificate;
    long serial = 0;

    [[nodiscard]] Certificate make(EVP_PKEY* subject, const std::string& name, long valid) {
        Certificate made(::X509_new());
        ::X509_set_version(made.get(), X509_VERSION_3);
        ::ASN1_INTEGER_set(::X509_get_serialNumber(made.get()), ++serial);
        ::X509_gmtime_adj(::X509_getm_notBefore(made.get()), valid < 0 ? 2 * valid : -60);
        ::X509_gmtime_adj(::X509_getm_notAfter(made.get()), valid);
        ::X509_set_pubkey(made.get(), subject);
        ::X509_NAME_add_entry_by_txt(::X509_get_subject_name(made.get()), "CN", MBSTRING_ASC,
                                     reinterpret_cast<const unsigned char*>(name.c_str()), -1, -1,
                                     0);
        ::X509_set_issuer_name(
            made.get(), ::X509_get_subject_name(certificate ? certificate.get() : made.get()));
        return made;
    }
    void sign(X509* made) const { ::X509_sign(made, key.get(), ::EVP_sha256()); }
};

Authority::Authority(const TemporaryFolder& folder, const std::string& name)
    : folder_(folder), file_(folder.file(name + ".pem")), keys_(std::make_unique<Keys>()) {
    keys_->certificate = keys_->make(keys_->key.get(), name, 3600);
    add(keys_->certificate.get(), NID_basic_constraints, "critical,CA:TRUE");
    keys_->sign(keys_->certificate.get());
    write_certificate(file_, keys_->certificate.get());
}
Authority::~Authority() = default;

TlsFiles Authority::issue(const std::string& file, const Subject& subject) const {
    const Key key(::EVP_EC_gen("P-256"));
    const Certificate certificate = keys_->make(key.get(), file, subject.valid_seconds);
    std::string names;
    if (!subject.name.empty()) names += "DNS:" + subject.name;
    if (!subject.address.empty()) names += (names.empty() ? "IP:" : ",IP:") + subject.address;
    add(certificate.get(), NID_subject_alt_name, names.c_str());
    keys_->sign(certificate.get());
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

}  // namespace stator::net
