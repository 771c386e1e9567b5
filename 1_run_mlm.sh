#!/usr/bin/env bash
# Stage 1: attributions. `bash 1_run_mlm.sh P101 P19`: these relations; none: all, in order. Flags are passed on: --help.
[ -n "$BASH_VERSION" ] || exec bash "$0" "$@" # called as `sh SCRIPT`, say
source "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/setup.sh"
source ./config.sh

own=(--get_ig_gold --get_base)
run_stage 1_analyze_mlm.py "$@"
