#!/usr/bin/env bash
# Stage 1: attributions, prompt by prompt.
# Usage: bash 1_run_mlm.sh [RELATION ...] [FLAG ...], for example: bash 1_run_mlm.sh P101 P19 --debug 10
# Without relations it works on all of them, in order. --help explains the flags.
[ -n "$BASH_VERSION" ] || exec bash "$0" "$@" # if started with sh
source "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/setup.sh"
source ./config.sh

stage_flags=(--get_ig_gold --get_base)
run_stage 1_analyze_mlm.py "$@"
