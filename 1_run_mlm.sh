#!/usr/bin/env bash
# Stage 1: attributions. `bash 1_run_mlm.sh P101 P19`: these relations; none: all, in order. Flags are passed on: --help.
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
source ./config.sh

relations=()
while [[ $# -gt 0 && $1 != -* ]]; do relations+=("$1"); shift; done

exec .venv/bin/python src/1_analyze_mlm.py \
    --bert_model "$MODEL" --data_path "$DATA/PARAREL/data_all.json" \
    --output_dir "$RESULTS" --output_prefix "$PREFIX" --pt_relation "${relations[@]}" \
    --device "$DEVICE" --dtype "$DTYPE" --rule "$RULE" --max_seq_length "$MAX_SEQ_LENGTH" --seed "$SEED" \
    --get_ig_gold --get_base --batch_size 20 --num_batch 1 "$@"
