#!/usr/bin/env bash
# Stage 9: neurons in one language, AMIG's way and the first paper's. `bash 9_run_amig.sh bert-base-multilingual-cased en
# P19`: this model, language and relation; no relation: all. Flags: --help. Give each model a RESULTS folder of its own.
[ -n "$BASH_VERSION" ] || exec bash "$0" "$@" # called as `sh SCRIPT`, say
source "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/setup.sh"
source ./config.sh

run_on_languages 9_analyze_amig.py "$@"
