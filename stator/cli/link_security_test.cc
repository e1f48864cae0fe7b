#include "stator/cli/link_security.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include "stator/cli/scratch_folder.h"

namespace stator::cli {
namespace {

using testing::HasSubstr;
using Side = LinkSecurity::Side;

class LinkSecurityTest : public testing::Test {
  protected:
    std::string secret_file(const std::string& text, mode_t mode = 0600) {
        const std::string path = folder_.write("secret", text);
        EXPECT_EQ(::chmod(path.c_str(), mode), 0);
        return path;
    }
    ScratchFolder folder_;
};

TEST_F(LinkSecurityTest, NothingGivenIsNothingAsked) {
    const auto s = LinkSecurity::read({}, Side::kWorker);
    ASSERT_TRUE(s);
    EXPECT_EQ((*s)->secret(), "");
    EXPECT_EQ((*s)->tls(), nullptr);
    EXPECT_FALSE((*s)->reloadable());
}

TEST_F(LinkSecurityTest, ASecretIsReadWithoutItsLineEndAndAgainOnReload) {
    config::LinkSettings settings;
    settings.secret_file = secret_file("0123456789abcdef0123\r\n");
    const auto s = LinkSecurity::read(settings, Side::kFrontend);
    ASSERT_TRUE(s) << s.error().message;
    EXPECT_EQ((*s)->secret(), "0123456789abcdef0123");
    EXPECT_TRUE((*s)->reloadable());
    secret_file("another secret, also long\n");
    ASSERT_TRUE((*s)->reload());
    EXPECT_EQ((*s)->secret(), "another secret, also long");
    secret_file("short\n");
    EXPECT_FALSE((*s)->reload());
    EXPECT_EQ((*s)->secret(), "another secret, also long");
}

TEST_F(LinkSecurityTest, ASecretThatOthersCanReadOrGuessIsRefused) {
    config::LinkSettings settings;
    settings.secret_file = secret_file("0123456789abcdef", 0644);
    EXPECT_THAT(LinkSecurity::read(settings, Side::kWorker).error().message, HasSubstr("chmod"));
    settings.secret_file = secret_file("x\n");
    EXPECT_THAT(LinkSecurity::read(settings, Side::kWorker).error().message,
                HasSubstr("at least 16"));
    settings.secret_file = folder_.file("absent");
    EXPECT_FALSE(LinkSecurity::read(settings, Side::kWorker));
}

TEST_F(LinkSecurityTest, HalfACertificateIsRefused) {
    config::LinkSettings settings;
    settings.certificate = "a.pem";
    EXPECT_THAT(LinkSecurity::read(settings, Side::kWorker).error().message,
                HasSubstr("belong together"));
    settings = {};
    settings.authorities = "ca.pem";
    EXPECT_THAT(LinkSecurity::read(settings, Side::kWorker).error().message,
                HasSubstr("--link-certificate"));
}

TEST(CheckLinkBind, BeyondTheMachineSomethingMustBeProved) {
    const auto everywhere = net::parse_socket_address("0.0.0.0:7000").value();
    const auto here = net::parse_socket_address("127.0.0.1:7000").value();
    const auto unix_socket = net::parse_socket_address("unix:/tmp/x.sock").value();
    EXPECT_TRUE(check_link_bind(here, {}, false));
    EXPECT_TRUE(check_link_bind(unix_socket, {}, false));
    EXPECT_TRUE(check_link_bind(everywhere, {}, true));
    config::LinkSettings proved;
    proved.secret_file = "secret";
    EXPECT_TRUE(check_link_bind(everywhere, proved, false));
    const auto refused = check_link_bind(everywhere, {}, false);
    ASSERT_FALSE(refused);
    EXPECT_THAT(refused.error().message, HasSubstr("--link-secret-file"));
}

}  // namespace
}  // namespace stator::cli
