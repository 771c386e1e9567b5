#!/usr/bin/env bash
# Stage 9: the neurons of each fact in one language, by AMIG's method and by the first paper's.
# Usage: bash 9_run_amig.sh MODEL LANGUAGE [RELATION ...] [FLAG ...]
# For example: bash 9_run_amig.sh bert-base-multilingual-cased en P19
# Without relations it works on all of them. Give each model its own RESULTS folder. --help explains the flags.
[ -n "$BASH_VERSION" ] || exec bash "$0" "$@" # if started with sh
source "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/setup.sh"
source ./config.sh

run_on_languages 9_analyze_amig.py "$@"
