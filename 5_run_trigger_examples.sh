#!/usr/bin/env bash
# Stage 5: the crawled sentences that activate a fact's neurons most and least.
# Usage: bash 5_run_trigger_examples.sh [RELATION ...] [FLAG ...]
# Without relations it works on all of them. --help explains the flags.
[ -n "$BASH_VERSION" ] || exec bash "$0" "$@" # if started with sh
source "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/setup.sh"
source ./config.sh

run_stage 5_find_trigger_examples.py "$@"
