#!/usr/bin/env bash
# Stage 11: degenerate pairs of neurons. `bash 11_run_degenerate.sh MODEL en zh P19`: in these languages, one is enough;
# no relation: all. Needs stage 9 of each language. Flags: --help.
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
source ./config.sh

own=()
run_on_languages 11_degenerate.py "$@"
