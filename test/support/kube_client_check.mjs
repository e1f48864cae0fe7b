// What an independent client makes of an API server: lists in pages, watches, a lease, the scale
// subresource. Arguments: the API server's URL, a token, a namespace. Prints one line of JSON.
// NODE_PATH must lead to @kubernetes/client-node.
import { createRequire } from "node:module";
const require = createRequire(process.env.STATOR_KUBERNETES_CLIENT + "/");
const k8s = require("@kubernetes/client-node");

const [url, token, namespace] = process.argv.slice(2);
const config = new k8s.KubeConfig();
config.loadFromOptions({
  clusters: [{ name: "c", server: url, skipTLSVerify: true }],
  users: [{ name: "u", token }],
  contexts: [{ name: "x", cluster: "c", user: "u" }],
  currentContext: "x",
});
const slices = config.makeApiClient(k8s.DiscoveryV1Api);
const leases = config.makeApiClient(k8s.CoordinationV1Api);
const out = { events: [] };

// Pages.
const names = [];
let next;
do {
  const page = await slices.listNamespacedEndpointSlice({ namespace, limit: 2, _continue: next });
  names.push(...page.items.map((i) => i.metadata.name));
  next = page.metadata._continue;
  out.version = page.metadata.resourceVersion;
} while (next);
out.names = names.sort();

// A watch, with an object made, changed and deleted meanwhile.
const slice = (ready) => ({
  apiVersion: "discovery.k8s.io/v1",
  kind: "EndpointSlice",
  metadata: { name: "made-here", namespace, labels: { "kubernetes.io/service-name": "checked" } },
  addressType: "IPv4",
  ports: [{ name: "stator", port: 7000, protocol: "TCP" }],
  endpoints: [{ addresses: ["10.0.0.9"], conditions: { ready } }],
});
const watch = new k8s.Watch(config);
const ended = new Promise((resolve, reject) => {
  const path = `/apis/discovery.k8s.io/v1/namespaces/${namespace}/endpointslices`;
  const query = {
    resourceVersion: out.version,
    allowWatchBookmarks: true,
    labelSelector: "kubernetes.io/service-name=checked",
    timeoutSeconds: 20,
  };
  let request;
  watch
    .watch(
      path,
      query,
      (type, object) => {
        if (type === "BOOKMARK") return;
        out.events.push([type, object.metadata.name, object.endpoints?.[0]?.conditions?.ready]);
        if (type === "DELETED") {
          request.abort();
          resolve();
        }
      },
      (error) => (error && error.name !== "AbortError" ? reject(error) : resolve()),
    )
    .then((r) => (request = r), reject);
});
await slices.createNamespacedEndpointSlice({ namespace, body: slice(true) });
const held = await slices.readNamespacedEndpointSlice({ namespace, name: "made-here" });
held.endpoints[0].conditions.ready = false;
await slices.replaceNamespacedEndpointSlice({ namespace, name: "made-here", body: held });
// The version is an old one now.
try {
  await slices.replaceNamespacedEndpointSlice({ namespace, name: "made-here", body: held });
} catch (error) {
  out.conflict = error.code;
}
await slices.deleteNamespacedEndpointSlice({ namespace, name: "made-here" });
await ended;

const lease = (holderIdentity) => ({
  metadata: { name: "leader", namespace },
  spec: { holderIdentity, leaseDurationSeconds: 15, renewTime: new k8s.V1MicroTime() },
});
const first = await leases.createNamespacedLease({ namespace, body: lease("node") });
out.lease = first.spec.holderIdentity;
try {
  await leases.createNamespacedLease({ namespace, body: lease("other") });
} catch (error) {
  out.twice = error.code;
}
try {
  await leases.readNamespacedLease({ namespace, name: "nobody" });
} catch (error) {
  out.missing = error.code;
}
console.log(JSON.stringify(out));
