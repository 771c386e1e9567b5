#!/usr/bin/env bash
# Runs stages 1 to 8 on a real pretrained model and real facts, from nothing: `bash real_run.sh`.
# The model is SmolLM2-135M-Instruct (tools/get_smollm2.sh), or the one that MODEL names. The facts are PARAREL's, then
# LRE's, 40 per relation; `bash real_run.sh --debug 2` takes 2. Kill it whenever you like: the same command resumes.
[ -n "$BASH_VERSION" ] || exec bash "$0" "$@" # if started with sh
[[ " $* " == *" --help "* || " $* " == *" -h "* ]] && { sed -n '2,4s/^# //p' "${BASH_SOURCE[0]}"; exit; }
source "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/setup.sh"

[[ $# -gt 0 ]] || set -- --debug 40
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
export GPUS=${GPUS:-$(nproc)} # one process per core; on a machine with GPUs, set it to their number

echo "With SmolLM2 and 40 facts per relation, this takes hours on two cores, and about 1 GB of disk besides .venv."

if [[ -z $MODEL ]]; then
    export MODEL=data/smollm2
    bash tools/get_smollm2.sh "$MODEL" || exit
fi

# Causal models need prompts in which the answer comes last. These relations have at least three of them.
relations=(P19 P20 P27 P30 P36 P39 P47 P101 P106 P108 P138 P159 P176)
relations+=(P178 P264 P279 P364 P407 P449 P463 P495 P530 P740 P937 P1376)

export RESULTS=results/real FIGURES=figures/real
echo "== PARAREL" && bash 0_get_data.sh || exit
echo "== Stage 1: attributions" && bash 1_run_mlm.sh "${relations[@]}" "$@" || exit
echo "== Stage 2: neurons" && bash 2_run_kn.sh || exit
echo "== Stage 3: suppressing and amplifying" && bash 3_run_modify_activation.sh "${relations[@]}" "$@" || exit
echo "== Stage 4: crawled sentences" && bash 4_run_distant.sh "${relations[@]}" "$@" || exit
echo "== Stage 5: activating sentences" && bash 5_run_trigger_examples.sh "${relations[@]}" "$@" || exit
echo "== Stage 6: updating facts" && bash 6_run_edit.sh 1 8 "${relations[@]}" "$@" || exit
echo "== Stage 7: erasing relations" && bash 7_run_erase.sh P19 P27 P106 P937 "$@" || exit
echo "== Stage 8: figures and report" && bash 8_run_plot.sh || exit

# LRE has no crawled sentences, so stages 4 and 5 are left out.
export DATA=data/lre RESULTS=results/real-lre FIGURES=figures/real-lre
[[ -e $DATA/conversion.json ]] || bash 0_get_data.sh lre || exit # also after `--from FOLDER`
echo "== Stage 1: attributions" && bash 1_run_mlm.sh "$@" || exit
echo "== Stage 2: neurons" && bash 2_run_kn.sh || exit
echo "== Stage 3: suppressing and amplifying" && bash 3_run_modify_activation.sh "$@" || exit
echo "== Stage 6: updating facts" && bash 6_run_edit.sh 1 8 "$@" || exit
echo "== Stage 8: figures and report" && bash 8_run_plot.sh || exit

echo
echo "The reports are results/real/report.html and results/real-lre/report.html."
