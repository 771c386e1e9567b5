#!/usr/bin/env bash
# Stage 8: draws the figures, prints the main findings, and writes the report from the results there are.
# Usage: bash 8_run_plot.sh [FLAG ...]
#        bash 8_run_plot.sh --check    also exits with status 1 if a run with the paper's model, settings and data has
#                                      numbers outside their tolerance
# --help explains the flags.
[ -n "$BASH_VERSION" ] || exec bash "$0" "$@" # if started with sh
source "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/setup.sh"
source ./config.sh

if [[ " $* " != *" --help "* && " $* " != *" -h "* ]]; then
    shared_flags --output_dir --output_prefix --kn_dir --fig_dir -- "$@"
    .venv/bin/python src/8_plot.py "${shared[@]}" || exit
fi
exec .venv/bin/python src/8_report.py "$@"
