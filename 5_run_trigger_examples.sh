#!/usr/bin/env bash
# Stage 5: the sentences that activate a fact's neurons most and least. `bash 5_run_trigger_examples.sh P740`; none: all. Flags: --help.
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
source ./config.sh

own=(
    --distant_data_dir "$DATA/BingDistantTREx/final" --query_pairs_path "$DATA/BingDistantTREx/query_pairs.json"
    --kn_dir "$RESULTS/kn" --max_seq_length 512
)
run_stage 5_find_trigger_examples.py "$@"
