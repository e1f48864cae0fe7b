# shellcheck shell=bash
# ./dev serve, frontend, worker and chat: the release build, run in the foreground.

STATOR_BIN=$DEV_ROOT/build/release/stator/cli/stator

build_stator() {
    [ -x "$STATOR_BIN" ] || say "building stator; the first time this takes some minutes"
    build_targets release stator
}

# True if the arguments (or the environment, or a configuration file) say which model or engine to use.
names_model() {
    local argument
    [ -z "${STATOR_MODEL:-}" ] || return 0
    for argument in "$@"; do
        case $argument in
            --model | --model=* | --config | --config=* | --help | -h | --engine=echo | --topology | --topology=*) return 0 ;;
        esac
    done
    return 1
}

dev_serve() {
    setup_machine
    build_stator
    if ! names_model "$@"; then
        setup_model
        set -- --model "$(default_model)" "$@"
    fi
    exec "$STATOR_BIN" serve "$@"
}

# As dev_serve, for a worker: several may be started at once, so that only one builds.
dev_worker() {
    setup_machine
    with_lock build build_stator
    if ! names_model "$@"; then
        setup_model
        set -- --model "$(default_model)" "$@"
    fi
    exec "$STATOR_BIN" worker "$@"
}

dev_frontend() {
    setup_machine
    with_lock build build_stator
    exec "$STATOR_BIN" frontend "$@"
}

dev_chat() {
    setup_machine
    build_stator
    exec "$STATOR_BIN" chat "$@"
}
