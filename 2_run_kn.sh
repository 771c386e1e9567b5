#!/usr/bin/env bash
# Stage 2: the neurons of each fact, then their statistics and distribution over layers. Flags go to the first part: --help.
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
source ./config.sh

.venv/bin/python src/2_get_kn.py --output_dir "$RESULTS" --output_prefix "$PREFIX" --kn_dir "$RESULTS/kn" "$@" || exit
[[ " $* " == *" --help "* || " $* " == *" -h "* ]] && exit
exec .venv/bin/python src/2_analyze_kn.py --kn_dir "$RESULTS/kn" --fig_dir "$FIGURES"
