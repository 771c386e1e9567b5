#!/usr/bin/env bash
# Stage 11: degenerate pairs of neurons. `bash 11_run_degenerate.sh MODEL en zh P19`: in these languages, one is enough;
# no relation: all. Needs stage 9 of each language. Flags: --help.
[ -n "$BASH_VERSION" ] || exec bash "$0" "$@" # called as `sh SCRIPT`, say
source "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/setup.sh"
source ./config.sh

run_on_languages 11_degenerate.py "$@"
