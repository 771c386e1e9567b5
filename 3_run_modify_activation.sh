#!/usr/bin/env bash
# Stage 3: suppress and amplify neurons. `bash 3_run_modify_activation.sh P101`: this relation; none: all. Flags: --help.
[ -n "$BASH_VERSION" ] || exec bash "$0" "$@" # called as `sh SCRIPT`, say
source "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/setup.sh"
source ./config.sh

run_stage 3_modify_activation.py "$@"
