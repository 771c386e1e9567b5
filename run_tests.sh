#!/usr/bin/env bash
# Runs all tests but the long ones. Flags go to pytest, as in `bash run_tests.sh -k golden` or `bash run_tests.sh -m long`.
# They run in several processes, one per core, at most four. Those of one file share a process, because they share results.
[ -n "$BASH_VERSION" ] || exec bash "$0" "$@" # if started with sh
source "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/setup.sh"

exec .venv/bin/python -m pytest -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder "$@"
