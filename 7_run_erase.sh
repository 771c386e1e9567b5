#!/usr/bin/env bash
# Stage 7: erases relations, one at a time.
# Usage: bash 7_run_erase.sh [RELATION ...] [FLAG ...], for example: bash 7_run_erase.sh P19 P27
# Without relations it works on all of them. --help explains the flags.
[ -n "$BASH_VERSION" ] || exec bash "$0" "$@" # if started with sh
source "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/setup.sh"
source ./config.sh

run_stage 7_erase_knowledge.py "$@"
