#!/usr/bin/env bash
# Submits stages 1 to 8 as jobs that wait for each other, and prints their job IDs.
# Usage: bash slurm/pipeline.sh [FLAG ...], for example: bash slurm/pipeline.sh --debug 20
# The flags go to the stages that use the model. Finished results are skipped, so after an error it can be started again.
[ -n "$BASH_VERSION" ] || exec bash "$0" "$@" # if started with sh
source "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/../setup.sh"
source ./config.sh

relations=$(.venv/bin/python src/relations.py) || exit
array=--array=0-$(($(wc -l <<<"$relations") - 1))

# submit DEPENDENCY BATCH-SCRIPT STAGE ...: takes sbatch's options from `options` and leaves the job's ID in `job`.
submit() {
    local dependency=$1
    shift
    job=$(sbatch --parsable --kill-on-invalid-dep=yes ${dependency:+--dependency="$dependency"} \
        --job-name="${2%.sh}" "${options[@]}" "$@") || exit
    job=${job%%;*}
    echo "$job ${*:2}"
}

options=("$array") && submit "" slurm/relations.sbatch 1_run_mlm.sh "$@"
options=(--gres=none) && submit "afterok:$job" slurm/gpus.sbatch 2_run_kn.sh
neurons=afterok:$job measured=afterany
options=("$array")
for stage in 3_run_modify_activation.sh 4_run_distant.sh 5_run_trigger_examples.sh 7_run_erase.sh; do
    submit "$neurons" slurm/relations.sbatch "$stage" "$@"
    measured+=:$job
done
# One job for all relations, because it ends with averages over them.
options=() && submit "$neurons" slurm/gpus.sbatch 6_run_edit.sh 1 8 "$@"
options=(--gres=none) && submit "$measured:$job" slurm/gpus.sbatch 8_run_plot.sh
