"""What result files hold that is read back: types for those who write it, and shapes for those who read it. No torch.

Only what some reader needs is required. Files hold more, and the published program's hold less than ours.
"""

from collections.abc import Sequence
from typing import Annotated, Any, TypedDict

from kn.store.result_files import ARMS
from kn.store.shapes import Problem, anything, each, either, having, number, optional, row, shape_of, table, text

# ---- means with their intervals, in the files of several stages ----

NOT_NUMBERS = ("before -> after", "percent by layer", "percent by layer:interval", "relations", "in range")
INTERVAL = optional(row(optional(number), optional(number)))


def measures(value: object) -> Problem | None:
    """A shape: by name a number, or null where nothing could be measured; by `name:interval` its interval."""
    if not isinstance(value, dict):
        return table(number)(value)
    shapes = {name: INTERVAL if name.endswith(":interval") else optional(number) for name in value}
    return having({name: shape for name, shape in shapes.items() if name not in NOT_NUMBERS})(value)


Measures = Annotated[dict[str, Any], measures]
WithInterval = Annotated[list[float | None], row(*[optional(number)] * 3)]  # the value, low, high
Shares = Annotated[list[float | None], each(optional(number), "layer", least=1)]  # in percent, by layer
ShareIntervals = Annotated[list[list[float | None]], each(row(optional(number), optional(number)), "layer", least=1)]

# ---- stage 1 ----


class Prompt(TypedDict):
    """What a line of stage 1 says about a prompt; its scores follow."""

    tokens: list[str]
    relation: str
    gold_obj: str
    pred_obj: str | None  # None if the prompt was skipped


class Scores(TypedDict):
    """Triplets. There are millions, so `kn.neurons.sets.are_triplets` checks them, by columns."""

    ig_gold: Annotated[list, anything]
    base: Annotated[list, anything]


class Skip(TypedDict):
    fact: int
    prompt: int


AttributionRecord = TypedDict(
    "AttributionRecord",
    {"facts": int, "prompts": int, "scored": int, "seconds": dict[str, float], "made by": object},
)
PROMPTS = each(shape_of(Prompt), "prompt", least=1)
ATTRIBUTIONS = each(row(table(anything), shape_of(Scores)), "prompt")
SKIPPED = each(shape_of(Skip))
ATTRIBUTION_RECORD = table(shape_of(AttributionRecord))

# ---- stage 2 ----


class Pass(TypedDict):
    mode_ratio: float  # the share of a fact's prompts that must have a neuron
    mean: float  # neurons per fact


Taken = TypedDict("Taken", {"mode_ratio": float, "in range": bool})


class Refined(Taken, total=False):
    """Earlier versions recorded no passes."""

    passes: list[Pass]
    nearest: Pass


class RefinedByScore(TypedDict):
    ig_gold: Refined
    base: Refined


class _Refining(TypedDict):
    layers: int
    relations: dict[str, RefinedByScore]


class Refining(_Refining, total=False):
    d_ffn: int | None  # neurons in a layer; earlier versions did not write it


class SharedOnAverage(TypedDict):
    shared: float | None
    expected: float | None


Squares = Annotated[list[list[float | None]], each(each(optional(number), "relation"), "relation")]
# Means over pairs of facts. Those of random neurons are unknown if the number of neurons in a layer is.
SharedNeurons = TypedDict(
    "SharedNeurons",
    {
        "relations": list[str],
        "facts": list[int],
        "shared": Squares,
        "expected": Annotated[list[list[float | None]] | None, optional(shape_of(Squares))],
        "within a relation": SharedOnAverage,
        "between relations": SharedOnAverage,
    },
)
_Shares = TypedDict("_Shares", {"percent by layer": Shares})
_ShareIntervals = TypedDict("_ShareIntervals", {"percent by layer:interval": ShareIntervals}, total=False)


class LayerShares(_Shares, _ShareIntervals):
    """Earlier versions wrote no intervals."""


class NeuronStatistics(LayerShares):
    relations: dict[str, Measures]


REFINING = shape_of(Refining)
SHARED_NEURONS = shape_of(dict[str, SharedNeurons])  # by arm
NEURON_STATISTICS = table(lambda value: shape_of(NeuronStatistics)(value) or measures(value))  # by arm

# ---- stage 3 ----


Probabilities = Annotated[list[list[float]], each(each(number, least=1), "prompt")]


class Modified(TypedDict):
    """Per prompt the probability as it is, then with each factor."""

    own: Probabilities


class ModifiedSides(Modified):
    oth: Probabilities  # of another relation's fact


ModifiedFact = TypedDict("ModifiedFact", {"fact": int, "knowledge neurons": Modified})
MODIFIED_FACT = shape_of(ModifiedFact)
MODIFIED_ARMS = having(dict.fromkeys(ARMS, shape_of(ModifiedSides)))
MODIFIED_MEANS = shape_of(dict[str, Measures])  # by entry, see result_files.neurons_entry
NEURON = row(shape_of(int), shape_of(int))


class SingleNeurons(TypedDict):
    """Of a fact, each of its neurons suppressed alone: means over its prompts."""

    fact: int
    neurons: Annotated[Sequence[Sequence[int]], each(NEURON, "neuron")]
    probability: float | None  # as it is; None if no prompt could be scored, or there are no neurons
    without: list[float]  # per neuron
    activations: list[float]


class NeuronWords(TypedDict):
    neuron: Annotated[list[int], NEURON]
    nearest: list[str]  # to its value vector: what it makes more probable where its activation is positive
    farthest: list[str]


