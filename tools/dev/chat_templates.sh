# shellcheck shell=bash
# Published chat templates and the Jinja2 that says what they render to, for tests alone.

# Exports STATOR_CHAT_TEMPLATES: a folder with templates/*.jinja and python/ (Jinja2).
setup_chat_templates() {
    local folder pins=third_party/chat_templates/requirements.txt
    [ -z "${STATOR_CHAT_TEMPLATES:-}" ] || return 0
    folder=$STATOR_CACHE/chat-templates-$(cat "$pins" <(python3 --version) | sha256sum | cut -c1-12)
    [ -f "$folder/.complete" ] || with_lock venv install_chat_templates "$folder" "$pins"
    export STATOR_CHAT_TEMPLATES=$folder
}

install_chat_templates() {
    local folder=$1 pins=$2
    [ ! -f "$folder/.complete" ] || return 0
    say "fetching the chat templates that tests use (1 MB, once)"
    rm -rf "$folder" && mkdir -p "$folder" &&
        python3 -m pip --disable-pip-version-check install --quiet --no-deps --require-hashes --target "$folder/python" \
            -r "$pins" >&2 && mv "$folder/python/trl/chat_templates" "$folder/templates" &&
        rm -rf "$folder"/python/trl* && touch "$folder/.complete" || die "could not install the packages of $pins"
}
