#!/usr/bin/env bash
# Stage 2: the neurons of each fact, then their statistics and their distribution over layers.
# Usage: bash 2_run_kn.sh [FLAG ...]. --help explains the flags.
[ -n "$BASH_VERSION" ] || exec bash "$0" "$@" # if started with sh
source "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/setup.sh"
source ./config.sh

.venv/bin/python src/2_get_kn.py "$@" || exit
[[ " $* " == *" --help "* || " $* " == *" -h "* ]] && exit
shared_flags --kn_dir -- "$@"
exec .venv/bin/python src/2_analyze_kn.py "${shared[@]}"
