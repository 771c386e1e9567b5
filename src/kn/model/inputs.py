"""What is asked of a model, checked against it: prompts, baseline sentences, neurons, layers.

Python counts -1 from the end, and PyTorch follows, so a wrong number is often read somewhere else instead of failing.
Here it ends in one line. Numbers may be Python's, NumPy's or PyTorch's.
"""

from collections.abc import Iterable, Sequence
from operator import index

from kn.model.adapters import Adapter
from kn.store.files import InputError

Prompt = tuple[list[int], int | Sequence[int], int | Sequence[int]]
Pieces = tuple[list[int], list[int], list[int]]  # a prompt with lists of positions and answers


def prompts(asked: Iterable[Prompt], adapter: Adapter) -> list[Pieces]:
    if adapter.words.training:
        raise InputError("the model is in training mode, where dropout makes its numbers random: call model.eval()")
    return [_prompt(prompt, f"prompt {number}", adapter) for number, prompt in enumerate(asked)]


def _prompt(prompt: Prompt, place: str, adapter: Adapter) -> Pieces:
    try:
        ids, given, answers = prompt
    except (TypeError, ValueError):
        raise InputError(f"{place}: expected (token ids, positions, answers), found {str(prompt)[:80]}") from None
    ids, answers = tokens(ids, adapter, place), tokens(answers, adapter, f"{place}: answer")
    if not 0 < len(ids) <= adapter.longest:
        raise InputError(f"{place}: has {len(ids)} tokens, the model reads 1 to {adapter.longest}")
    positions = [_number(position, len(ids)) for position in _several(given)]
    if None in positions:
        raise InputError(f"{place}: expected positions from 0 to {len(ids) - 1}, found {given}")
    if len(positions) != len(answers) or not answers:
        raise InputError(f"{place}: expected a position for each piece of the answer, found {given} for {answers}")
    return ids, positions, answers


def baselines(asked: Iterable[Iterable[Iterable[int]]], of_prompts: Sequence[Prompt], adapter: Adapter) -> list:
    """The token ids of each prompt's baseline sentences."""
    found = [
        [tokens(ids, adapter, f"prompt {number}: baseline {place}") for place, ids in enumerate(sentences)]
        for number, sentences in enumerate(asked)
    ]
    if len(found) != len(of_prompts):
        raise InputError(f"{len(found)} lists of baselines for {len(of_prompts)} prompts: expected one for each prompt")
    for number, (sentences, (ids, *_)) in enumerate(zip(found, of_prompts, strict=True)):
        lengths = sorted({len(sentence) for sentence in sentences})
        if lengths != [len(ids)]:
            raise InputError(f"prompt {number}: expected baselines of its {len(ids)} tokens, found lengths {lengths}")
    return found


def tokens(asked: int | Iterable[int], adapter: Adapter, place: str) -> list[int]:
    known, asked = adapter.words.num_embeddings, _several(asked)
    found = [_number(token, known) for token in asked]
    if None in found:
        wrong = asked[found.index(None)]
        raise InputError(f"{place}: expected token ids from 0 to {known - 1}, found {str(wrong)[:80]}")
    return found


def neurons(asked: Iterable[Sequence[int]], adapter: Adapter) -> list[list[int]]:
    found = []
    for neuron in asked:
        try:
            layer, number = neuron
        except (TypeError, ValueError):
            raise InputError(f"expected a neuron [layer, number], found {str(neuron)[:80]}") from None
        found.append([_number(layer, adapter.n_layers), _number(number, adapter.d_ffn)])
        if None in found[-1]:
            of_model = f"{adapter.n_layers} layers of {adapter.d_ffn} neurons, both counted from 0"
            raise InputError(f"there is no neuron [{layer}, {number}]: the model has {of_model}")
    return found


def layers(asked: Iterable[int] | None, adapter: Adapter) -> list[bool]:
    """Of each layer whether it is asked for; None: all are."""
    asked = list(range(adapter.n_layers) if asked is None else asked)
    wanted = [_number(layer, adapter.n_layers) for layer in asked]
    if None in wanted:
        raise InputError(f"layer {asked[wanted.index(None)]}: expected layers from 0 to {adapter.n_layers - 1}")
    return [layer in wanted for layer in range(adapter.n_layers)]


def _several(value) -> list:
    """A number alone is a list of one."""
    is_one = isinstance(value, str) or not hasattr(value, "__len__") or getattr(value, "ndim", 1) == 0
    return [value] if is_one else list(value)


def _number(value, end: int) -> int | None:
    """The number, if it is a whole one from 0 up to before `end`."""
    try:
        number = index(value)
    except TypeError:
        return None
    return number if 0 <= number < end and not isinstance(value, bool) else None
