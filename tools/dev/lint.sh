# shellcheck shell=bash
# ./dev fmt and ./dev lint.

cxx_files() { git ls-files --cached --others --exclude-standard '*.h' '*.cc'; }

# C++ sources that differ from the commit before this branch's work, or from the last commit on the main branch.
changed_sources() {
    local base
    base=$(git merge-base HEAD '@{upstream}' 2>/dev/null || git rev-parse -q --verify HEAD~1 || git rev-parse HEAD)
    { git diff --name-only --diff-filter=d "$base" -- '*.cc' && git ls-files --others --exclude-standard '*.cc'; } | sort -u
}

dev_fmt() {
    setup_machine
    cxx_files | xargs -r clang-format-19 -i
}

lint_shell() {
    command -v shellcheck >/dev/null || { say "shellcheck is not installed: shell scripts are not checked" && return; }
    shellcheck -x dev .ci/run tools/dev/*.sh tools/update_cargo_lock
}

lint_tidy() {
    local files
    if [ "${1:-}" = --all ]; then
        mapfile -t files < <(cxx_files | grep '\.cc$')
    else
        mapfile -t files < <(changed_sources)
    fi
    [ ${#files[@]} -gt 0 ] || return 0
    configure_preset dev
    build_targets dev stator_version_stamp stator_generated
    say "clang-tidy on ${#files[@]} files"
    printf '%s\n' "${files[@]}" | xargs -P "$(nproc)" -n 1 clang-tidy-19 --quiet -p build/dev \
        2> >(grep -vE '^[0-9]+ (warning|error)s? (and|generated)' >&2)
}

dev_lint() {
    local rc=0
    setup_machine
    cxx_files | xargs -r clang-format-19 --dry-run -Werror || rc=1
    python3 tools/check_layers || rc=1
    lint_shell || rc=1
    lint_tidy "$@" || rc=1
    [ $rc -eq 0 ] && say "lint: nothing found"
    return $rc
}
