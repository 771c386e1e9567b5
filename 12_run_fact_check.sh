#!/usr/bin/env bash
# Stage 12: true facts and false ones, told apart by degenerate neurons. `bash 12_run_fact_check.sh MODEL en zh P19`: in
# these languages, one is enough; no relation: all. Needs stage 11. Flags: --help.
[ -n "$BASH_VERSION" ] || exec bash "$0" "$@" # called as `sh SCRIPT`, say
source "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/setup.sh"
source ./config.sh

run_on_languages 12_fact_check.py "$@"
