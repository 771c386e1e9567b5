#!/usr/bin/env bash
# One question: `bash ask.sh "The capital of France is [MASK]." Paris`. Which neurons does the model need for the answer,
# what do they write, and what happens without them? Without MODEL it asks the sample's small model. Flags: --help.
[ -n "$BASH_VERSION" ] || exec bash "$0" "$@" # called as `sh SCRIPT`, say
source "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/setup.sh"
source ./config.sh

export MODEL=${MODEL:-data/sample/model}
exec .venv/bin/python src/ask.py "$@"
