#!/usr/bin/env bash
# Stage 11: degenerate pairs of neurons, in one language or in several.
# Usage: bash 11_run_degenerate.sh MODEL LANGUAGE [LANGUAGE ...] [RELATION ...] [FLAG ...]
# For example: bash 11_run_degenerate.sh bert-base-multilingual-cased en zh P19
# Needs the results of stage 9 in each language. Without relations it works on all of them. --help explains the flags.
[ -n "$BASH_VERSION" ] || exec bash "$0" "$@" # if started with sh
source "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/setup.sh"
source ./config.sh

run_on_languages 11_degenerate.py "$@"
