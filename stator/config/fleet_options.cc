#include "stator/config/option_table.h"

namespace stator::config::table {
namespace {

void add_supervisor(std::vector<Option>& t) {
    using S = Settings;
    using V = SupervisorSettings;
    t.push_back(option<&S::supervisor, &V::workers>(
                    "supervisor.workers", "--workers",
                    "Worker processes for `stator serve` to start and keep running. 0: the model "
                    "is computed in the server's own process.")
                    .range(0, 1024)
                    .in("processes"));
    t.push_back(option<&S::supervisor, &V::topology>(
                    "supervisor.topology", "--topology",
                    "YAML file that names the workers to start, each with options of its own; "
                    "docs/fleet.md shows one. Or a word: pd for a prefill and a decode worker, epd "
                    "for these and one that encodes images.")
                    .in("file"));
    t.push_back(option<&S::supervisor, &V::restart_min>(
                    "supervisor.restart_min", "--restart-min",
                    "How long after its end a worker is started again; doubled each time it ends "
                    "early, up to --restart-max.")
                    .range(1, kDay_ms));
    t.push_back(option<&S::supervisor, &V::restart_max>(
                    "supervisor.restart_max", "--restart-max",
                    "Longest time between a worker's end and its next start.")
                    .range(1, kDay_ms));
}

void add_kube(std::vector<Option>& t) {
    using S = Settings;
    using K = KubeSettings;
    t.push_back(option<&S::kube, &K::api>(
                    "kube.api", "--kube-api",
                    "Kubernetes API server (https://HOST:PORT). If empty: the one of the cluster "
                    "in which this is a pod, with the pod's service account.")
                    .in("url"));
    t.push_back(option<&S::kube, &K::token_file>(
                    "kube.token_file", "--kube-token-file",
                    "File with the bearer token for the Kubernetes API; read again each minute and "
                    "when it is refused.")
                    .in("file"));
    t.push_back(option<&S::kube, &K::ca_file>(
                    "kube.ca_file", "--kube-ca",
                    "PEM file of who may sign the Kubernetes API server's certificate. If empty: "
                    "in a pod the cluster's, else the system's authorities.")
                    .in("file"));
}

void add_fleet(std::vector<Option>& t) {
    using S = Settings;
    using F = FleetSettings;
    t.push_back(option<&S::fleet, &F::discover>(
                    "fleet.discover", "--discover",
                    "Where workers are: HOST:PORT, unix:/PATH, static:A,B, dir:/FOLDER (files that "
                    "workers write), dns:NAME:PORT or kubernetes:NAMESPACE/SERVICE. If empty: the "
                    "user's run-time folder.")
                    .in("source"));
    t.push_back(option<&S::fleet, &F::upstreams>(
                    "fleet.upstreams", "--upstream",
                    "An OpenAI-compatible server (http://HOST:PORT) that gets requests for its "
                    "models as they come: it templates and tokenises by itself. Several share "
                    "the load; without --discover no workers are looked for.")
                    .in("url"));
    t.push_back(option<&S::fleet, &F::upstream_key_file>(
                    "fleet.upstream_key_file", "--upstream-key-file",
                    "File whose first line is the API key for the upstreams. If empty, and if this "
                    "server asks for no keys, the client's own key is passed on.")
                    .in("file"));
    t.push_back(option<&S::fleet, &F::aliases>("fleet.aliases", "--alias",
                                               "A further name for a model of the fleet, written "
                                               "ALIAS=MODEL.")
                    .in("alias=model"));
    t.push_back(
        option<&S::fleet, &F::new_pool_share>(
            "fleet.new_pool_share", "--new-pool-share",
            "Share of a model's traffic, in percent, for workers whose weights, tokenizer or "
            "layout differ from those that served it first: a rolling upgrade.")
            .range(0, 100)
            .in("percent")
            .unset("in proportion to the ranks that are ready"));
    t.push_back(option<&S::fleet, &F::pool_shares>(
                    "fleet.pool_shares", "--pool-share",
                    "The same for one pool, written POOL=PERCENT; /health shows the pools.")
                    .in("pool=percent"));
    t.push_back(option<&S::fleet, &F::max_migrations>(
                    "fleet.max_migrations", "--max-migrations",
                    "How often a request may go on at another worker after its own was lost.")
                    .range(0, 100)
                    .in("times"));
    t.push_back(option<&S::fleet, &F::wait_for_worker>(
                    "fleet.wait_for_worker", "--wait-for-worker",
                    "How long a request may wait while no worker is ready; then 503 with "
                    "Retry-After.")
                    .range(0, kDay_ms));
    t.push_back(option<&S::fleet, &F::canary_after>(
                    "fleet.canary_after", "--canary-after",
                    "After so long without a step of its engine, a worker with open requests is "
                    "asked for one token, to see whether it is stuck.")
                    .range(100, kDay_ms));
    t.push_back(option<&S::fleet, &F::canary_within>(
                    "fleet.canary_within", "--canary-within",
                    "A worker so asked loses its requests to others if none comes "
                    "within this.")
                    .range(100, kDay_ms));
    t.push_back(option<&S::fleet, &F::artifact_folder>(
                    "fleet.artifact_folder", "--artifact-folder",
                    "Where tokenizers and templates that came from workers are kept. If empty: in "
                    "the user's cache folder.")
                    .in("folder"));
    t.push_back(option<&S::fleet, &F::artifact_size>("fleet.artifact_size", "--artifact-size",
                                                     "How much is kept there.")
                    .range(0, 1e15));
}

void add_router(std::vector<Option>& t) {
    using S = Settings;
    using R = RouterSettings;
    t.push_back(option<&S::router, &R::policy>(
                    "router.policy", "--router-policy",
                    "How a worker is chosen: expected-ttft (least predicted seconds to the first "
                    "token), dynamo, least-loaded, power-of-two, round-robin, random, "
                    "consistent-hash, direct (the one that the request names).")
                    .in("policy"));
    t.push_back(option<&S::router, &R::work_weight>(
                    "router.work_weight", "--router-work-weight",
                    "expected-ttft: seconds charged for each second of prefill that a request "
                    "takes of a worker. More prefers reuse to an idle worker.")
                    .range(0, 1000));
    t.push_back(option<&S::router, &R::queue_weight>(
                    "router.queue_weight", "--router-queue-weight",
                    "expected-ttft: times the seconds by which requests to come are held up while "
                    "a worker's queue lasts, as their measured rate says.")
                    .range(0, 1000));
    t.push_back(option<&S::router, &R::itl_weight>(
                    "router.itl_weight", "--router-itl-weight",
                    "expected-ttft: seconds charged for each second by which each answer under "
                    "way there is held up.")
                    .range(0, 1000));
    t.push_back(option<&S::router, &R::occupancy_weight>(
                    "router.occupancy_weight", "--router-occupancy-weight",
                    "expected-ttft: seconds charged for a worker that runs as many requests as it "
                    "can, for others in proportion.")
                    .range(0, 1000));
    t.push_back(option<&S::router, &R::preference_weight>(
                    "router.preference_weight", "--router-preference-weight",
                    "expected-ttft: seconds charged for each label that a request prefers "
                    "(x-stator-prefer) and a worker lacks, and for a worker's label avoid=X that "
                    "the request does not tolerate.")
                    .range(0, 1000));
    t.push_back(option<&S::router, &R::error_band>(
                    "router.error_band", "--router-error-band",
                    "expected-ttft: workers within so many standard deviations of the best "
                    "prediction are as good as it, and one is drawn.")
                    .range(0, 10));
    t.push_back(option<&S::router, &R::overlap_weight>(
                    "router.overlap_weight", "--router-overlap-weight",
                    "dynamo: weight of blocks to prefill against blocks that decode.")
                    .range(0, 1000));
    t.push_back(option<&S::router, &R::temperature>(
                    "router.temperature", "--router-temperature",
                    "dynamo: 0 takes the cheapest worker, more draws among them.")
                    .range(0, 1000));
    t.push_back(option<&S::router, &R::prefix_blocks>(
                    "router.prefix_blocks", "--router-prefix-blocks",
                    "consistent-hash: so many leading blocks of a prompt are hashed, where the "
                    "request has no session.")
                    .range(1, 1'000'000)
                    .in("blocks"));
    t.push_back(option<&S::router, &R::session_slack>(
                    "router.session_slack", "--router-session-slack",
                    "A session stays with its worker where that costs at most so much more than "
                    "the best.")
                    .range(0, kDay_ms));
    t.push_back(option<&S::router, &R::session_ttl>(
                    "router.session_ttl", "--router-session-ttl",
                    "How long after its last request a session's worker is remembered.")
                    .range(0, kDay_ms));
    t.push_back(option<&S::router, &R::disaggregation>(
                    "router.disaggregation", "--router-disaggregation",
                    "Whether one worker computes a prompt and another one generates, where there "
                    "are workers for either: conditional (where it is predicted to be better), "
                    "always, never.")
                    .in("choice"));
    t.push_back(option<&S::router, &R::split_itl_weight>(
                    "router.split_itl_weight", "--router-split-itl-weight",
                    "conditional: seconds charged for each second by which a prompt that another "
                    "worker could compute holds up each answer that is being generated. More "
                    "splits shorter prompts.")
                    .range(0, 1000));
    t.push_back(option<&S::router, &R::kv_events>(
        "router.kv_events", "--router-kv-events",
        "Follow the workers' KV events, to know which prefixes they hold. Without, what was sent "
        "to a worker is taken to be there."));
    t.push_back(option<&S::router, &R::predict_ttl>(
                    "router.predict_ttl", "--router-predict-ttl",
                    "How long blocks sent to a worker that publishes no KV events are taken to be "
                    "there.")
                    .range(0, kDay_ms));
    t.push_back(option<&S::router, &R::index_size>(
                    "router.index_size", "--router-index-size",
                    "Memory for knowing which worker holds which prefix, for each pool; beyond, "
                    "what was stored long ago is forgotten.")
                    .range(1024.0 * 1024, 1e15));
    t.push_back(option<&S::router, &R::index_tenant_share>(
                    "router.index_tenant_share", "--router-index-tenant-share",
                    "Share of what the index can hold, in percent, for what is taken to be at "
                    "workers without KV events because of one tenant's requests; beyond, its own "
                    "oldest guesses end. Those without a tenant are one. 100: no limit.")
                    .range(1, 100)
                    .in("percent"));
    t.push_back(option<&S::router, &R::remote>(
                    "router.remote", "--router-remote",
                    "URL of a `stator router` that is asked where each request should go, so that "
                    "several frontends choose as one: http://HOST:PORT. If it does not answer, "
                    "this frontend chooses by itself. If empty: it always does.")
                    .in("url"));
    t.push_back(option<&S::router, &R::remote_key_file>(
                    "router.remote_key_file", "--router-remote-key-file",
                    "File whose first line is the API key for it.")
                    .in("file"));
    t.push_back(option<&S::router, &R::remote_timeout>("router.remote_timeout",
                                                       "--router-remote-timeout",
                                                       "How long a request waits for its answer.")
                    .range(1, 60'000));
    t.push_back(option<&S::router, &R::hints>(
                    "router.hints", "--router-hints",
                    "Whose headers x-stator-worker, -priority, -explain and so on are honoured: "
                    "nobody, local (callers on this machine; behind a proxy say nobody), "
                    "everybody. x-stator-session is taken from all.")
                    .in("who"));
    t.push_back(option<&S::router, &R::hold>(
                    "router.hold", "--router-hold",
                    "A request waits at the router while the best worker for it has prompts of "
                    "more than this before it, or can't run it soon.")
                    .range(0, kDay_ms));
    t.push_back(option<&S::router, &R::queue>(
                    "router.queue", "--router-queue",
                    "Requests that may wait so, for each pool; beyond, the least urgent are "
                    "refused. 0: none waits.")
                    .range(0, 1e6)
                    .in("requests"));
    t.push_back(option<&S::router, &R::queue_per_tenant>(
                    "router.queue_per_tenant", "--router-queue-per-tenant",
                    "Of these, so many of one tenant; those without a tenant are one.")
                    .range(1, 1e6)
                    .in("requests"));
    t.push_back(option<&S::router, &R::promote_after>(
                    "router.promote_after", "--router-promote-after",
                    "Who has waited so long counts as more urgent by a class. 0: never.")
                    .range(0, kDay_ms));
    t.push_back(option<&S::router, &R::tenants>(
                    "router.tenants", "--router-tenant",
                    "Weight of a tenant, written NAME=WEIGHT: its share of the workers while "
                    "others wait too, beside 1 for those not named.")
                    .in("name=weight"));
    t.push_back(option<&S::router, &R::replica_sync>(
        "router.replica_sync", "--router-replica-sync",
        "Share bookings with the other frontends found in the folders where workers are looked "
        "for, and those of --router-peers."));
    t.push_back(option<&S::router, &R::peers>(
                    "router.peers", "--router-peers",
                    "Where the other frontends' events may be subscribed to, if no folder tells: a "
                    "source, as of workers, such as dns:NAME:PORT or static:A,B.")
                    .in("source"));
    t.push_back(option<&S::router, &R::events>(
                    "router.events", "--router-events",
                    "ZeroMQ address at which other frontends hear of this one's bookings. If "
                    "empty: a socket in the user's run-time folder, or of loopback where others "
                    "are found elsewhere. Keys are those of --events-key-file.")
                    .in("address"));
    t.push_back(option<&S::router, &R::events_advertise>(
                    "router.events_advertise", "--router-events-advertise",
                    "ZeroMQ address to announce, where it is another than the one bound.")
                    .in("address"));
}

void add_worker(std::vector<Option>& t) {
    using S = Settings;
    using W = WorkerSettings;
    t.push_back(option<&S::worker, &W::name>("worker.name", "--worker-name",
                                             "Name of the worker, kept over restarts. If empty: "
                                             "made from the host's name and the process.")
                    .in("name"));
    t.push_back(option<&S::worker, &W::count>(
                    "worker.count", "--worker-count",
                    "So many workers in this one process, NAME-0 and on, which share its threads "
                    "(mock engine alone). A port given counts up, %i in an address is the "
                    "worker's number. `stator worker` takes --count for it, too.")
                    .range(1, 4096)
                    .in("workers"));
    t.push_back(option<&S::worker, &W::listen>(
                    "worker.listen", "--listen",
                    "Where the worker takes links from frontends: HOST:PORT or "
                    "unix:/PATH; port 0 takes a free one, %p stands for the process id. "
                    "If empty: a Unix "
                    "socket in the user's run-time folder.")
                    .in("address"));
    t.push_back(option<&S::worker, &W::advertise>(
                    "worker.advertise", "--advertise",
                    "Address to announce, where others reach it by another than the one listened "
                    "on.")
                    .in("address"));
    t.push_back(option<&S::worker, &W::announce>(
                    "worker.announce", "--announce",
                    "Folder to announce the worker in, or off. If empty: the user's run-time "
                    "folder.")
                    .in("folder"));
    t.push_back(option<&S::worker, &W::roles>(
                    "worker.roles", "--role",
                    "What the worker does in a request's life: aggregated (all of it), prefill "
                    "(the prompt), decode (the output, from KV that a prefill worker has made), "
                    "encode (images and videos). Several may be given.")
                    .in("role"));
    t.push_back(option<&S::worker, &W::labels>("worker.labels", "--label",
                                               "Where the worker is, for placement, written "
                                               "KEY=VALUE: zone=a, rack=7. Workers that share "
                                               "memory find out by themselves (host).")
                    .in("key=value"));
    t.push_back(option<&S::worker, &W::http>(
                    "worker.http", "--worker-http",
                    "HOST:PORT where the worker shows /health, /live and /metrics. If empty: "
                    "nowhere.")
                    .in("address"));
    t.push_back(option<&S::worker, &W::events>(
                    "worker.events", "--events",
                    "ZeroMQ address for events, such as tcp://127.0.0.1:* or ipc:///PATH, or off. "
                    "If empty: beside the link, of the same kind.")
                    .in("address"));
    t.push_back(option<&S::worker, &W::events_advertise>(
                    "worker.events_advertise", "--events-advertise",
                    "ZeroMQ address to announce, where it is another than the one bound.")
                    .in("address"));
    t.push_back(option<&S::worker, &W::events_key_file>(
                    "worker.events_key_file", "--events-key-file",
                    "CURVE keys for events, as `stator events keygen` writes them: subscribers "
                    "must encrypt.")
                    .in("file"));
    t.push_back(option<&S::worker, &W::events_allow_file>(
                    "worker.events_allow_file", "--events-allow-file",
                    "Public keys of those who may subscribe, one a line. If empty: who knows ours.")
                    .in("file"));
}

void add_transfer(std::vector<Option>& t) {
    using S = Settings;
    using T = TransferSettings;
    t.push_back(option<&S::transfer, &T::methods>(
                    "transfer.methods", "--transfer",
                    "Ways in which handoffs may travel, best first: shm (shared memory, on one "
                    "host), nixl (RDMA, GPU memory; where NVIDIA's library is found), tcp.")
                    .in("method"));
    t.push_back(option<&S::transfer, &T::size>(
                    "transfer.size", "--transfer-size",
                    "Memory for handoffs that nobody has taken yet; a worker that has no more "
                    "makes none, and the prompt is computed where the output is.")
                    .range(1024.0 * 1024, 1e15));
    t.push_back(option<&S::transfer, &T::incoming_size>(
                    "transfer.incoming_size", "--transfer-incoming-size",
                    "Bytes of handoffs that a worker receives at the same time; others wait.")
                    .range(1024.0 * 1024, 1e15));
    t.push_back(
        option<&S::transfer, &T::lease>("transfer.lease", "--transfer-lease",
                                        "How long a handoff is kept for whoever should take it.")
            .range(100, kDay_ms));
    t.push_back(option<&S::transfer, &T::timeout>(
                    "transfer.timeout", "--transfer-timeout",
                    "How long a worker waits for a handoff to arrive before it computes the "
                    "prompt itself.")
                    .range(10, kDay_ms));
    t.push_back(option<&S::transfer, &T::listen>(
                    "transfer.listen", "--transfer-listen",
                    "HOST:PORT where other workers fetch handoffs over TCP; port 0 takes a free "
                    "one. If empty: a free port of the host of --listen, or of loopback.")
                    .in("address"));
    t.push_back(option<&S::transfer, &T::advertise>(
                    "transfer.advertise", "--transfer-advertise",
                    "Host to announce for it, where others reach it by another.")
                    .in("host"));
    t.push_back(option<&S::transfer, &T::connections>(
                    "transfer.connections", "--transfer-connections",
                    "TCP connections over which one handoff may come at once.")
                    .range(1, 64)
                    .in("connections"));
    t.push_back(option<&S::transfer, &T::checksums>(
        "transfer.checksums", "--transfer-checksums",
        "Check what came over TCP against checksums of the sender's."));
    t.push_back(option<&S::transfer, &T::nixl_library>(
                    "transfer.nixl_library", "--nixl-library",
                    "Path of libnixl_capi.so, or off. If empty: it is looked for. `stator config` "
                    "says whether it can be used, and why not.")
                    .in("file"));
}

void add_link(std::vector<Option>& t) {
    using S = Settings;
    using L = LinkSettings;
    t.push_back(option<&S::link, &L::secret_file>(
                    "link.secret_file", "--link-secret-file",
                    "File with the secret that frontends and workers share; both prove that they "
                    "know it. Read again on SIGHUP.")
                    .in("file"));
    t.push_back(option<&S::link, &L::certificate>("link.certificate", "--link-certificate",
                                                  "PEM certificate for TLS on links. Read again "
                                                  "on SIGHUP, like the two below.")
                    .in("file"));
    t.push_back(option<&S::link, &L::key>("link.key", "--link-key", "PEM key of it.").in("file"));
    t.push_back(option<&S::link, &L::authorities>(
                    "link.authorities", "--link-authorities",
                    "PEM certificates that may sign the other side's. A worker that has them asks "
                    "for a certificate; a frontend that has them uses TLS.")
                    .in("file"));
    t.push_back(option<&S::link, &L::silent_after>("link.silent_after", "--link-silent-after",
                                                   "After so long without a byte a worker gets "
                                                   "no new requests.")
                    .range(100, kDay_ms));
    t.push_back(
        option<&S::link, &L::lost_after>(
            "link.lost_after", "--link-lost-after",
            "After so long without a byte a worker is lost, and its requests go on elsewhere.")
            .range(200, kDay_ms));
}

}  // namespace

void add_fleet_options(std::vector<Option>& t) {
    add_supervisor(t);
    add_fleet(t);
    add_kube(t);
    add_router(t);
    add_worker(t);
    add_transfer(t);
    add_link(t);
}

}  // namespace stator::config::table
