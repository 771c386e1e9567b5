"""Finding the neurons that express each fact, with one of the presets: the lines that `kn/neurons/located.py` reads."""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING

from kn.neurons.located import KEPT_LEAST, KEPT_SHARE
from kn.neurons.sets import Triplet
from kn.stage.languages import Language
from kn.stage.runner import Unit

if TYPE_CHECKING:
    from torch import Tensor

    from kn.methods.locator import Locator
    from kn.model.prompts import Encoded


def locate(unit: Unit, relation: str, language: Language, locator: Locator) -> tuple[list[str], dict]:
    """A line per fact of the relation: its attributed neurons, or why it was skipped."""
    from kn.methods.certificate import Certificate  # imports torch

    uuids = list(language.facts[relation])
    lines: dict[str, dict] = {}
    asked: dict[str, Encoded] = {}
    skipped: Counter[str] = Counter()
    for number in unit:
        uuid = uuids[number]
        fact, encoded = language.facts[relation][uuid], language.encoded(relation, uuid)
        lines[uuid] = {"uuid": uuid, "lineid": fact.lineid, "text": fact.bag[0][0], "answer": fact.answer}
        if reason := locator.skipped(encoded):
            lines[uuid]["skipped"] = reason
            skipped[reason] += 1
        else:
            asked[uuid] = encoded
    unit.done(len(lines) - len(asked))

    asked_uuids, n_right, certificate = list(asked), 0, Certificate()
    for batch in locator.attribute(list(asked.values())):
        certificate += batch.certificate
        completeness = None if batch.completeness is None else batch.completeness.tolist()
        probabilities, neurons = batch.own.tolist(), strongest(batch.answer)
        for row, index in enumerate(batch.prompts):
            uuid = asked_uuids[index]
            right = batch.predicted[row] == asked[uuid].answers
            lines[uuid] |= {"probability": probabilities[row], "right": right, "neurons": neurons[row]}
            if completeness:
                lines[uuid]["completeness"] = completeness[row]
            n_right += right
        unit.done(len(batch.prompts))
    summary = {"scored": len(asked), "right": n_right, "skipped": skipped, **certificate.summary()}
    summary["not certified"] = [[asked_uuids[index], layer] for index, layer in certificate.failed]
    texts = [json.dumps(line, ensure_ascii=False) for line in lines.values()]
    return texts, summary | {"seconds": unit.seconds}


def strongest(scores: Tensor) -> list[list[Triplet]]:
    """Per prompt the triplets worth keeping, the highest score first. Waits for the device twice."""
    import torch

    d_ffn = scores.shape[2]
    ordered, order = scores.flatten(1).sort(descending=True, stable=True)
    above = ((ordered >= KEPT_SHARE * ordered[:, :1]) & (ordered[:, :1] > 0)).sum(1)
    counts = [max(KEPT_LEAST, count) for count in above.tolist()]
    longest = max(counts)
    values, indices = torch.stack([ordered[:, :longest].double(), order[:, :longest].double()]).cpu()
    triplets = []
    for row, count in enumerate(counts):
        row_values, row_indices = values[row, :count].tolist(), indices[row, :count].long().tolist()
        pairs = zip(row_indices, row_values, strict=True)
        triplets.append([Triplet(index // d_ffn, index % d_ffn, score) for index, score in pairs])
    return triplets


def describe(made: dict) -> str:
    """One line about a finished relation, from its record."""
    from kn.methods.certificate import in_words  # imports torch

    if not made["facts"]:
        return "no facts"
    parts = [f"{made['scored']} of {made['facts']} facts scored in {made['seconds']:.0f} s"]
    parts.append(f"{made['right'] / max(made['scored'], 1):.0%} predicted right")
    parts += [f"skipped: {count} ({reason})" for reason, count in made["skipped"].items()]
    if made["steps"]:
        parts.append(in_words(made))
    return "; ".join(parts)
