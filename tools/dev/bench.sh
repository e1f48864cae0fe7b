# shellcheck shell=bash
# ./dev bench: comparisons in bench/<name>/run.py, and the micro-benchmarks of the rooms.

list_benches() {
    local script
    echo "Comparisons and measurements (results go to bench/results/):"
    for script in bench/*/run.py; do
        [ -f "$script" ] || continue
        printf '  %-16s %s\n' "$(basename "${script%/run.py}")" \
            "$(python3 -c 'import ast,sys; print((ast.get_docstring(ast.parse(open(sys.argv[1]).read())) or "").split("\n")[0])' "$script")"
    done
    echo "Micro-benchmarks of the rooms (Google Benchmark; arguments are passed on):"
    find stator -name '*_bench.cc' -printf '%h\n' | sed 's#^stator/#  #' | sort -u
}

dev_bench() {
    local name=${1:-}
    [ -n "$name" ] || { list_benches && return; }
    shift
    setup_machine
    if [ -f "bench/$name/run.py" ]; then
        setup_model
        setup_real_tokenizers
        setup_nixl
        build_targets release all
        STATOR_BIN=$STATOR_BIN STATOR_MODEL=${STATOR_MODEL:-$(default_model)} STATOR_BUILD=$DEV_ROOT/build/release \
            python3 "bench/$name/run.py" "$@"
    elif compgen -G "stator/$name/*_bench.cc" >/dev/null; then
        build_targets release "${name//\//_}_bench"
        "build/release/stator/$name/${name//\//_}_bench" "$@"
    else
        list_benches >&2
        die "there is no benchmark '$name'"
    fi
}
