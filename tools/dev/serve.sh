# shellcheck shell=bash
# ./dev serve, frontend, worker and chat: the release build, run in the foreground.

STATOR_BIN=$DEV_ROOT/build/release/stator/cli/stator

build_stator() {
    [ -x "$STATOR_BIN" ] || say "building stator; the first time this takes some minutes"
    build_targets release stator
}

# True if the arguments (or the environment, or a configuration file) say which model or engine to use.
names_model() {
    local argument last=
    [ -z "${STATOR_MODEL:-}" ] || return 0
    for argument in "$@"; do
        case $argument in
            --model | --model=* | --config | --config=* | --help | -h | --engine=echo | --engine=mock | --topology | --topology=*) return 0 ;;
        esac
        [ "$last $argument" != "--engine echo" ] && [ "$last $argument" != "--engine mock" ] || return 0
        last=$argument
    done
    return 1
}

# run_with_model COMMAND ARGS…: with the default model where nobody names one. Several may be started at once: one builds.
run_with_model() {
    local command=$1
    shift
    setup_machine
    with_lock build build_stator
    if ! names_model "$@"; then
        setup_model
        set -- --model "$(default_model)" "$@"
    fi
    exec "$STATOR_BIN" "$command" "$@"
}

dev_serve() { run_with_model serve "$@"; }

dev_worker() { run_with_model worker "$@"; }

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
