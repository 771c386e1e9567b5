#!/usr/bin/env bash
# Stage 9: neurons in one language, AMIG's way and the first paper's. `bash 9_run_amig.sh bert-base-multilingual-cased en
# P19`: this model, language and relation; no relation: all. Flags: --help. Give each model a RESULTS folder of its own.
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
source ./config.sh

own=()
run_on_languages 9_analyze_amig.py "$@"
