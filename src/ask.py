"""Ask one question: which neurons the model needs for the answer, what they write, and what happens without them.

    python src/ask.py "The capital of France is [MASK]." Paris --other "The capital of Japan is [MASK]." Tokyo

Attributes the answer's probability to the model's neurons, as stage 1 does, and keeps those with at least `--threshold`
of the highest score. With `--paraphrases`, a file with the same question in other words, one per line, a neuron is kept
if more than half of the questions keep it. For each neuron: its layer and index, counted from 0; its score, as a share
of the highest; and the words that it makes most and least probable here, that is, those nearest to its value vector
and farthest from it, through the model's final norm and unembedding. Then the neurons are set to zero and doubled, and
so are random neurons of the same layers, as a control: the mean of 10 random sets.

A causal model needs a question that ends with [MASK].
"""

from kn.store.start import guard

import argparse
import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from kn.methods.quadrature import RULES
from kn.methods.scaling import Scaling
from kn.neurons import selection
from kn.neurons.sets import NeuronSet
from kn.report import figures
from kn.report.drawing import Group, Words, can_be_drawn
from kn.report.read_back import Reported
from kn.stage import flags, setup
from kn.stage.setup import Model
from kn.store import runs
from kn.store.files import InputError

if TYPE_CHECKING:
    from torch import Tensor

    from kn.model.prompts import Encoded

RANDOM_SETS = 10
FACTORS = (0.0, 2.0)
CHANGES = ("as it is", "suppressed", "doubled", "random suppressed", "random doubled")
PREDICTIONS = 5


@dataclass(frozen=True)
class Question:
    text: str
    answer: str


class Attributions(NamedTuple):
    scores: "Tensor"  # questions x layers x d_ffn
    activations: "Tensor"  # of the first question, layers x d_ffn
    probabilities: "Tensor"  # of the first question
    predicted: tuple[int, ...]  # the most probable token at each piece of the first question's answer


@dataclass
class AskedNeuron:
    layer: int
    index: int
    share: float  # of the highest score
    questions: int  # how many keep it
    writes: list[str]
    least: list[str]


def parse() -> argparse.Namespace:
    parser = flags.parser(__doc__)
    parser.add_argument("text", help="the question, with [MASK] where the answer is")
    parser.add_argument("answer")
    parser.add_argument("--other", nargs=2, metavar=("TEXT", "ANSWER"), help="a second question, to compare with")
    parser.add_argument("--paraphrases", metavar="FILE", help="the question in other words, one per line")
    parser.add_argument("--threshold", type=flags.number, default=0.2, help="share of the highest score that is kept")
    parser.add_argument("--top", type=flags.positive, default=10, help="how many neurons are kept at most")
    parser.add_argument("--words", type=flags.positive, default=5, help="words to show for each neuron")
    parser.add_argument("--rule", choices=RULES, default="{RULE}", help="as in stage 1")
    parser.add_argument("--json", action="store_true", help="print everything as JSON instead")
    parser.add_argument("--figure", metavar="PATH", help="draw the effects: PATH.pdf, PATH.png and PATH.csv")
    flags.add_model_flags(parser)
    args = parser.parse_args()
    if not 0 < args.threshold <= 1:
        parser.error(f"--threshold {args.threshold}: expected a share above 0, and 1 at most")
    return args


def main() -> None:
    args = parse()
    questions = [Question(args.text, args.answer)]
    if args.paraphrases:
        questions += [Question(text, args.answer) for text in read_paraphrases(Path(args.paraphrases))]
    measured = [questions[0], *([Question(*args.other)] if args.other else [])]
    model = setup.open_model(flags.model_args(args), debug=-1)
    attributions = attribute([encode(question, model) for question in questions], model, args.rule)
    predictions = predictions_of(attributions, model)
    neurons = strongest(attributions, model, args.threshold, args.top, args.words)
    members = NeuronSet((neuron.layer, neuron.index) for neuron in neurons)
    measured_effects = {
        question.text: effect(encode(question, model), members, model, args.seed) for question in measured
    }
    effects = {text: {name: value.value for name, value in values.items()} for text, values in measured_effects.items()}
    if args.json:
        summary = {
            "model": args.bert_model,
            "questions": [asdict(question) for question in questions],
            "predictions": predictions,
            "neurons": [asdict(neuron) for neuron in neurons],
            "effects": effects,
        }
        print(json.dumps(summary, ensure_ascii=False, indent=1))
    else:
        print(in_words(questions, predictions, neurons, effects))
    if args.figure:
        print(draw(measured_effects, Path(args.figure)), file=sys.stderr if args.json else sys.stdout)


def read_paraphrases(path: Path) -> list[str]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read ({error}): expected a text file with one question per line") from None
    return [line.strip() for line in lines if line.strip()]


def encode(question: Question, model: Model) -> "Encoded":
    ((encoded,),) = model.encoder.facts([[[question.text, question.answer, ""]]])
    if encoded.skipped:
        raise InputError(f"{question.text!r}, answer {question.answer!r}: {encoded.skipped}")
    return encoded


def attribute(encoded: list["Encoded"], model: Model, rule: str) -> "Attributions":
    """Of all questions together, in their order."""
    import torch  # here and below, since it takes seconds to load

    from kn.methods.attribution import Engine

    engine = Engine(model.adapter, rule, 20, model.max_tokens)
    rows = {
        number: (batch.answer[row], batch.activations[row], batch.probabilities[row], batch.predicted[row])
        for batch in engine.attribute([question.prompt for question in encoded])
        for row, number in enumerate(batch.prompts)
    }
    scores, activations, probabilities, predicted = zip(*(rows[number] for number in range(len(encoded))), strict=True)
    return Attributions(torch.stack(scores).double(), activations[0], probabilities[0], predicted[0])


