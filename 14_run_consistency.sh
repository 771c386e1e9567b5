#!/usr/bin/env bash
# Stage 14: do neurons belong to the fact, or to the question that asks for it?
# Usage: bash 14_run_consistency.sh [RELATION ...] [FLAG ...]
# Without relations, the second part works on all of them; the first part always does. --help explains the flags.
[ -n "$BASH_VERSION" ] || exec bash "$0" "$@" # if started with sh
source "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/setup.sh"
source ./config.sh

shared_flags --output_dir --output_prefix --threshold --beta1 --beta2 --fixed --fig_dir --seed -- "$@"
[[ " $* " == *" --help "* || " $* " == *" -h "* ]] && shared=(--help)
.venv/bin/python src/14_consistency.py "${shared[@]}" || exit
echo
run_stage 14_carry_over.py "$@"
