# shellcheck shell=bash
# A real kube-apiserver and etcd for tests, built as Go modules: some ten minutes of CPU and 2 GB of memory, once.

# Exports STATOR_KUBERNETES: a folder with the programs kube-apiserver and etcd.
setup_real_kubernetes() {
    local folder pins=third_party/kubernetes
    [ -z "${STATOR_KUBERNETES:-}" ] || return 0
    folder=$STATOR_CACHE/kubernetes-$(cat "$pins"/* | sha256sum | cut -c1-12)
    [ -f "$folder/.complete" ] || with_lock kubernetes build_real_kubernetes "$folder" "$pins"
    export STATOR_KUBERNETES=$folder
}

build_real_kubernetes() {
    local folder=$1 pins=$2 kubernetes etcd scratch
    [ ! -f "$folder/.complete" ] || return 0
    command -v go >/dev/null || die "building the API server takes Go 1.26"
    # shellcheck source=third_party/kubernetes/versions
    source "$pins/versions"
    say "building kube-apiserver $kubernetes and etcd $etcd (once, some ten minutes)"
    new_scratch scratch
    rm -rf "$folder" && mkdir -p "$folder" "$scratch/apiserver" "$scratch/etcd" &&
        cp "$pins/apiserver.go" "$scratch/apiserver/main.go" && cp "$pins/etcd.go" "$scratch/etcd/main.go" &&
        (cd "$scratch/apiserver" && build_apiserver "$kubernetes" "$folder/kube-apiserver") >&2 &&
        (cd "$scratch/etcd" && build_go etcdtest "go.etcd.io/etcd/server/v3@v$etcd" "$folder/etcd" "-s -w") >&2 &&
        touch "$folder/.complete" || die "could not build kube-apiserver and etcd"
}

# build_go MODULE REQUIRED OUT FLAGS
build_go() {
    [ -f go.mod ] || printf 'module %s\n\ngo 1.26\n' "$1" >go.mod
    go mod edit -require="$2" && go mod tidy && CGO_ENABLED=0 go build -p "$(nproc)" -trimpath -ldflags "$4" -o "$3" .
}

# Kubernetes requires its own parts at v0.0.0, to be found beside it: each is named with its released version.
build_apiserver() {
    local version=$1 out=$2 part needs
    printf 'module apiservertest\n\ngo 1.26\n' >go.mod
    needs=$(GOFLAGS=-mod=mod go mod download -json "k8s.io/kubernetes@v$version" |
        python3 -c 'import json, sys; print(json.load(sys.stdin)["GoMod"])') || return 1
    for part in $(sed -n 's#^\s*\(k8s.io/[a-z0-9.-]*\) v0\.0\.0$#\1#p' "$needs" | sort -u); do
        go mod edit -replace="$part=$part@v0.${version#1.}" || return 1
    done
    build_go apiservertest "k8s.io/kubernetes@v$version" "$out" "-s -w -X k8s.io/component-base/version.gitVersion=v$version"
}
