#!/usr/bin/env bash
# Stage 10: the neurons that express a fact in both languages, and what editing them does in each language.
# Usage: bash 10_run_language_independent.sh MODEL LANGUAGE LANGUAGE [RELATION ...] [FLAG ...]
# For example: bash 10_run_language_independent.sh bert-base-multilingual-cased en zh P19
# Needs the results of stage 9 in both languages. Without relations it works on all of them. --help explains the flags.
[ -n "$BASH_VERSION" ] || exec bash "$0" "$@" # if started with sh
source "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/setup.sh"
source ./config.sh

run_on_languages 10_language_independent.py "$@"
