#!/usr/bin/env bash
# Every stage on the sample world: real facts in data/sample and a small BERT that has learnt them. Needs no other data.
# `bash run_sample.sh --debug 5`: only the first 5 facts of each relation. RESULTS and FIGURES move what comes out.
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"

export MODEL=data/sample/model DATA=data/sample
export RESULTS=${RESULTS:-results/sample} FIGURES=${FIGURES:-figures/sample}

echo "== Stage 1: attributions" && bash 1_run_mlm.sh "$@" || exit
echo "== Stage 2: neurons" && bash 2_run_kn.sh || exit
echo "== Stage 3: suppressing and amplifying" && bash 3_run_modify_activation.sh "$@" || exit

cat <<END

What was found: the tables above tell how many neurons express a fact and how many facts share, and what becomes of the
answer's probability when they are suppressed (times 0) and amplified (times 2).
  $FIGURES/kneurons_distribution.png    the layers in which they lie
  $RESULTS/kn/kn_bag-P36.json           the neurons of each fact of "capital", [layer, neuron], counted from 0
  $RESULTS/kn/statistics.json           the first table's numbers, and each relation's
Next, with a BERT of your own: MODEL=/path/to/model bash 1_run_mlm.sh, after the real data are in place (README.md).
END
