#!/usr/bin/env bash
# Stage 12: tells true facts from false ones by their degenerate neurons, in one language or in several.
# Usage: bash 12_run_fact_check.sh MODEL LANGUAGE [LANGUAGE ...] [RELATION ...] [FLAG ...]
# For example: bash 12_run_fact_check.sh bert-base-multilingual-cased en zh P19
# Needs the results of stage 11. Without relations it works on all of them. --help explains the flags.
[ -n "$BASH_VERSION" ] || exec bash "$0" "$@" # if started with sh
source "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/setup.sh"
source ./config.sh

run_on_languages 12_fact_check.py "$@"
