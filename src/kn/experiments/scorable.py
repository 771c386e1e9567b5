"""What stage 1 writes per fact, still without scores: which prompts can be scored, and why the others can't."""

from collections.abc import Iterable
from typing import NamedTuple

from kn.data.facts import Bag
from kn.model.prompts import Encoded, Encoder


class Scorable(NamedTuple):
    """A prompt that can be scored."""

    fact: int
    index: int  # type: ignore[assignment]  # among the fact's prompts; tuples have a method of this name
    encoded: Encoded


class Prepared(NamedTuple):
    facts: dict[int, list]  # by number, `[prompt, scores]` for each of the fact's prompts
    scorable: list[Scorable]
    skipped: list[dict]  # for the record


def prepare(numbers: Iterable[int], bags: list[Bag], encoder: Encoder, scores: Iterable[str]) -> Prepared:
    """The facts with these numbers. `scores` are the names of the scores, empty lists until they are filled in."""
    prepared = Prepared({}, [], [])
    for fact, encoded_bag in zip(numbers, encoder.facts([bags[number] for number in numbers]), strict=True):
        prepared.facts[fact] = []
        for index, ((_, answer, relation), encoded) in enumerate(zip(bags[fact], encoded_bag, strict=True)):
            about = {"tokens": encoded.tokens, "relation": relation, "gold_obj": answer, "pred_obj": None}
            values: dict = {name: [] for name in scores}
            prepared.facts[fact].append([about, values])
            if encoded.skipped:
                values["skipped"] = encoded.skipped
                skip = {"fact": fact, "prompt": index, "answer": answer, "reason": encoded.skipped}
                prepared.skipped.append(skip)
            else:
                prepared.scorable.append(Scorable(fact, index, encoded))
    return prepared
