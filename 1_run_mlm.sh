#!/usr/bin/env bash
# Stage 1: attributions. `bash 1_run_mlm.sh P101 P19`: these relations; none: all, in order. Flags are passed on: --help.
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
source ./config.sh

own=(--output_prefix "$PREFIX" --rule "$RULE" --get_ig_gold --get_base --batch_size 20 --num_batch 1)
run_stage 1_analyze_mlm.py "$@"
