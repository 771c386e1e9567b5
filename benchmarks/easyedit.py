"""Editing facts with EasyEdit's interface: the published method, and what EasyEdit's own KN does.

    PYTHONPATH=src .venv/bin/python benchmarks/easyedit.py --bert_model FOLDER       about 10 minutes of one core

Edits each fact of a file of CounterFact's form in a causal model, measures as EasyEdit does, and undoes the edit. The
measures are shares of tokens, read with the whole answer given:

    reliability      of the new answer, after the fact's own prompt
    generalization   of the new answer, after the first of its paraphrase_prompts
    locality         of the old answer, after the neighborhood_prompts: tokens predicted as before the edit
    portability      of the expected answer, after the portability_prompts, where a fact has any (CounterFact has none)

Neurons are found from the fact's own prompt; for "3 prompts" also from its paraphrases but the first, and of those
facts whose prompts share no neuron the model stays as it is. Seconds are those of the processor, for one edit.
"""

from kn.store.start import guard

import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn
from tqdm import tqdm
from transformers import PreTrainedTokenizerBase

from kn.easyedit import apply_easyedit_kn_to_model, apply_kn_to_model
from kn.model import devices, loading
from kn.stage import flags
from kn.store import runs
from kn.store.files import InputError, read_json
from measuring import peak_memory, reset_peak_memory

FACTS = Path(__file__).parent / "easyedit_facts.json"
MEASURES = ("reliability", "generalization", "locality", "portability")
HPARAMS = SimpleNamespace(adaptive_threshold=0.2, refine=False, steps=1)  # of EasyEdit's llama-7b.yaml


class Question(NamedTuple):
    measure: str
    prompt: str
    answer: str


class Reading(NamedTuple):
    predicted: list[int]  # at each token of the answer
    answer: list[int]


class Fact(NamedTuple):
    request: dict[str, Any]  # as EasyEdit has it
    paraphrases: list[str]  # for finding neurons
    questions: list[Question]


class Way(NamedTuple):
    name: str
    apply: Callable
    paraphrases: bool


WAYS = (
    Way("published, one prompt", apply_kn_to_model, False),
    Way("EasyEdit's own", apply_easyedit_kn_to_model, False),
    Way("one prompt, lambda2 = 2", partial(apply_kn_to_model, lambda2=2), False),
    Way("published, 3 prompts", apply_kn_to_model, True),
)


def main() -> None:
    parser = flags.parser(__doc__)
    flags.add_model_flags(parser)
    parser.add_argument("--facts", default=str(FACTS), help="a file of CounterFact's form")
    parser.add_argument("--debug", type=flags.positive, help="work on this many facts only")
    args = parser.parse_args()
    facts = read_facts(Path(args.facts))[: args.debug]
    device = devices.choose(args.device)
    tokenizer, model = loading.load(args.bert_model, args.revision, args.dtype, device)
    before = [[read(model, tokenizer, question) for question in fact.questions] for fact in facts]
    print(f"{runs.provenance(device)}, {len(facts)} facts\n")
    print(f"{'':28}" + "".join(f"{name:>16}" for name in (*MEASURES, "CPU s an edit", "GB")))
    print(f"{'before':28}" + cells(facts, before, before))
    for way in WAYS:
        after, seconds, memory = [], 0.0, 0.0
        for fact in tqdm(facts, desc=way.name, unit="fact", leave=False):
            request = fact.request | ({"paraphrases": fact.paraphrases} if way.paraphrases else {})
            reset_peak_memory(device)
            started = time.process_time()
            undo = edit(way, model, tokenizer, request)
            seconds, memory = seconds + time.process_time() - started, max(memory, peak_memory(device))
            after.append([read(model, tokenizer, question) for question in fact.questions])
            undo()
        print(f"{way.name:28}" + cells(facts, after, before) + f"{seconds / len(facts):16.2f}{memory:16.2f}")


def edit(way: Way, model: nn.Module, tokenizer: PreTrainedTokenizerBase, request: dict[str, Any]) -> Callable:
    try:
        _, undo = way.apply(model, tokenizer, [request], HPARAMS)
    except InputError as error:
        if not way.paraphrases:
            raise
        tqdm.write(f"not edited: {error}", file=sys.stderr)
        return lambda: None
    return undo


def read_facts(path: Path) -> list[Fact]:
    facts = []
    for entry in read_json(path):
        rewrite = entry["requested_rewrite"]
        old, new = rewrite["target_true"]["str"], rewrite["target_new"]["str"]
        prompt, (unseen, *paraphrases) = rewrite["prompt"].format(rewrite["subject"]), entry["paraphrase_prompts"]
        questions = [Question("reliability", prompt, new), Question("generalization", unseen, new)]
        questions += [Question("locality", near, old) for near in entry["neighborhood_prompts"]]
        questions += [
            Question("portability", further["prompt"], further["ground_truth"])
            for further in entry.get("portability_prompts", [])
        ]
        request = {"prompt": prompt, "target_new": new, "ground_truth": old, "subject": rewrite["subject"]}
        facts.append(Fact(request, paraphrases, questions))
    return facts


@torch.no_grad()
def read(model: nn.Module, tokenizer: PreTrainedTokenizerBase, question: Question) -> Reading:
    """What the model predicts at each token of the answer, given those before it."""
    length = len(tokenizer(question.prompt)["input_ids"])
    ids = tokenizer(f"{question.prompt} {question.answer}", return_tensors="pt")["input_ids"].to(model.device)
    logits = model(input_ids=ids).logits[0, length - 1 : -1]
    return Reading(logits.argmax(-1).tolist(), ids[0, length:].tolist())


def cells(facts: list[Fact], readings: list[list[Reading]], before: list[list[Reading]]) -> str:
    """The mean of each measure, over facts of the mean over the fact's questions, in percent."""
    shown = ""
    for measure in MEASURES:
        means = []
        for fact, own, own_before in zip(facts, readings, before, strict=True):
            shares = [
                np.mean(np.equal(now.predicted, earlier.predicted if measure == "locality" else now.answer))
                for question, now, earlier in zip(fact.questions, own, own_before, strict=True)
                if question.measure == measure
            ]
            means += [np.mean(shares)] if shares else []
        shown += f"{100 * np.mean(means):16.1f}" if means else f"{'-':>16}"
    return shown


if __name__ == "__main__":
    guard(main)
