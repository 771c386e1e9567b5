"""Collected neurons written in a layout that other programs read. Imports torch only for `lape`."""

from collections.abc import Callable
from pathlib import Path

from kn.exchange import form, keyed, pth
from kn.exchange.collecting import Collected, neurons_of
from kn.neurons.sets import NeuronSet
from kn.store import result_files
from kn.store.files import make_folder, write_json
from kn.store.result_files import KNOWLEDGE

KN, DAI, LAPE = "kn", "dai", "lape"
LAYOUTS = (KN, DAI, keyed.ELEUTHER, keyed.TRANSFORMER_LENS, keyed.NNSIGHT, LAPE)
NEURONS, FACTS, NAMES = "neurons.json", "facts.json", "names.json"
TENSORS = "neurons.pth"


def export(collected: Collected, layout: str, folder: Path, projection: str | None = None) -> None:
    """Write the files of a layout, then the card. `projection`, for nnsight: see `keyed.nnsight_path`."""
    make_folder(folder)
    (folder / form.CARD).unlink(missing_ok=True)  # it would describe files that are being replaced
    paths = _write(collected, layout, folder, projection)
    form.write_card(folder, {**collected.card, "layout": layout}, paths)


def _write(collected: Collected, layout: str, folder: Path, projection: str | None) -> list[Path]:
    if layout == KN:
        return form.write(folder, collected.arms)
    if layout == DAI:
        return _write_bags(collected, folder)
    if layout == LAPE:
        relations = collected.by_relation()
        union = [NeuronSet(dict.fromkeys(neuron for fact in facts for neuron in fact)) for facts in relations.values()]
        pth.write(folder / TENSORS, union, collected.n_layers)
        write_json(folder / NAMES, list(relations))
        return [folder / TENSORS, folder / NAMES]
    neurons = {line["id"]: neurons_of(line) for line in collected.arms[KNOWLEDGE]}
    content: object = neurons
    if layout != keyed.ELEUTHER:
        name: Callable[[int], str] = keyed.nnsight_path(projection) if projection else keyed.hook_name
        content = {id: keyed.by_name(members, name) for id, members in neurons.items()}
    write_json(folder / NEURONS, content, indent=None)
    described = {
        fact.id: {"sentences": fact.prompts, "relation_name": fact.label, "obj_label": fact.object}
        for fact in collected.facts.values()
    }
    write_json(folder / FACTS, described, indent=None)
    return [folder / NEURONS, folder / FACTS]


def _write_bags(collected: Collected, folder: Path) -> list[Path]:
    paths = []
    for arm, lines in collected.arms.items():
        bags: dict[str, list[NeuronSet]] = {}
        for line in lines:
            bags.setdefault(line["relation"], []).append(neurons_of(line))
        for relation, facts in bags.items():
            paths.append(result_files.neurons(folder, relation, arm))
            write_json(paths[-1], facts)
    return paths
