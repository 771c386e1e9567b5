"""The layouts in which a JSON object has the neurons of each fact under the fact's id. Never imports torch.

eleuther           {id: [[3, 12], [3, 55]]}
transformer_lens   {id: {"blocks.3.mlp.hook_post": [12, 55]}}
nnsight            {id: {"model.model.layers[3].mlp.down_proj.input": [12, 55]}}
"""

import re
from collections.abc import Callable, Iterable
from pathlib import Path

from kn.neurons.sets import NEURON, NeuronSet, checked_set
from kn.store.files import InputError, read_json
from kn.store.shapes import check, each, short, table, whole

ELEUTHER, TRANSFORMER_LENS, NNSIGHT = "eleuther", "transformer_lens", "nnsight"
LISTS = table(each(NEURON, "neuron"))
BY_NAME = table(table(each(whole, "neuron")))
NAMES = {  # of the values whose elements are a layer's neurons
    TRANSFORMER_LENS: re.compile(r"blocks\.(?P<layer>\d{1,4})\.mlp\.hook_post"),
    NNSIGHT: re.compile(r"model\.(?P<body>[\w.]+)\[(?P<layer>\d{1,4})\]\.(?P<module>[\w.]+)\.input"),
}
EXAMPLES = {TRANSFORMER_LENS: "blocks.3.mlp.hook_post", NNSIGHT: "model.model.layers[3].mlp.down_proj.input"}


def hook_name(layer: int) -> str:
    """TransformerLens's name of a layer's neurons."""
    return f"blocks.{layer}.mlp.hook_post"


def nnsight_path(projection: str) -> Callable[[int], str]:
    """The path of a layer's neurons, from the name of the module that reads them: `model.layers.{}.mlp.down_proj`."""
    body, _, module = projection.partition(".{}.")
    return lambda layer: f"model.{body}[{layer}].{module}.input"


def by_name(neurons: Iterable[tuple[int, int]], name: Callable[[int], str]) -> dict[str, list[int]]:
    """Neurons as lists under the names of their layers."""
    named: dict[str, list[int]] = {}
    for layer, index in sorted(neurons):
        named.setdefault(name(layer), []).append(index)
    return named


def read(path: Path, layout: str) -> dict[str, NeuronSet]:
    """The neurons of each fact, by id."""
    content = read_json(path)
    if layout == ELEUTHER:
        check(content, LISTS, path)
        return {id: checked_set(neurons, f"{path}, {short(id)}") for id, neurons in content.items()}
    check(content, BY_NAME, path)
    modules: set[str] = set()
    neurons = {}
    for id, named in content.items():
        members = []
        for name, indices in named.items():
            match = NAMES[layout].fullmatch(name)
            if not match:
                raise InputError(f"{path}, {short(id)}: expected names like {EXAMPLES[layout]}, found {short(name)}")
            modules.add(re.sub(r"\[\d+\]", "[…]", name))
            members += [[int(match["layer"]), index] for index in indices]
        neurons[id] = checked_set(members, f"{path}, {short(id)}")
    if layout == NNSIGHT and len(modules) > 1:
        raise InputError(f"{path}: names neurons of different kinds: {' and '.join(sorted(modules)[:2])}")
    return neurons
