#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <thread>

#include "stator/model/artifacts.h"
#include "stator/model/sha256.h"
#include "stator/model/tiny_gguf.h"

namespace stator::model {
namespace {

namespace fs = std::filesystem;

protocol::Artifact name_of(std::string_view bytes) {
    return {.kind = "chat-template", .sha256 = sha256_hex(bytes), .bytes = bytes.size()};
}

class Cache : public testing::Test {
  protected:
    [[nodiscard]] std::string file(const protocol::Artifact& a) const {
        return folder_ + "/" + a.sha256;
    }
    void age(const protocol::Artifact& a, int hours) const {
        fs::last_write_time(file(a), fs::last_write_time(file(a)) - std::chrono::hours(hours));
    }

    TemporaryFolder temporary_;
    std::string folder_ = temporary_.file("a/b/artifacts");
};

TEST_F(Cache, KeepsWhatIsPutForTheNextProcess) {
    const auto name = name_of("bytes");
    EXPECT_EQ(ArtifactCache(folder_, 1000).find(name), std::nullopt);
    ArtifactCache cache(folder_, 1000);
    ASSERT_TRUE(cache.put(name, "bytes").has_value());
    ASSERT_TRUE(cache.put(name, "bytes").has_value()) << "twice does no harm";
    EXPECT_EQ(ArtifactCache(folder_, 1000).find(name), "bytes");
    struct stat status{};
    ASSERT_EQ(::stat(folder_.c_str(), &status), 0);
    EXPECT_EQ(status.st_mode & 0777U, 0700U);
    EXPECT_EQ(std::distance(fs::directory_iterator(folder_), {}), 1) << "no temporary file is left";
}

TEST_F(Cache, WrongBytesAreRefused) {
    ArtifactCache cache(folder_, 1000);
    EXPECT_EQ(cache.put(name_of("bytes"), "bytez").error().code, ErrorCode::kDataLoss);
    EXPECT_EQ(cache.put(name_of("bytes"), "byte").error().code, ErrorCode::kDataLoss);
    EXPECT_FALSE(fs::exists(folder_));
    protocol::Artifact path = name_of("bytes");
    path.sha256 = "../../" + path.sha256.substr(6);
    EXPECT_EQ(cache.put(path, "bytes").error().code, ErrorCode::kDataLoss);
    EXPECT_EQ(cache.find(path), std::nullopt);
}

TEST_F(Cache, ADamagedFileIsRemoved) {
    ArtifactCache cache(folder_, 1000);
    const auto name = name_of("bytes");
    for (const char* damage : {"bytez", "byte", "", "bytes and more"}) {
        ASSERT_TRUE(cache.put(name, "bytes").has_value());
        write_file(file(name), damage);
        EXPECT_EQ(cache.find(name), std::nullopt) << damage;
        EXPECT_FALSE(fs::exists(file(name))) << damage;
    }
}

TEST_F(Cache, FollowsNoLink) {
    ArtifactCache cache(folder_, 1000);
    const auto name = name_of("bytes");
    ASSERT_TRUE(cache.put(name_of("other"), "other").has_value());
    write_file(temporary_.file("elsewhere"), "bytes");
    fs::create_symlink(temporary_.file("elsewhere"), file(name));
    EXPECT_EQ(cache.find(name), std::nullopt);
    ASSERT_TRUE(cache.put(name, "bytes").has_value());
    EXPECT_EQ(cache.find(name), "bytes");
    EXPECT_FALSE(fs::is_symlink(file(name)));
}

TEST_F(Cache, TheOldestAreForgotten) {
    ArtifactCache cache(folder_, 12);
    const auto a = name_of("aaaa");
    const auto b = name_of("bbbb");
    const auto c = name_of("cccc");
    const auto d = name_of("dddd");
    ASSERT_TRUE(cache.put(a, "aaaa").has_value());
    ASSERT_TRUE(cache.put(b, "bbbb").has_value());
    ASSERT_TRUE(cache.put(c, "cccc").has_value());
    age(a, 3);
    age(b, 2);
    age(c, 1);
    ASSERT_TRUE(cache.find(a).has_value()) << "used: now b is the oldest";
    write_file(folder_ + "/notes.txt", "a file of somebody else's, larger than all");
    write_file(folder_ + "/.stator-artifact-left", "x");
    fs::last_write_time(folder_ + "/.stator-artifact-left",
                        fs::last_write_time(file(a)) - std::chrono::hours(2));
    write_file(folder_ + "/.stator-artifact-new", "x");
    ASSERT_TRUE(cache.put(d, "dddd").has_value());
    EXPECT_EQ(cache.find(b), std::nullopt);
    EXPECT_EQ(cache.find(a), "aaaa");
    EXPECT_EQ(cache.find(c), "cccc");
    EXPECT_EQ(cache.find(d), "dddd");
    EXPECT_TRUE(fs::exists(folder_ + "/notes.txt"));
    EXPECT_FALSE(fs::exists(folder_ + "/.stator-artifact-left")) << "its process died";
    EXPECT_TRUE(fs::exists(folder_ + "/.stator-artifact-new"));
    const std::string large(13, 'l');
    ASSERT_TRUE(cache.put(name_of(large), large).has_value());
    EXPECT_EQ(cache.find(name_of(large)), std::nullopt);
    EXPECT_TRUE(cache.find(a).has_value()) << "nothing was forgotten for it";
}

TEST_F(Cache, AFolderThatTakesNoFilesDoesNoHarm) {
    write_file(temporary_.file("file"), "not a folder");
    ArtifactCache cache(temporary_.file("file") + "/artifacts", 1000);
    testing::internal::CaptureStderr();
    EXPECT_TRUE(cache.put(name_of("bytes"), "bytes").has_value());
    EXPECT_TRUE(cache.put(name_of("bytes"), "bytes").has_value());
    const std::string log = testing::internal::GetCapturedStderr();
    const auto first = log.find("can't be kept");
    EXPECT_NE(first, std::string::npos);
    EXPECT_EQ(log.find("can't be kept", first + 1), std::string::npos) << "said once";
    EXPECT_EQ(cache.find(name_of("bytes")), std::nullopt);
}

TEST_F(Cache, ManyOnOneFolder) {
    std::vector<std::string> all;
    for (char c = 'a'; c < 'k'; ++c) all.emplace_back(10'000, c);
    std::vector<std::thread> threads;
    for (unsigned t = 0; t < 4; ++t) {
        threads.emplace_back([&, t] {
            ArtifactCache cache(folder_, 50'000);  // as processes: nothing is shared but the folder
            for (unsigned i = 0; i < 60; ++i) {
                const std::string& bytes = all[(i * (t + 1)) % all.size()];
                EXPECT_TRUE(cache.put(name_of(bytes), bytes).has_value());
                const auto found = cache.find(name_of(bytes));
                EXPECT_TRUE(!found || *found == bytes);
            }
        });
    }
    for (std::thread& t : threads) t.join();
    ArtifactCache cache(folder_, 50'000);
    ASSERT_TRUE(cache.put(name_of(all[0]), all[0]).has_value());
    EXPECT_EQ(cache.find(name_of(all[0])), all[0]);
    std::uint64_t total = 0;
    for (const auto& entry : fs::directory_iterator(folder_)) total += entry.file_size();
    EXPECT_LE(total, 50'000U);
}

}  // namespace
}  // namespace stator::model
