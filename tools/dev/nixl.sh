# shellcheck shell=bash
# NIXL's libraries, for tests and benchmarks of the transfer plane alone.

# Exports STATOR_NIXL: the path of libnixl_capi.so. Where there is no wheel for this machine the tests that use it say
# that they are skipped.
setup_nixl() {
    local folder pins=third_party/nixl/requirements.txt
    [ -z "${STATOR_NIXL:-}" ] || return 0
    [ "$(uname -m)" = x86_64 ] || { say "NIXL is pinned for x86-64 only: its tests are skipped" && return; }
    folder=$STATOR_CACHE/nixl-$(sha256_of "$pins" | cut -c1-12)
    [ -f "$folder/.complete" ] || with_lock nixl install_nixl "$folder" "$pins"
    [ ! -f "$folder/.complete" ] || export STATOR_NIXL=$folder/.nixl_cu12.mesonpy.libs/libnixl_capi.so
}

# The wheel's libraries depend on no Python: any version's wheel does.
install_nixl() {
    local folder=$1 pins=$2 scratch
    [ ! -f "$folder/.complete" ] || return 0
    say "fetching the NIXL libraries that tests use (68 MB, once)"
    new_scratch scratch
    python3 -m pip --disable-pip-version-check download --quiet --no-deps --only-binary :all: --require-hashes \
        --python-version 3.11 --implementation cp --abi cp311 --platform manylinux_2_28_x86_64 -r "$pins" -d "$scratch" >&2 &&
        rm -rf "$folder" && python3 -m zipfile -e "$scratch"/*.whl "$folder" && touch "$folder/.complete" ||
        say "could not fetch the package of $pins: tests with NIXL are skipped"
}
