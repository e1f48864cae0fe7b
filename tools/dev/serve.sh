# shellcheck shell=bash
# ./dev serve and ./dev chat: the release build, run in the foreground.

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
            --model | --model=* | -m | --config | --config=* | -c | --help | -h) return 0 ;;
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

dev_chat() {
    setup_machine
    build_stator
    exec "$STATOR_BIN" chat "$@"
}