SINGLE_NEURONS, NEURON_WORDS = shape_of(SingleNeurons), shape_of(NeuronWords)

# ---- stage 4 ----

# By relation and fact why there is nothing; or for each of the three kinds the activation of each neuron.
PUBLISHED_ACTIVATIONS = table(each(either(text, row(*[each(number, least=1)] * 3)), "fact"))

# ---- stage 5 ----


class ActiveSentence(TypedDict):
    activation: float
    fact: int  # that it was crawled for
    text: str  # masked


class NeuronSentences(TypedDict):
    """The outermost first."""

    neuron: Annotated[list[int], NEURON]
    most: list[ActiveSentence]
    least: list[ActiveSentence]


NEURON_SENTENCES = each(shape_of(NeuronSentences))

# ---- stage 6 ----


class FactOutcomes(TypedDict, total=False):
    """Earlier versions did not count them."""

    facts: dict[str, dict[str, int | None]]  # by relation and outcome


class Predicted(TypedDict, total=False):  # results of earlier versions lack it
    localization: dict[str, Measures]  # by arm


class Edits(FactOutcomes, Predicted):
    """A summary with one pair of strengths."""

    lambda1: float
    lambda2: float
    averages: dict[str, Measures]  # by arm


class Grid(FactOutcomes):
    pairs: list[Edits]


EDITS = shape_of(Edits)
GRID = shape_of(Grid)

# ---- stage 7 ----


class Erasure(TypedDict):
    measures: dict[str, Measures]  # by arm


ERASURE = shape_of(Erasure)

# ---- stages 9 and 10 ----

Rates = TypedDict("Rates", {"SR": WithInterval, "SR of medians": WithInterval, "SR of absolute changes": WithInterval})


class SuccessRates(TypedDict):
    all: dict[str, Rates]  # relations together, by arm


CrossLingualRates = TypedDict(
    "CrossLingualRates",
    {
        "same facts": dict[str, SuccessRates],  # by language
        "all facts": dict[str, SuccessRates],
        "facts": int,
        "facts without LIKN": int,
    },
)


class LocatedFact(TypedDict):
    """A line of stage 9, and then either what SkippedFact has or what ScoredFact has."""

    uuid: str
    lineid: object
    text: str
    answer: str


class SkippedFact(TypedDict):
    skipped: str  # why


class ScoredFact(TypedDict):
    probability: float
    right: bool
    neurons: Annotated[list[list], each(row(shape_of(int), shape_of(int), number), "neuron")]


SUCCESS_RATES = shape_of(SuccessRates)
CROSS_LINGUAL_RATES = shape_of(CrossLingualRates)
LOCATED_FACT, SKIPPED_FACT, SCORED_FACT = shape_of(LocatedFact), shape_of(SkippedFact), shape_of(ScoredFact)

# ---- stages 11 and 12 ----

PairCounts = Annotated[dict[str, Any], lambda value: measures(value) or shape_of(LayerShares)(value)]


class DegenerateCounts(TypedDict):
    all: dict[str, dict[str, PairCounts]]  # relations together, by arm and definition


class FactCheckMeasures(TypedDict):
    measures: dict[str, dict[str, Measures]]  # by number of wrong objects and way to decide


DEGENERATE_COUNTS = shape_of(dict[str, DegenerateCounts])  # by language
FACT_CHECK_MEASURES = shape_of(dict[str, FactCheckMeasures])

# ---- stage 13 ----

Effects = Annotated[list[float], row(*[number] * 3)]  # probability, log-probability, reciprocal rank
OnSides = dict[str, Effects]  # by side: the fact itself, other facts …


class RankedFact(TypedDict):
    """A line of the neurons that a method finds, unless it has `skipped`."""

    choosing: list[int]  # prompts
    judging: list[int]
    neurons: Annotated[list[list], each(row(shape_of(int), shape_of(int), number), "neuron")]


class StrongFact(TypedDict):
    """The same of the reference."""

    strong: list[list[list[int]]]  # per choosing prompt, the neurons that the first paper would keep


class ChangedFact(TypedDict):
    """A line of what changing them does, unless it has `skipped`."""

    neurons: dict[str, int]  # how many, by name
    before: OnSides
    suppressed: dict[str, OnSides]  # by the name of the number of neurons
    doubled: dict[str, OnSides]


class MethodCost(TypedDict):
    prompts: int
    seconds: float


class MethodComparison(TypedDict):
    facts: int
    pool: str
    cost: dict[str, MethodCost]  # by method
    all: dict[str, dict[str, dict[str, dict[str, Measures]]]]  # by change, number, side and method


RANKED_FACT, STRONG_FACT, CHANGED_FACT = shape_of(RankedFact), shape_of(StrongFact), shape_of(ChangedFact)
METHOD_COMPARISON = shape_of(MethodComparison)

# ---- stage 14 ----


class Belonging(TypedDict):
    """Of a relation, or of all of them."""

    facts: int
    agreement: dict[str, Measures]  # by kind of group
    overlap: Measures
    parts: Measures


class Consistency(TypedDict):
    all: Belonging
    relations: dict[str, Belonging]


class CarryOver(TypedDict):
    groups: dict[str, dict[str, Measures]]  # by group of facts and arm
    relations: dict[str, dict[str, Measures]]


CONSISTENCY, CARRY_OVER = shape_of(Consistency), shape_of(CarryOver)
