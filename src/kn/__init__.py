"""The map of the library. A room may import from the rooms above it and from itself, never from below.

    text          what a word is, in scripts with and without spaces
    store         bytes that survive: files, records, results and their units, processes       no torch
    stats         numbers about numbers: intervals, ROC curves, perplexity                     no torch
    data          the formats of facts: PARAREL, mLAMA, crawled sentences; fetching them       no torch
    neurons       sets of neurons: refining, comparing, choosing, drawing at random            no torch
    exchange      neurons out and in: the documented form, other programs' layouts             no torch
    report        reading results back, published numbers, tables, pages, figures              no torch
    model         one transformer as layers of neurons: loading, adapters, prompts, batches
    methods       what is asked of neurons: attribution, interventions, edits
    stage         what surrounds every experiment: the command line, the facts and the model, the runner
    experiments   what single stages measure, where a script alone would be too long
    api           what users call from Python: the names below
    easyedit      the same as an editing method of EasyEdit
    commands      the command line `kn`                                                        no torch
    __main__      the same as `python -m kn`                                                   no torch

`tests/test_rooms.py` holds the code to this map. Each name below is imported when it is first used: importing `kn`
imports nothing. docs/python.md explains them with examples.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kn.api.asking import Attribution, Found, Reading, ask, attribute, effects, find  # noqa: F401
    from kn.api.changing import edit, scale, suppress  # noqa: F401
    from kn.api.models import Model, load  # noqa: F401
    from kn.api.results import Results, results  # noqa: F401
    from kn.neurons.sets import Neuron  # noqa: F401
    from kn.store.files import InputError  # noqa: F401

_HOMES = {
    "kn.api.models": ("Model", "load"),
    "kn.api.asking": ("Attribution", "Found", "Reading", "ask", "attribute", "effects", "find"),
    "kn.api.changing": ("edit", "scale", "suppress"),
    "kn.api.results": ("Results", "results"),
    "kn.neurons.sets": ("Neuron",),
    "kn.store.files": ("InputError",),
}
_HOME = {name: home for home, names in _HOMES.items() for name in names}
__all__ = sorted(_HOME)


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module 'kn' has no attribute {name!r}")
    value = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})
