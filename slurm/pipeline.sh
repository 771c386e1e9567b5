#!/usr/bin/env bash
# All stages as jobs that wait for each other; prints their numbers. `bash slurm/pipeline.sh`; flags go to the stages that
# ask the model: --debug 20. What is there already is skipped, so it can be started again after an error.
[ -n "$BASH_VERSION" ] || exec bash "$0" "$@" # called as `sh SCRIPT`, say
source "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/../setup.sh"
source ./config.sh

relations=$(.venv/bin/python src/relations.py) || exit
array=--array=0-$(($(wc -l <<<"$relations") - 1))

# submit DEPENDENCY BATCH-SCRIPT STAGE …, with sbatch's options in `options`; leaves the job's number in `job`.
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
# Not by relation: it ends with averages over all.
options=() && submit "$neurons" slurm/gpus.sbatch 6_run_edit.sh 1 8 "$@"
options=(--gres=none) && submit "$measured:$job" slurm/gpus.sbatch 8_run_plot.sh
