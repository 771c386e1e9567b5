#!/usr/bin/env bash
# Stage 10: neurons of a fact in two languages, and edits across languages. `bash 10_run_language_independent.sh MODEL en
# zh P19`: this relation; none: all. Needs stage 9 of both languages. Flags: --help.
[ -n "$BASH_VERSION" ] || exec bash "$0" "$@" # called as `sh SCRIPT`, say
source "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/setup.sh"
source ./config.sh

run_on_languages 10_language_independent.py "$@"
