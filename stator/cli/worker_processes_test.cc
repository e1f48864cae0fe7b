#include "stator/cli/worker_processes.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

namespace stator::cli {
namespace {

std::vector<control::ChildSpec> worker_commands(const std::string& program,
                                                const std::vector<std::string>& flags,
                                                const config::Settings& settings,
                                                const std::vector<config::TopologyWorker>& topology,
                                                const std::string& folder, std::size_t cores) {
    return WorkerCommands(program, flags, settings, topology, folder, cores).all();
}

using testing::Contains;
using testing::Not;
using testing::StartsWith;

TEST(WorkerCommands, EachGetsOurFlagsThenItsOwn) {
    config::Settings settings;
    settings.supervisor.workers = 2;
    const auto children =
        worker_commands("/bin/stator", {"--model", "m.gguf"}, settings, {}, "/run/x", 8);
    ASSERT_EQ(children.size(), 2U);
    EXPECT_EQ(children[1].name, "worker-1");
    const auto& command = children[1].command;
    EXPECT_EQ((std::vector<std::string>(command.begin(), command.begin() + 4)),
              (std::vector<std::string>{"/bin/stator", "worker", "--model", "m.gguf"}));
    EXPECT_THAT(command, Contains("--worker-name=worker-1"));
    EXPECT_THAT(command, Contains("--announce=/run/x"));
    // A worker and its successor are there together for a while.
    EXPECT_THAT(command, Contains("--listen=unix:/run/x/worker-1.%p.sock"));
    EXPECT_THAT(command, Contains("--engine-threads=2"));
    settings.worker.count = 3;
    EXPECT_THAT(worker_commands("/bin/stator", {}, settings, {}, "/run/x", 8)[1].command,
                Contains("--listen=unix:/run/x/worker-1.%p.%i.sock"));
}

TEST(WorkerCommands, ThreadsAreNotDividedWhereSomebodySaysHowMany) {
    config::Settings settings;
    settings.supervisor.workers = 1;
    settings.engine.threads = 3;
    const auto children = worker_commands("s", {}, settings, {}, "/x", 8);
    EXPECT_THAT(children[0].command, Not(Contains(StartsWith("--engine-threads"))));
}

TEST(WorkerCommands, TheTopologysOptionsComeLast) {
    config::TopologyWorker kind;
    kind.name = "small";
    kind.count = 3;
    kind.options.emplace_back(config::find_option("engine.threads"), "1");
    kind.environment.emplace_back("CUDA_VISIBLE_DEVICES", "0");
    const auto children = worker_commands("s", {}, config::Settings{}, {kind}, "/x", 8);
    ASSERT_EQ(children.size(), 3U);
    EXPECT_EQ(children[2].name, "small-2");
    EXPECT_EQ(children[2].command.back(), "--engine-threads=1");
    EXPECT_EQ(children[2].environment.at("CUDA_VISIBLE_DEVICES"), "0");
}

TEST(WorkerCommands, EachAttachedEngineHasAWorker) {
    config::Settings settings;
    settings.engine.kind = config::EngineKind::kAttached;
    settings.engine.attached = {
        {"vllm", "http://a:1"}, {"openai", "http://b"}, {"vllm", "http://c"}};
    settings.engine.events = {"tcp://a:5557", "off", "tcp://c:5557"};
    const auto children = worker_commands("s",
                                          {"--engine", "vllm=http://a:1", "--engine=vllm=http://c",
                                           "--engine-events", "x", "--engine-key-file", "k"},
                                          settings, {}, "/x", 8);
    ASSERT_EQ(children.size(), 2U);
    EXPECT_EQ(children[0].name, "vllm-0");
    EXPECT_EQ(children[1].name, "vllm-1");
    EXPECT_EQ(
        (std::vector<std::string>(children[1].command.begin(), children[1].command.begin() + 6)),
        (std::vector<std::string>{"s", "worker", "--engine-key-file", "k", "--engine=vllm=http://c",
                                  "--engine-events=tcp://c:5557"}));
    EXPECT_THAT(children[0].command, Not(Contains("--engine=vllm=http://c")));
}

TEST(WorkerCommands, ATopologysEngineIsTheOnlyOne) {
    config::TopologyWorker kind;
    kind.name = "far";
    kind.options.emplace_back(config::find_option("engine.kind"), "vllm=http://a");
    const auto children =
        worker_commands("s", {"--engine", "mock"}, config::Settings{}, {kind}, "/x", 8);
    EXPECT_THAT(children[0].command, Not(Contains("--engine")));
    EXPECT_EQ(children[0].command.back(), "--engine=vllm=http://a");
}

TEST(WorkerCommands, KindsMayGrow) {
    config::Settings settings;
    settings.supervisor.workers = 1;
    config::TopologyWorker kind;
    kind.name = "first";
    kind.count = 2;
    kind.options.emplace_back(config::find_option("worker.roles"), "prefill, encode");
    const std::vector topology{kind};
    const std::vector<std::string> flags;
    WorkerCommands commands("s", flags, settings, topology, "/x", 32);
    ASSERT_EQ(commands.kinds().size(), 2U);
    EXPECT_EQ(commands.kinds()[0].roles, std::vector<std::string>{"aggregated"});
    EXPECT_EQ(commands.kinds()[1].roles, (std::vector<std::string>{"prefill", "encode"}));
    EXPECT_EQ(commands.kinds()[1].count, 2U);
    EXPECT_THAT(commands.child(0, 0).command, Contains("--engine-threads=5"));
    commands.divide_cores_by(8);
    EXPECT_EQ(commands.child(1, 6).name, "first-6");
    EXPECT_THAT(commands.child(1, 6).command, Contains("--engine-threads=2"));
}

TEST(RunFolder, IsGoneInTheEnd) {
    std::string path;
    {
        const auto folder = RunFolder::make();
        ASSERT_TRUE(folder) << folder.error().message;
        path = (*folder)->path();
        EXPECT_TRUE(std::filesystem::is_directory(path));
    }
    EXPECT_FALSE(std::filesystem::exists(path));
}

}  // namespace
}  // namespace stator::cli
