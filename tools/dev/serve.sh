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
        case $last=$argument in
            --topology=pd | --topology=epd | *=--topology=pd | *=--topology=epd) last=$argument && continue ;;
            *=--topology) last=$argument && continue ;;
        esac
        [ "$last" != --topology ] || return 0
        case $argument in
            --model | --model=* | --config | --config=* | --help | -h | --engine=echo | --engine=mock | --topology=*) return 0 ;;
        esac
        [ "$last $argument" != "--engine echo" ] && [ "$last $argument" != "--engine mock" ] || return 0
        last=$argument
    done
    return 1
}

# True for --topology epd with the llama engine and without an encoder.
lacks_encoder() {
    case " $* " in
        *" --mmproj"* | *"--engine=mock "* | *"--engine mock "* | *"--engine=echo "* | *"--engine echo "*) return 1 ;;
        *"--topology epd "* | *"--topology=epd "*) return 0 ;;
    esac
    return 1
}

# The default model reads no images. An encoder of random numbers makes it take them; prints its path.
random_encoder() {
    local path=$STATOR_CACHE/random-encoder.gguf
    build_targets release make_projector >&2
    "$DEV_ROOT/build/release/tools/make_projector" "$(default_model)" "$path" >&2 && echo "$path"
}

# run_with_model COMMAND ARGS…: with the default model where nobody names one. Several may be started at once: one builds.
run_with_model() {
    local command=$1
    shift
    setup_machine
    with_lock build build_stator
    if ! names_model "$@"; then
        setup_model
        if lacks_encoder "$@"; then
            say "no --mmproj: images are encoded at random, and what is said of them means nothing"
            set -- --mmproj "$(random_encoder)" "$@"
        fi
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
