#!/usr/bin/env bash
# Stage 4: activations in crawled sentences.
# Usage: bash 4_run_distant.sh [RELATION ...] [FLAG ...]
# Without relations it works on all of them. --help explains the flags.
[ -n "$BASH_VERSION" ] || exec bash "$0" "$@" # if started with sh
source "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/setup.sh"
source ./config.sh

run_stage 4_check_weights_distant.py "$@"
