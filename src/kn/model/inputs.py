"""Checks what callers ask of a model: prompts, baseline sentences, neurons, layers.

Python counts -1 from the end, and so does PyTorch, so a wrong number would often be read somewhere else instead of
failing. Here it is an error of one line. Numbers may be Python's, NumPy's or PyTorch's.

Neurons to change are a set: naming one twice is an error, since some changes would then be made twice and others once.
Neurons to read are a list, which may repeat.
"""

from collections.abc import Iterable, Sequence
from operator import index
from typing import Any

from torch import Tensor

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
    given: Iterable[Iterable[Iterable[int] | Prompt]], prompts: Sequence[Prompt], adapter: Adapter, aligned: bool
) -> list[list[Prompt]]:
    """Each prompt's baselines: sentences, which are read where the prompt is, or other prompts. With `aligned`, these
    must be as long as the prompt, too.
    """
    checked = [list(sentences) for sentences in given]
    if len(checked) != len(prompts):
        raise InputError(f"{len(checked)} lists of baselines for {len(prompts)} prompts: expected one per prompt")
    return [
        _baselines(sentences, prompt, number, adapter, aligned)
        for number, (sentences, prompt) in enumerate(zip(checked, prompts, strict=True))
    ]


def _baselines(
    sentences: list[Iterable[int] | Prompt], prompt: Prompt, number: int, adapter: Adapter, aligned: bool
) -> list[Prompt]:
    checked, lengths = [], set()
    for position, sentence in enumerate(sentences):
        where = f"prompt {number}: baseline {position}"
        if isinstance(sentence, Prompt):
            checked.append(_prompt(sentence, where, adapter))
            if len(checked[-1].positions) != len(prompt.positions):
                expected = f"{where}: expected {len(prompt.positions)} positions, as the prompt has"
                raise InputError(f"{expected}, found {len(checked[-1].positions)}")
        else:
            checked.append(prompt._replace(ids=tokens(sentence, adapter, where)))
        if aligned or not isinstance(sentence, Prompt):
            lengths.add(len(checked[-1].ids))
    if not checked or lengths - {len(prompt.ids)}:
        expected = f"expected baselines of its {len(prompt.ids)} tokens"
        raise InputError(f"prompt {number}: {expected}, found lengths {sorted(lengths)}")
    return checked


def activations(given: Tensor, adapter: Adapter) -> Tensor:
    """Activations of all neurons."""
    size = [adapter.n_layers, adapter.d_ffn]
    if list(given.shape) != size:
        raise InputError(f"expected activations of {size[0]} layers x {size[1]} neurons, found {list(given.shape)}")
    return given


def others(
    given: Iterable[Iterable[int]] | None, prompts: Sequence[Prompt], adapter: Adapter, needed: bool
) -> list[list[int]] | None:
    """The pieces of each prompt's other answer, if a difference of two answers needs them."""
    if not needed:
        if given is not None:
            raise InputError("other answers were given, which only the difference of two answers needs")
        return None
    checked = [tokens(pieces, adapter, f"prompt {n}: other answer") for n, pieces in enumerate(given or ())]
    if len(checked) != len(prompts):
        raise InputError(f"{len(checked)} other answers for {len(prompts)} prompts: expected one per prompt")
    for number, (pieces, prompt) in enumerate(zip(checked, prompts, strict=True)):
        if len(pieces) != len(prompt.answers):
            expected = f"prompt {number}: expected another answer of {len(prompt.answers)} pieces"
            raise InputError(f"{expected}, found {len(pieces)}")
    return checked


def positions(given: Iterable[Iterable[int]], prompts: Sequence[Prompt]) -> list[list[int]]:
    """The positions of each prompt whose neurons are attributed."""
    listed = [_listed(some, f"prompt {number}: expected positions") for number, some in enumerate(given)]
    if len(listed) != len(prompts):
        raise InputError(f"positions for {len(listed)} of {len(prompts)} prompts: expected some for each")
    checked = []
    for number, (some, prompt) in enumerate(zip(listed, prompts, strict=True)):
        checked.append([_number(position, len(prompt.ids)) for position in some])
        if not some or NONE in checked[-1]:
            expected = f"prompt {number}: expected positions from 0 to {len(prompt.ids) - 1}, one at least"
            raise InputError(f"{expected}, found {some}")
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
