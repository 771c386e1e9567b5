#!/usr/bin/env bash
# Stage 13: which method finds the neurons that matter?
# Usage: bash 3_run_modify_activation.sh [RELATION ...] [FLAG ...]
# Without relations it works on all of them. --help explains the flags.
[ -n "$BASH_VERSION" ] || exec bash "$0" "$@" # if started with sh
source "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/setup.sh"
source ./config.sh

run_stage 13_compare_methods.py "$@"
