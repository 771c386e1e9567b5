#!/usr/bin/env bash
# All tests but the long ones. Flags go to pytest: `bash run_tests.sh -k golden`, `bash run_tests.sh -m long`.
[ -n "$BASH_VERSION" ] || exec bash "$0" "$@" # called as `sh SCRIPT`, say
source "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/setup.sh"

exec .venv/bin/python -m pytest "$@"
