// The least that an endpoint picker can be on gRPC C++: it reads the request, looks for a text in
// the body, names one endpoint and sends everything on. What `stator epp` is compared with. usage:
// bare_picker LISTEN ENDPOINT
#include <ext_proc.grpc.pb.h>
#include <grpcpp/grpcpp.h>

#include <cstdio>
#include <deque>
#include <mutex>
#include <string>
#include <utility>

namespace {

namespace ep = envoy::service::ext_proc::v3;
using Request = ep::ProcessingRequest;
using Response = ep::ProcessingResponse;

class Stream final : public grpc::ServerBidiReactor<Request, Response> {
  public:
    explicit Stream(const std::string& endpoint) : endpoint_(endpoint) { StartRead(&in_); }

    void OnReadDone(bool ok) override {
        const std::scoped_lock lock(mutex_);
        if (!ok) {
            ended_ = true;
            if (!writing_) Finish(grpc::Status::OK);
            return;
        }
        answer();
        StartRead(&in_);
    }
    void OnWriteDone(bool ok) override {
        const std::scoped_lock lock(mutex_);
        queue_.pop_front();
        writing_ = ok && !queue_.empty();
        if (writing_) {
            StartWrite(&queue_.front());
        } else if (ended_) {
            Finish(grpc::Status::OK);
        }
    }
    void OnDone() override { delete this; }

  private:
    static void piece(ep::CommonResponse& out, std::string body, bool end) {
        auto* streamed = out.mutable_body_mutation()->mutable_streamed_response();
        streamed->set_body(std::move(body));
        streamed->set_end_of_stream(end);
    }
    void answer() {
        Response r;
        switch (in_.request_case()) {
            case Request::kRequestBody: {
                body_ += in_.request_body().body();
                if (!in_.request_body().end_of_stream()) return;
                found_ = body_.find("\"model\"") != std::string::npos;
                auto* common = r.mutable_request_headers()->mutable_response();
                auto* set = common->mutable_header_mutation()->add_set_headers();
                set->mutable_header()->set_key("x-gateway-destination-endpoint");
                set->mutable_header()->set_raw_value(endpoint_);
                set->set_append_action(2);
                push(std::move(r));
                Response body;
                piece(*body.mutable_request_body()->mutable_response(), std::move(body_), true);
                return push(std::move(body));
            }
            case Request::kResponseHeaders:
                r.mutable_response_headers();
                return push(std::move(r));
            case Request::kResponseBody:
                piece(*r.mutable_response_body()->mutable_response(),
                      std::move(*in_.mutable_response_body()->mutable_body()),
                      in_.response_body().end_of_stream());
                return push(std::move(r));
            case Request::kRequestTrailers:
                r.mutable_request_trailers();
                return push(std::move(r));
            case Request::kResponseTrailers:
                r.mutable_response_trailers();
                return push(std::move(r));
            case Request::kRequestHeaders:
            case Request::REQUEST_NOT_SET:
                return;
        }
    }
    void push(Response r) {
        queue_.push_back(std::move(r));
        if (!std::exchange(writing_, true)) StartWrite(&queue_.front());
    }

    const std::string& endpoint_;
    std::mutex mutex_;
    Request in_;
    std::deque<Response> queue_;
    std::string body_;
    bool found_ = false;
    bool writing_ = false;
    bool ended_ = false;
};

class Service final : public ep::ExternalProcessor::CallbackService {
  public:
    explicit Service(std::string endpoint) : endpoint_(std::move(endpoint)) {}
    grpc::ServerBidiReactor<Request, Response>* Process(grpc::CallbackServerContext*) override {
        return new Stream(endpoint_);
    }

  private:
    const std::string endpoint_;
};

}  // namespace

int main(int argc, char** argv) {
    if (argc != 3) {
        std::fputs("usage: bare_picker LISTEN ENDPOINT\n", stderr);
        return 2;
    }
    Service service(argv[2]);
    grpc::ServerBuilder builder;
    int port = 0;
    builder.AddListeningPort(argv[1], grpc::InsecureServerCredentials(), &port);
    builder.RegisterService(&service);
    const auto server = builder.BuildAndStart();
    if (!server) return 1;
    std::printf("%d\n", port);
    std::fflush(stdout);
    server->Wait();
}
