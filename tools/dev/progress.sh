# shellcheck shell=bash
# Telling the user what goes on, scratch folders, and locks.

# say TEXT…: one line of progress, on stderr so that a command's own output stays clean.
say() { printf '==> %s\n' "$*" >&2; }

die() {
    printf 'dev: %s\n' "$*" >&2
    exit 1
}

# step TEXT COMMAND…: says what is done, does it, says how long it took. Ends dev if COMMAND fails; as always in bash,
# `set -e` does not hold inside COMMAND where that is a function, so such functions chain with && or die themselves.
step() {
    local text=$1 start=$SECONDS
    shift
    say "$text"
    "$@" || die "failed: $text"
    say "$text: done in $((SECONDS - start)) s"
}

SCRATCH=()

# new_scratch VARIABLE: a new folder inside the cache (so that renames out of it are atomic), removed when dev ends.
new_scratch() {
    local made
    made=$(mktemp -d "$STATOR_CACHE/scratch.XXXXXX")
    SCRATCH+=("$made")
    printf -v "$1" '%s' "$made"
}

remove_scratch() {
    [ ${#SCRATCH[@]} -eq 0 ] || rm -rf -- "${SCRATCH[@]}"
    SCRATCH=()
}

# with_lock NAME COMMAND…: one at a time among all checkouts that share the cache.
with_lock() {
    local name=$1 rc=0
    shift
    exec 9>"$STATOR_CACHE/$name.lock"
    flock -n 9 || { say "waiting for another ./dev ($name)" && flock 9; }
    "$@" || rc=$?
    exec 9>&-
    return $rc
}

sha256_of() { sha256sum "$@" | cut -d' ' -f1; }
