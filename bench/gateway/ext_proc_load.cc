// Asks an endpoint picker as a proxy does, one request after the other on each of some streams:
// headers, body in pieces, the picker's answer, an answer of the server. usage: ext_proc_load
// ADDRESS STREAMS REQUESTS PATH BODY-FILE… The bodies are used in turn. Prints a JSON object.
#include <ext_proc.grpc.pb.h>
#include <grpcpp/grpcpp.h>

#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "stator/base/clock.h"

namespace {

namespace ep = envoy::service::ext_proc::v3;
constexpr std::size_t kPiece = 16384;

ep::ProcessingRequest headers_of(const std::string& path) {
    ep::ProcessingRequest r;
    auto* map = r.mutable_request_headers()->mutable_headers();
    for (const auto& [name, value] : {std::pair<std::string, std::string>{":method", "POST"},
                                      {":path", path},
                                      {":authority", "bench"},
                                      {"content-type", "application/json"}}) {
        auto* h = map->add_headers();
        h->set_key(name);
        h->set_raw_value(value);
    }
    r.mutable_protocol_config()->set_request_body_mode(4);
    r.mutable_protocol_config()->set_response_body_mode(4);
    return r;
}

/// False: the picker refused, or the stream broke.
bool ask(ep::ExternalProcessor::Stub& stub, const std::string& path, const std::string& body) {
    grpc::ClientContext context;
    const auto stream = stub.Process(&context);
    stream->Write(headers_of(path));
    for (std::size_t at = 0; at < body.size(); at += kPiece) {
        ep::ProcessingRequest piece;
        piece.mutable_request_body()->set_body(body.substr(at, kPiece));
        piece.mutable_request_body()->set_end_of_stream(at + kPiece >= body.size());
        if (!stream->Write(piece)) break;
    }
    ep::ProcessingResponse answer;
    bool done = false;
    while (!done && stream->Read(&answer)) {
        if (answer.has_immediate_response()) break;
        done = answer.request_body().response().body_mutation().streamed_response().end_of_stream();
    }
    if (done) {
        ep::ProcessingRequest response;
        auto* status = response.mutable_response_headers()->mutable_headers()->add_headers();
        status->set_key(":status");
        status->set_raw_value("200");
        response.mutable_response_headers()->set_end_of_stream(true);
        done = stream->Write(response) && stream->Read(&answer);
    }
    stream->WritesDone();
    while (stream->Read(&answer)) continue;
    return stream->Finish().ok() && done;
}

}  // namespace

int main(int argc, char** argv) {
    if (argc < 6) {
        std::fputs("usage: ext_proc_load ADDRESS STREAMS REQUESTS PATH BODY-FILE…\n", stderr);
        return 2;
    }
    const std::string path = argv[4];
    std::vector<std::string> bodies;
    for (int i = 5; i < argc; ++i) {
        std::ifstream file(argv[i], std::ios::binary);
        std::ostringstream text;
        text << file.rdbuf();
        bodies.push_back(text.str());
    }
    const int requests = std::atoi(argv[3]);
    grpc::ChannelArguments arguments;
    arguments.SetMaxReceiveMessageSize(-1);
    const auto channel =
        grpc::CreateCustomChannel(argv[1], grpc::InsecureChannelCredentials(), arguments);
    std::atomic<int> next{0};
    std::atomic<int> failed{0};
    const stator::Clock& clock = stator::Clock::real();
    const auto begin = clock.now();
    std::vector<std::thread> threads;
    for (int s = 0; s < std::atoi(argv[2]); ++s) {
        threads.emplace_back([&] {
            const auto stub = ep::ExternalProcessor::NewStub(channel);
            for (int i = next.fetch_add(1); i < requests; i = next.fetch_add(1)) {
                if (!ask(*stub, path, bodies[static_cast<std::size_t>(i) % bodies.size()]))
                    ++failed;
            }
        });
    }
    for (std::thread& t : threads) t.join();
    const double seconds = std::chrono::duration<double>(clock.now() - begin).count();
    std::printf("{\"requests\": %d, \"failed\": %d, \"seconds\": %.6f}\n", requests, failed.load(),
                seconds);
    return failed.load() == 0 ? 0 : 1;
}
