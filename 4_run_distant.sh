#!/usr/bin/env bash
# Stage 4: activations at crawled sentences. `bash 4_run_distant.sh P101`: this relation; none: all. Flags: --help.
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
source ./config.sh

own=(
    --distant_data_dir "$DATA/BingDistantTREx/final" --query_pairs_path "$DATA/BingDistantTREx/query_pairs.json"
    --kn_dir "$RESULTS/kn" --max_seq_length 512
)
run_stage 4_check_weights_distant.py "$@"
