"""Does attribution predict where editing succeeds? Never imports torch.

The success of an edit is its rewrite score (p_new - p_old) / (1 - p_old), of the target's probability. It is regressed
on how many neurons are edited in each layer, and then also on how much of the prompt's attribution the edited layers
have, and the edited neurons themselves. Stage 1's attributions from 0.1 of the prompt's highest up count.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from kn.experiments.agreement import with_intervals
from kn.experiments.updates import Strengths
from kn.neurons.attributed import STRIDE, Attributed
from kn.neurons.sets import Neuron
from kn.stats import regression
from kn.stats.regression import ALONE, BOTH, BY_CHANCE, INCREASE
from kn.store.result_files import ARMS

TOGETHER = "all together"
TITLE = "How much of the success of edits do the edited layers explain, alone and with attribution"


class Effect(NamedTuple):
    """Of an edit with an arm's neurons."""

    edit: int
    arm: str
    layers: list[int]  # of the edited neurons
    in_layers: float  # the share of the prompt's attribution in these layers
    in_neurons: float  # and in these neurons
    rewrite: float


def effects(
    lines: list[dict], attributions: Mapping[tuple[str, int], list[Attributed]], strengths: Strengths
) -> list[Effect]:
    """Of the edits whose fact is in `attributions`, by relation and number."""
    found = []
    for number, line in enumerate(lines):
        prompts = attributions.get((line["relation"], line["fact"]))
        if prompts is None:
            continue
        prompt = prompts[line["prompt_idx"]]
        scores = prompt.scores.clip(0)
        for arm in ARMS:
            result = line["arms"][arm].get(strengths.name)
            if result is None or not scores.sum():
                continue
            neurons = [Neuron(*neuron) for neuron in line["arms"][arm]["neurons"]]
            codes = [neuron.layer * STRIDE + neuron.index for neuron in neurons]
            layers = [neuron.layer for neuron in neurons]
            in_layers = scores[np.isin(prompt.neurons // STRIDE, layers)].sum() / scores.sum()
            in_neurons = scores[np.isin(prompt.neurons, codes)].sum() / scores.sum()
            old, new = result["ori_tgt_prob"], result["new_tgt_prob"]
            rewrite = (new - old) / max(1 - old, 1e-9)
            found.append(Effect(number, arm, layers, float(in_layers), float(in_neurons), rewrite))
    return found


def predict(found: list[Effect], seed: int) -> dict[str, dict]:
    """By arm, and for all of them together, how much of the success the layers explain, alone and with attribution."""
    by_arm = {}
    for arm in (*ARMS, TOGETHER):
        chosen = [effect for effect in found if arm in (effect.arm, TOGETHER)]
        used = sorted({layer for effect in chosen for layer in effect.layers})
        counts = [[effect.layers.count(layer) for layer in used] for effect in chosen]
        masses = [[effect.in_layers, effect.in_neurons] for effect in chosen]
        measured = regression.explained(
            np.reshape(counts, (len(chosen), len(used))).astype(float),
            np.reshape(masses, (len(chosen), 2)),
            np.array([effect.rewrite for effect in chosen]),
            np.array([effect.edit for effect in chosen]),
            seed,
        )
        by_arm[arm] = {"edits": len(chosen)} | with_intervals(measured)
    return by_arm


def table(by_arm: dict[str, dict]) -> str:
    rows = [
        f"{TITLE}: R^2 of the rewrite score",
        f"{'':20}{'edits':>6}{'layers alone':>22}{'with attribution':>22}{'increase':>22}{'by chance':>22}",
    ]
    for arm, measures in by_arm.items():
        row = f"{arm:20}{measures['edits']:6}"
        for name in (ALONE, BOTH, INCREASE, BY_CHANCE):
            value, (low, high) = measures[name], measures[f"{name}:interval"]
            row += f"{'-' if value is None else f'{value:.3f} ({low:.3f}-{high:.3f})':>22}"
        rows.append(row)
    return "\n".join(rows)
