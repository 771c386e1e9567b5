"""Language-specific neurons: a file of tensors, `list[language][layer] -> LongTensor` of neurons.

The only module of this room that needs torch, and only when a function is called.
"""

from pathlib import Path

from kn.neurons.sets import NeuronSet
from kn.store.files import InputError, writing

EXPECTED = "expected a list of languages, each a list of layers, each a tensor of whole numbers"


def read(path: Path) -> list[NeuronSet]:
    """The neurons of each language. Only tensors are loaded: a pickled program would not be run."""
    import torch

    try:
        value = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise InputError(f"{path}: can't be read ({error.strerror})") from None
    except Exception as error:  # a damaged file can raise any kind
        reason = str(error).split("\n")[0][:120]
        raise InputError(f"{path}: not a file of tensors ({type(error).__name__}: {reason})") from None
    if not isinstance(value, list | tuple) or not value:
        raise InputError(f"{path}: {EXPECTED}, found {type(value).__name__}")
    return [_language(layers, f"{path}, language {number}") for number, layers in enumerate(value)]


def _language(layers: object, place: str) -> NeuronSet:
    import torch

    if not isinstance(layers, list | tuple):
        raise InputError(f"{place}: {EXPECTED}, found {type(layers).__name__}")
    neurons: list[tuple[int, int]] = []
    for layer, tensor in enumerate(layers):
        if not isinstance(tensor, torch.Tensor) or (tensor.numel() and tensor.is_floating_point()):
            raise InputError(f"{place}, layer {layer}: {EXPECTED}, found {str(tensor)[:80]}")
        members = tensor.flatten().tolist()
        if len({*members}) < len(members) or min(members, default=0) < 0:
            raise InputError(f"{place}, layer {layer}: expected different numbers from 0 up, found {str(members)[:80]}")
        neurons += [(layer, index) for index in members]
    return NeuronSet(neurons)


def write(path: Path, languages: list[NeuronSet], n_layers: int) -> None:
    import torch

    value = [
        [torch.tensor(sorted(index for at, index in neurons if at == layer)).long() for layer in range(n_layers)]
        for neurons in languages
    ]
    with writing(path, "wb") as file:
        torch.save(value, file)
