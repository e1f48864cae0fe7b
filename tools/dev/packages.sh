# shellcheck shell=bash
# The distribution's packages and the Rust tool chain.

PACKAGE_LIST=$DEV_ROOT/tools/dev/packages.txt

# packages_of SECTION: the names under [SECTION], one a line.
packages_of() {
    awk -v want="[$1]" '/^#/ || !NF { next } /^\[/ { on = ($0 == want); next } on' "$PACKAGE_LIST"
}

# missing_packages NAME…: those that are not installed.
missing_packages() {
    local have
    have=$(dpkg-query -W -f '${db:Status-Status} ${Package}\n' "$@" 2>/dev/null | sed -n 's/^installed //p') || true
    comm -23 <(printf '%s\n' "$@" | sort -u) <(sort -u <<<"$have")
}

as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo "$@"
    else
        die "this needs root, and there is no sudo: run as root: $*"
    fi
}

apt_install() {
    local apt=(env DEBIAN_FRONTEND=noninteractive apt-get -y -q -o DPkg::Lock::Timeout=600)
    as_root "${apt[@]}" install --no-install-recommends "$@" && return
    say "apt-get failed; repairing and trying once more"
    as_root "${apt[@]}" install -f
    as_root "${apt[@]}" install --no-install-recommends "$@"
}

# install_packages NAME…: what is missing of them. Says what it installs before it does.
install_packages() {
    local missing
    mapfile -t missing < <(missing_packages "$@")
    [ ${#missing[@]} -gt 0 ] || return 0
    say "installing ${#missing[@]} Debian packages$([ "$(id -u)" -eq 0 ] || echo ' (with sudo)'): ${missing[*]}"
    as_root apt-get -q -o DPkg::Lock::Timeout=600 update >&2 || die "apt-get update failed (see above)"
    apt_install "${missing[@]}" >&2 || die "apt-get could not install the packages (see above)"
}

# True if some cargo is at least 1.85; the places are those where cmake/StatorRust.cmake looks.
have_cargo() {
    local cargo version
    for cargo in "${CARGO:-}" "$(command -v cargo || true)" "$HOME/.cargo/bin/cargo" /usr/bin/cargo; do
        [ -x "$cargo" ] && [ -x "${cargo%/*}/rustc" ] || continue
        version=$("$cargo" --version 2>/dev/null | awk '{print $2}')
        [ -n "$version" ] && [ "$(printf '%s\n1.85\n' "$version" | sort -V | head -n 1)" = 1.85 ] && return 0
    done
    return 1
}

is_debian() { [ -r /etc/os-release ] && grep -qE '^ID(_LIKE)?=.*(debian|ubuntu)' /etc/os-release; }

# Everything the build needs that is not in the cache. Quick where nothing is missing.
setup_machine() {
    local packages
    mapfile -t packages < <(packages_of build)
    if ! is_debian || ! command -v apt-get >/dev/null; then
        command -v clang++-19 >/dev/null && command -v ninja >/dev/null && have_cargo && return 0
        die "this is not Debian, so packages can't be installed here. Needed, by their Debian 12 names: ${packages[*]};" \
            "and cargo 1.85 or newer."
    fi
    install_packages "${packages[@]}"
    if ! have_cargo; then
        mapfile -t packages < <(packages_of rust)
        install_packages "${packages[@]}"
        have_cargo || die "cargo 1.85 or newer is needed; ${packages[*]} did not bring it"
    fi
}
