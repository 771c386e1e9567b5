"""Stage 11: degenerate neurons: pairs of which a fact bears the loss of either, but not of both.

    python src/11_degenerate.py --bert_model MODEL --mlama data/mlama1.1.zip --languages en zh

Of each fact the strongest neurons that stage 9 found (`--top`) are suppressed one by one and in all pairs. Degenerate,
as published, is a pair of neurons that lose at most `--low` of the answer's probability alone, and more than `--high`
together. Two ordinary neurons can do that, so each pair is told with its interaction, the loss of both minus the sum
of the single losses; a pair with `--min_interaction` is degenerate in the strict sense. As many random neurons of the
same layers undergo the same.

Per fact, one a line: `amig/<language>/degenerate-P101.jsonl` in `--output_dir`, pairs as
`[neuron, neuron, loss of the one, of the other, of both, interaction]`. Counts, shares and layers:
`amig/degenerate.json` there. The figure: `degenerate_layers` in `--fig_dir`.
"""

import argparse
import json
from pathlib import Path

from kn import degenerate, figures, flags, languages, results, runs, selection
from kn.degenerate import Pair
from kn.files import read_jsonl
from kn.probing import Probe

ARMS = ("knowledge neurons", "random neurons")
UNIT = 32  # facts: what a killed run loses at most


def parse() -> argparse.Namespace:
    parser = flags.parser(__doc__)
    flags.add_model_flags(parser)
    languages.add_flags(parser)
    parser.add_argument("--top", type=flags.positive, default=20, help="how many of a fact's neurons are tried")
    parser.add_argument("--low", type=float, default=degenerate.LOW, help="loss that a single neuron may cause")
    parser.add_argument("--high", type=float, default=degenerate.HIGH, help="loss that a pair must exceed")
    parser.add_argument(
        "--min_interaction", type=float, default=degenerate.STRICT, help="what the strict definition asks of a pair"
    )
    parser.add_argument(
        "--disjoint", action="store_true", help="count only pairs without a neuron in common, greatest loss first"
    )
    parser.add_argument("--fig_dir", default="figures", help="where the figure goes")
    return parser.parse_args()
