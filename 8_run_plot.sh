#!/usr/bin/env bash
# Stage 8: the figures, from whatever results there are. Flags are passed on: --help.
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
source ./config.sh

exec .venv/bin/python src/8_plot.py --output_dir "$RESULTS" --kn_dir "$RESULTS/kn" --fig_dir "$FIGURES" "$@"
