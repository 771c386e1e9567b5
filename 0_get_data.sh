#!/usr/bin/env bash
# The real data: `bash 0_get_data.sh` fetches them, checks them and builds from them what the stages read.
# `bash 0_get_data.sh mlama en zh`: mLAMA. Flags are passed on: --from, --url, --help.
[ -n "$BASH_VERSION" ] || exec bash "$0" "$@" # called as `sh SCRIPT`, say
source "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/setup.sh"
source ./config.sh

exec .venv/bin/python src/0_get_data.py "$@"
