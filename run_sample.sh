#!/usr/bin/env bash
# Runs every stage on the sample: real facts in data/sample, and small models that have learnt them. Needs no other data.
# `bash run_sample.sh --debug 5` keeps only the first 5 facts of each relation.
# The variables RESULTS and FIGURES name other folders for what it writes.
[ -n "$BASH_VERSION" ] || exec bash "$0" "$@" # if started with sh
[[ " $* " == *" --help "* || " $* " == *" -h "* ]] && { sed -n '2,4s/^# //p' "${BASH_SOURCE[0]}"; exit; }
source "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/setup.sh"

export MODEL=data/sample/model DATA=data/sample
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1} # more threads would only slow down so small a model
export RESULTS=${RESULTS:-results/sample} FIGURES=${FIGURES:-figures/sample}

echo "== Stage 1: attributions" && bash 1_run_mlm.sh "$@" || exit
echo "== Stage 2: neurons" && bash 2_run_kn.sh || exit
echo "== Stage 3: suppressing and amplifying" && bash 3_run_modify_activation.sh "$@" || exit
echo "== Stage 4: crawled sentences" && bash 4_run_distant.sh "$@" || exit
echo "== Stage 5: activating sentences" && bash 5_run_trigger_examples.sh "$@" || exit
echo "== Stage 6: updating facts" && bash 6_run_edit.sh 1 8 "$@" || exit
echo "== Stage 7: erasing relations" && bash 7_run_erase.sh P19 P27 P106 P937 "$@" || exit
echo "== Stage 14: facts or questions" && bash 14_run_consistency.sh P36 P101 P103 "$@" || exit
# The second paper's stages use a bilingual model and a few relations.
export MLAMA=data/sample/mlama
bilingual=data/sample/bilingual-bert relations=(P36 P103 P101)
for language in en zh; do
    echo "== Stage 9: neurons in two languages, $language"
    bash 9_run_amig.sh "$bilingual" "$language" "${relations[@]}" "$@" || exit
done
echo "== Stage 10: language-independent neurons"
bash 10_run_language_independent.sh "$bilingual" en zh "${relations[@]}" "$@" || exit
echo "== Stage 11: degenerate neurons" && bash 11_run_degenerate.sh "$bilingual" en zh "${relations[@]}" "$@" || exit
echo "== Stage 12: checking facts" && bash 12_run_fact_check.sh "$bilingual" en zh "${relations[@]}" "$@" || exit
echo "== Stage 13: methods" && bash 13_run_methods.sh P36 --debug 20 --methods dai atp activation random "$@" || exit
echo "== Stage 8: figures and report" && bash 8_run_plot.sh || exit

cat <<END

$RESULTS/report.html shows these numbers next to the paper's, and every fact. The figures are in $FIGURES, the results in
$RESULTS. For example, $RESULTS/kn/kn_bag-P36.json has the neurons of each fact of "capital", and
$RESULTS/trigger_examples_th/P36-0.txt the sentences that activate the neurons of the first fact.
Next, with a BERT of your own: bash 0_get_data.sh fetches the real data, then MODEL=/path/to/model bash 1_run_mlm.sh (README.md).
END
