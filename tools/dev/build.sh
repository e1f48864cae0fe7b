# shellcheck shell=bash
# Configuring and building presets.

# stdout belongs to the command that ./dev runs in the end.
run_cmake() { cmake --preset "$1" >&2; }

configure_preset() {
    local preset=$1
    [ -f "build/$preset/build.ninja" ] || step "configuring preset $preset" run_cmake "$preset"
}

# build_targets PRESET TARGET…: ninja reconfigures by itself where a CMake file changed.
build_targets() {
    local preset=$1
    shift
    configure_preset "$preset"
    ninja -C "build/$preset" -j "$(nproc)" "$@" >&2 || die "building preset $preset failed"
}

build_preset() {
    grep -q "\"name\": \"$1\"" CMakePresets.json ||
        die "there is no preset '$1'; there are: release, dev, debug, tsan, release-cuda"
    step "building preset $1" build_targets "$1" all
}
