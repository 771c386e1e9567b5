#!/usr/bin/env bash
# Stage 4: activations at crawled sentences. `bash 4_run_distant.sh P101`: this relation; none: all. Flags: --help.
[ -n "$BASH_VERSION" ] || exec bash "$0" "$@" # called as `sh SCRIPT`, say
source "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/setup.sh"
source ./config.sh

run_stage 4_check_weights_distant.py "$@"
