#!/usr/bin/env bash
# Stage 5: the sentences that activate a fact's neurons most and least. `bash 5_run_trigger_examples.sh P740`; none: all. Flags: --help.
[ -n "$BASH_VERSION" ] || exec bash "$0" "$@" # called as `sh SCRIPT`, say
source "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/setup.sh"
source ./config.sh

run_stage 5_find_trigger_examples.py "$@"