def predictions_of(attributions: "Attributions", model: Model) -> list[str]:
    """The most probable answers to the first question; if the answer has several pieces, only the most probable one."""
    if len(attributions.predicted) > 1:
        return [model.encoder.text(attributions.predicted)]
    probabilities, tokens = attributions.probabilities.topk(PREDICTIONS)
    return [
        f"{model.encoder.text((token,))} {probability:.1%}"
        for token, probability in zip(tokens.tolist(), probabilities.tolist(), strict=True)
    ]


def strongest(attributions: "Attributions", model: Model, threshold: float, top: int, words: int) -> list[AskedNeuron]:
    """The neurons that most of the questions keep, those with the highest mean share first."""
    from kn.methods.vocabulary import words_written

    scores = attributions.scores
    shares = scores / scores.amax((1, 2), keepdim=True)
    keep = (shares >= threshold).sum(0)
    mean = shares.mean(0).where(2 * keep > len(shares), 0)
    order = mean.flatten().argsort(descending=True, stable=True)[:top].tolist()
    neurons = [list(divmod(place, model.adapter.d_ffn)) for place in order]
    neurons = [[layer, index] for layer, index in neurons if mean[layer, index] > 0]
    if not neurons:
        return []
    # A neuron with a negative activation writes the opposite of its value vector.
    signs = [-1.0 if attributions.activations[layer, index] < 0 else 1.0 for layer, index in neurons]
    found = []
    for (layer, index), ends in zip(neurons, words_written(model.adapter, neurons, signs, words), strict=True):
        writes, least = ([model.encoder.text((token,)) for token in tokens] for tokens in ends)
        found.append(AskedNeuron(layer, index, float(mean[layer, index]), int(keep[layer, index]), writes, least))
    return found


def effect(question: "Encoded", neurons: NeuronSet, model: Model, seed: int) -> dict[str, Reported]:
    """The answer's probability as it is, and with the neurons, or random ones instead, suppressed and doubled.

    Of the random sets the mean, the lowest and the highest.
    """
    from kn.methods.probing import Probe

    d_ffn = model.adapter.d_ffn
    sets = [neurons] + [
        selection.random_like(neurons, d_ffn, runs.rng(seed, "ask", number)) for number in range(RANDOM_SETS)
    ]
    scalings = [Scaling(members, factor) for members in sets for factor in FACTORS]
    (values,) = Probe(model.adapter, model.max_tokens).scaled([question.prompt], [scalings])
    plain, changed = float(values[0]), values[1:].reshape(len(sets), len(FACTORS))
    random = changed[1:]
    means, lowest, highest = random.mean(0).tolist(), random.min(0).tolist(), random.max(0).tolist()
    measured = [Reported(plain), *map(Reported, changed[0].tolist()), *map(Reported, means, lowest, highest)]
    return dict(zip(CHANGES, measured, strict=True))


# ---- what is shown ----


def in_words(
    questions: list[Question], predictions: list[str], neurons: list[AskedNeuron], effects: dict[str, dict[str, float]]
) -> str:
    lines = [questions[0].text, f"answer: {questions[0].answer}   prediction: {', '.join(predictions)}", ""]
    if not neurons:
        return "\n".join([*lines, "more than half of the questions share no neuron: lower --threshold"])
    if len(questions) > 1:
        lines.append(f"Neurons that most of the {len(questions)} questions share")
    writes = max(len("makes more probable"), *(len(", ".join(neuron.writes)) for neuron in neurons))
    lines.append(f"{'layer':>5} {'neuron':>6} {'score':>6}  {'makes more probable':{writes}}  makes less probable")
    for neuron in neurons:
        more, less = ", ".join(neuron.writes), ", ".join(neuron.least)
        lines.append(f"{neuron.layer:>5} {neuron.index:>6} {neuron.share:>6.0%}  {more:{writes}}  {less}")
    width = max(map(len, effects))
    what = "this neuron changes" if len(neurons) == 1 else f"these {len(neurons)} neurons change"
    lines += ["", f"The answer's probability when {what}, and as many random ones in the same layers"]
    lines.append(" " * width + "".join(f"{name:>20}" for name in CHANGES))
    for text, values in effects.items():
        lines.append(f"{text:{width}}" + "".join(f"{values[name]:>20.2%}" for name in CHANGES))
    return "\n".join(lines)


def percent(share: Reported) -> Reported:
    value, low, high = share
    return Reported(100 * value, None if low is None else 100 * low, None if high is None else 100 * high)


def draw(effects: dict[str, dict[str, Reported]], path: Path) -> Path:
    """The answers' probabilities, a series for each question."""
    if not all(map(can_be_drawn, effects)):
        effects = {f"question {number}": values for number, values in enumerate(effects.values(), 1)}
        print("the figure numbers the questions: no font with their letters is installed", file=sys.stderr)
    series = {text: [percent(values[name]) for name in CHANGES] for text, values in effects.items()}
    groups = [Group(name, name.replace("random ", "random\n")) for name in CHANGES]
    note = f"Random: as many neurons in the same layers, mean and range of {RANDOM_SETS} sets."
    if len(series) == 1:  # which has no legend
        note = f"{next(iter(series))} {note}"
    words = Words("The answer when its neurons change", "neurons", "probability of the answer (%)", note)
    return figures.bars(groups, series, words, path)


if __name__ == "__main__":
    guard(main)
