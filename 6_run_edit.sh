#!/usr/bin/env bash
# Stage 6: updates facts.
# Usage: bash 6_run_edit.sh LAMBDA1 LAMBDA2 [RELATION ...] [FLAG ...], for example: bash 6_run_edit.sh 1 8 P101
#        bash 6_run_edit.sh --grid 0 1 2 4 8    tries every pair of these strengths
# Without relations it works on all of them. --help explains the flags.
[ -n "$BASH_VERSION" ] || exec bash "$0" "$@" # if started with sh
source "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/setup.sh"
source ./config.sh

if [[ $# -gt 0 && $1 != --* ]]; then
    stage_flags+=(--norm_lambda1 "$1" --norm_lambda2 "${2-}")
    shift $(($# > 1 ? 2 : 1))
fi
run_stage 6_edit_knowledge_sampled.py "$@"
