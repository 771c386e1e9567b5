#!/usr/bin/env bash
# Stage 7: erase relations. `bash 7_run_erase.sh P19 P27`: these relations, one at a time; none: all. Flags: --help.
[ -n "$BASH_VERSION" ] || exec bash "$0" "$@" # called as `sh SCRIPT`, say
source "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/setup.sh"
source ./config.sh

run_stage 7_erase_knowledge.py "$@"
