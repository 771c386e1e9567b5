#!/usr/bin/env bash
# Stage 6: update facts. `bash 6_run_edit.sh 1 8 P101`: lambda1 = 1, lambda2 = 8, this relation; none: all. Flags: --help.
# `bash 6_run_edit.sh --grid 0 1 2 4 8`: every pair of these strengths.
[ -n "$BASH_VERSION" ] || exec bash "$0" "$@" # called as `sh SCRIPT`, say
source "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/setup.sh"
source ./config.sh

if [[ $# -gt 0 && $1 != --* ]]; then
    own+=(--norm_lambda1 "$1" --norm_lambda2 "${2-}")
    shift $(($# > 1 ? 2 : 1))
fi
run_stage 6_edit_knowledge_sampled.py "$@"
