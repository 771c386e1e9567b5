#!/usr/bin/env bash
# Stage 8: the figures, and the report: report.md and report.html, from whatever results there are.
# `bash 8_run_plot.sh --check` ends with status 1 if a run with the paper's model and settings leaves a tolerance.
# Flags go to the report: --help.
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
source ./config.sh

where=(--output_dir "$RESULTS" --kn_dir "$RESULTS/kn" --fig_dir "$FIGURES")
if [[ " $* " != *" --help "* && " $* " != *" -h "* ]]; then
    .venv/bin/python src/8_plot.py "${where[@]}" || exit
fi
exec .venv/bin/python src/8_report.py "${where[@]}" --output_prefix "$PREFIX" "$@"
