#!/usr/bin/env bash
# Stage 8: the figures, the main findings, and the report (report.md and report.html), from whatever results there are.
# `bash 8_run_plot.sh --check` ends with status 1 if numbers of a run with the paper's model, settings and data are outside
# their tolerance.
# Flags: --help.
[ -n "$BASH_VERSION" ] || exec bash "$0" "$@" # called as `sh SCRIPT`, say
source "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/setup.sh"
source ./config.sh

if [[ " $* " != *" --help "* && " $* " != *" -h "* ]]; then
    shared_flags --output_dir --kn_dir --fig_dir -- "$@"
    .venv/bin/python src/8_plot.py "${shared[@]}" || exit
fi
exec .venv/bin/python src/8_report.py "$@"
