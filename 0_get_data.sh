#!/usr/bin/env bash
# Fetches the published data, checks it, and builds the files that the stages read.
# Usage: bash 0_get_data.sh [FLAG ...]                         for stages 1 to 8: PARAREL and the crawled sentences
#        bash 0_get_data.sh mlama [LANGUAGE ...] [FLAG ...]    for stages 9 to 12: mLAMA
#        bash 0_get_data.sh NAME [FLAG ...]                    another data set for stages 1 to 3 and 6 to 8, e.g. lre
# --help lists the names and explains the flags.
[ -n "$BASH_VERSION" ] || exec bash "$0" "$@" # if started with sh
source "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/setup.sh"
source ./config.sh

exec .venv/bin/python src/0_get_data.py "$@"
