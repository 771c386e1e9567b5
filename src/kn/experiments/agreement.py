"""How far prompts have the same neurons: per fact beside groups of other prompts, and averaged. Never imports torch."""

import argparse
from dataclasses import dataclass

import numpy as np

from kn.neurons import attributed
from kn.neurons.attributed import KEPT, STRIDE, Attributed
from kn.neurons.groups import KINDS, OWN, Groups, Relations
from kn.stage import flags
from kn.stats import consistency, intervals, overlap
from kn.stats.overlap import Decomposition, Prompts
from kn.store import runs

MEASURES = ("CS1", "CS2", "R1^2")
SCORES = ("CS1", "CS2")  # by which facts are called consistent or inconsistent
FEWEST = 2  # prompts that can be compared


def add_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--threshold",
        type=_kept_share,
        default=0.2,
        help="the least share of a prompt's or a fact's highest score",
    )
    parser.add_argument("--beta1", type=flags.number, default=1.0, help="the mean's weight in consistency-aware scores")
    parser.add_argument("--beta2", type=flags.number, default=1.0, help="the standard deviation's")
    parser.add_argument(
        "--fixed", type=flags.number, default=consistency.FIXED, help="the CS below which a fact is inconsistent"
    )


def _kept_share(text: str) -> float:
    share = flags.number(text)
    if not KEPT <= share <= 1:
        expected = f"a number from {KEPT} to 1, since stage 1 writes no neuron below {KEPT} of the highest score"
        raise argparse.ArgumentTypeError(f"expected {expected}, found {text}")
    return share


@dataclass(frozen=True)
class Rules:
    """Which neurons prompts and facts have."""

    threshold: float
    beta1: float
    beta2: float

    def neurons(self, prompt: Attributed) -> np.ndarray:
        return prompt.strongest(self.threshold)

    def consistency_aware(self, prompts: list[Attributed]) -> consistency.Consistent:
        neurons, scores = ([getattr(prompt, name) for prompt in prompts] for name in ("neurons", "scores"))
        return consistency.consistency_aware(neurons, scores, self.beta1, self.beta2, self.threshold)


def rules(args: argparse.Namespace) -> Rules:
    """The values of the flags that `add_flags` adds."""
    return Rules(args.threshold, args.beta1, args.beta2)


def of_group(prompts: list[Attributed], rules: Rules) -> dict[str, float | None]:
    cs1, cs2 = consistency.agreement([rules.neurons(prompt) for prompt in prompts])
    direction = consistency.one_direction([prompt.neurons for prompt in prompts], [prompt.scores for prompt in prompts])
    return dict(zip(MEASURES, (cs1, cs2, direction), strict=True))


def of_fact(relation: str, fact: int, groups: Groups, rules: Rules, seed: int) -> dict:
    """A line of the result: the fact's agreement and that of other groups, and its consistency-aware neurons."""
    prompts = groups.relations[relation][fact]
    line: dict = {"fact": fact, "prompts": len(prompts), "agreement": {}, "consistency-aware neurons": []}
    if len(prompts) >= FEWEST:
        drawn = groups.of_fact(relation, fact, runs.rng(seed, "stage 14", relation, fact))
        line["agreement"] = {kind: of_group(drawn[kind], rules) for kind in KINDS}
        aware = rules.consistency_aware(prompts)
        triplets = zip(attributed.as_neurons(aware.neurons), aware.scores.tolist(), strict=True)
        line["consistency-aware neurons"] = [[*neuron, score] for neuron, score in triplets]
    return line


def otsu(lines: list[dict]) -> dict[str, dict[str, float | None]]:
    """Per score, the threshold that divides all facts best, and the share of the variance that it explains."""
    found = {}
    for score in SCORES:
        threshold, share = consistency.otsu(np.array(_values(lines, OWN, score)))
        found[score] = {
            "threshold": None if np.isnan(threshold) else threshold,
            "share of the variance": None if np.isnan(share) else share,
        }
    return found


def averages(lines: list[dict], fixed: float, otsu_thresholds: dict[str, float | None], seed: int) -> dict[str, dict]:
    """By kind of group, means over facts and the shares of inconsistent facts, with intervals."""
    by_kind = {}
    for kind in KINDS:
        columns = {name: np.array(_values(lines, kind, name)) for name in MEASURES}
        for score in SCORES:
            for method, threshold in (("fixed", fixed), ("Otsu", otsu_thresholds[score])):
                below = columns[score] < threshold if threshold is not None else np.empty(0)
                columns[f"inconsistent by {score}, {method}"] = below
        by_kind[kind] = with_intervals({name: _mean(values, seed) for name, values in columns.items()})
    return by_kind


def _values(lines: list[dict], kind: str, name: str) -> list[float]:
    values = (line["agreement"][kind][name] for line in lines if line["agreement"])
    return [value for value in values if value is not None]


def _mean(values: np.ndarray, seed: int) -> intervals.Measured:
    return intervals.ratio(values, np.ones(len(values)), seed)


def with_intervals(measured: dict[str, intervals.Measured]) -> dict:
    """As in result files."""
    measures: dict = {}
    for name, (value, *interval) in measured.items():
        measures |= {name: value, f"{name}:interval": interval}
    return measures


class Overlaps:
    """The overlap of all pairs of prompts with neurons, and its parts, for all relations and for each."""

    def __init__(self, relations: Relations, rules: Rules, width: int):
        numbers = {name: number for number, name in enumerate(relations)}
        answers: dict[str, int] = {}
        rows, neurons = [], []  # of prompts
        owners: list[int] = []  # the relations of facts
        for name, facts in relations.items():
            for fact in facts:
                members = [(prompt, found) for prompt in fact if len(found := rules.neurons(prompt))]
                for prompt, found in members:
                    answer = answers.setdefault(prompt.answer, len(answers))
                    rows.append((numbers[name], len(owners), prompt.template, answer))
                    neurons.append(found)
                owners.append(numbers[name])
        self.numbers, self.owners = numbers, np.array(owners)
        prompts = Prompts(*np.array(rows, int).reshape(-1, 4).T)
        layers = [found // STRIDE for found in neurons]
        self.overlaps = overlap.by_fact(prompts, neurons, layers, width, len(owners)) if rows else {}

    def decompose(self, names: list[str], seed: int) -> Decomposition:
        """Of the facts of these relations."""
        chosen = np.isin(self.owners, [self.numbers[name] for name in names])
        columns = {kind: values[chosen] for kind, values in self.overlaps.items()}
        return overlap.decompose(columns, self.owners[chosen], seed)
