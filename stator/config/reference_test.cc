#include "stator/config/reference.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>
#include <iterator>
#include <string>

namespace stator::config {
namespace {

TEST(Reference, CommittedManualIsTheGeneratedOne) {
    std::ifstream in(STATOR_SOURCE_DIR "/docs/configuration.md", std::ios::binary);
    ASSERT_TRUE(in.is_open());
    const std::string committed(std::istreambuf_iterator<char>(in), {});
    EXPECT_EQ(committed, markdown_reference())
        << "Write it anew: stator config --markdown > docs/configuration.md";
}

TEST(Reference, EveryOptionHasARow) {
    const std::string manual = markdown_reference();
    for (const Option& o : options()) {
        EXPECT_NE(manual.find("| `" + std::string(o.key) + "` | `" + std::string(o.flag) + "` | `" +
                              o.environment() + "` |"),
                  std::string::npos)
            << o.key;
    }
}

TEST(Reference, RowsHaveSixCells) {
    const std::string manual = markdown_reference();
    std::size_t begin = 0;
    while (begin < manual.size()) {
        const std::size_t end = std::min(manual.find('\n', begin), manual.size());
        const std::string line = manual.substr(begin, end - begin);
        if (line.starts_with("|")) {
            EXPECT_EQ(std::ranges::count(line, '|'), 7) << line;
        }
        begin = end + 1;
    }
}

TEST(Reference, WordsForDefaultsAndChoices) {
    EXPECT_EQ(default_text(*find_option("server.port")), "8000");
    EXPECT_EQ(default_text(*find_option("server.grace")), "30s");
    EXPECT_EQ(default_text(*find_option("model.path")), "none");
    EXPECT_EQ(default_text(*find_option("model.aliases")), "none");
    EXPECT_EQ(default_text(*find_option("sampling.top_p")), "the model file's, else 1");
    EXPECT_EQ(choices_text(*find_option("server.port")), "0 to 65535");
    EXPECT_EQ(choices_text(*find_option("limits.max_body_size")), "1K to 4G");
    EXPECT_EQ(choices_text(*find_option("log.format")), "text, json");
    EXPECT_EQ(choices_text(*find_option("sampling.top_p")), "above 0 to 1");
    EXPECT_EQ(choices_text(*find_option("server.host")), "");
}

}  // namespace
}  // namespace stator::config
