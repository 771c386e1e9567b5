"""Checks what callers ask of a model: prompts, baseline sentences, neurons, layers.

Python counts -1 from the end, and so does PyTorch, so a wrong number would often be read somewhere else instead of
failing. Here it is an error of one line. Numbers may be Python's, NumPy's or PyTorch's.

Neurons to change are a set: naming one twice is an error, since some changes would then be made twice and others once.
Neurons to read are a list, which may repeat.
"""

from collections.abc import Iterable, Sequence
from operator import index
from typing import Any

from kn.model.adapters import Adapter
from kn.model.prompts import Prompt
from kn.store.files import InputError

Neurons = Sequence[Sequence[int]]  # each [layer, index]
NONE = -1  # no number counts from the end, so this is none of them


def prompts(given: Iterable[Prompt], adapter: Adapter) -> list[Prompt]:
    """The prompts, with lists of Python's numbers."""
    if adapter.words.training:
        raise InputError("the model is in training mode, where dropout makes its numbers random: call model.eval()")
    return [_prompt(prompt, f"prompt {number}", adapter) for number, prompt in enumerate(given)]


def _prompt(prompt: Prompt, where: str, adapter: Adapter) -> Prompt:
    if not isinstance(prompt, Prompt):
        raise InputError(f"{where}: expected Prompt(ids, positions, answers), found {_short(prompt)}")
    ids = tokens(prompt.ids, adapter, where)
    answers = tokens(prompt.answers, adapter, f"{where}: answer")
    if not 0 < len(ids) <= adapter.longest:
        raise InputError(f"{where}: has {len(ids)} tokens, the model reads 1 to {adapter.longest}")
    expected = f"{where}: expected positions from 0 to {len(ids) - 1}"
    given = _listed(prompt.positions, expected)
    positions = [_number(position, len(ids)) for position in given]
    if NONE in positions:
        raise InputError(f"{expected}, found {given}")
    if len(positions) != len(answers) or not answers:
        raise InputError(f"{where}: expected one position per piece of the answer, found {given} for {answers}")
    return Prompt(ids, positions, answers)


def baselines(
    given: Iterable[Iterable[Iterable[int]]], prompts: Sequence[Prompt], adapter: Adapter
) -> list[list[list[int]]]:
    """The token ids of each prompt's baseline sentences."""
    checked = [
        [tokens(ids, adapter, f"prompt {number}: baseline {position}") for position, ids in enumerate(sentences)]
        for number, sentences in enumerate(given)
    ]
    if len(checked) != len(prompts):
        raise InputError(f"{len(checked)} lists of baselines for {len(prompts)} prompts: expected one per prompt")
    for number, (sentences, prompt) in enumerate(zip(checked, prompts, strict=True)):
        lengths = sorted({len(sentence) for sentence in sentences})
        if lengths != [len(prompt.ids)]:
            expected = f"expected baselines of its {len(prompt.ids)} tokens"
            raise InputError(f"prompt {number}: {expected}, found lengths {lengths}")
    return checked


def tokens(given: Iterable[int], adapter: Adapter, where: str) -> list[int]:
    vocabulary = adapter.words.num_embeddings
    expected = f"{where}: expected token ids from 0 to {vocabulary - 1}"
    given = _listed(given, expected)
    ids = [_number(token, vocabulary) for token in given]
    if NONE in ids:
        raise InputError(f"{expected}, found {_short(given[ids.index(NONE)])}")
    return ids


def neurons(given: Neurons, adapter: Adapter) -> list[list[int]]:
    """A list of neurons, which may repeat."""
    checked = []
    for neuron in given:
        try:
            layer, unit = neuron
        except (TypeError, ValueError):
            raise InputError(f"expected a neuron [layer, index], found {_short(neuron)}") from None
        checked.append([_number(layer, adapter.n_layers), _number(unit, adapter.d_ffn)])
        if NONE in checked[-1]:
            size = f"{adapter.n_layers} layers of {adapter.d_ffn} neurons, both counted from 0"
            raise InputError(f"there is no neuron [{layer}, {unit}]: the model has {size}")
    return checked


def different_neurons(given: Neurons, adapter: Adapter) -> list[list[int]]:
    """A set of neurons, in the order given."""
    checked, seen = neurons(given, adapter), set()
    for neuron in map(tuple, checked):
        if neuron in seen:
            raise InputError(f"neuron {list(neuron)} is named twice: expected different neurons")
        seen.add(neuron)
    return checked


def layers(given: Iterable[int] | None, adapter: Adapter) -> list[bool]:
    """For each layer of the model whether it was given; None gives all."""
    given = list(range(adapter.n_layers) if given is None else given)
    wanted = [_number(layer, adapter.n_layers) for layer in given]
    if NONE in wanted:
        raise InputError(f"layer {given[wanted.index(NONE)]}: expected layers from 0 to {adapter.n_layers - 1}")
    return [layer in wanted for layer in range(adapter.n_layers)]


def _listed(values: Iterable, expected: str) -> list:
    try:
        if not isinstance(values, str):
            return list(values)
    except TypeError:  # a number alone
        pass
    raise InputError(f"{expected}, in a list, found {_short(values)}")


def _short(value: object) -> str:
    return str(value)[:80]


def _number(value: Any, end: int) -> int:
    """The value if it is a whole number from 0 to below `end`, else NONE."""
    try:
        number = index(value)
    except TypeError:
        return NONE
    return number if 0 <= number < end and not isinstance(value, bool) else NONE
