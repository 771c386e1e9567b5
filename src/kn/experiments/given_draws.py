"""Draws that were made elsewhere, from the files of `--draws`: read, and checked against the facts and the model.

Stages 3, 4 and 6 take them in place of chance, each in the layout in which the published program's draws are kept.
"""

from kn.data.crawled import KINDS
from kn.data.facts import MASK
from kn.experiments.draws import FactId
from kn.experiments.updates import Edit, with_answer
from kn.neurons.sets import NEURON, NeuronSet, checked_set
from kn.stage.setup import World
from kn.store.files import InputError, read_json
from kn.store.shapes import Shape, check, each, either, having, row, short, table, text, whole

Kinds = list[list[str]]  # the th, h and rd sentences of a fact, masked

FACT = row(text, whole)
FED = row(*[each(text, "sentence")] * len(KINDS))
RESULT_KEYS = ("prompt_idx", "inner_bags", "inter_bags", "neurons")
RESULT_SHAPES = (whole, each(whole, least=1), each(FACT, least=1), each(NEURON, "neuron", least=1))
EDIT = row(text, whole, text, either(text, having(dict(zip(RESULT_KEYS, RESULT_SHAPES, strict=True)))))


def read_unrelated(path: str, names: dict[str, str], world: World) -> dict[str, list]:
    """Stage 3: by name an unrelated fact `[relation, fact]` for each fact of the name's relation."""
    found = _by_name(path, names, each(FACT, "fact"), world)
    for name, drawn in found.items():
        for number, place in enumerate(drawn[: len(world.bags[names[name]])]):
            _check_fact(place, world, f"{path}, {name}, fact {number}", unrelated_to=names[name])
        found[name] = [FactId(*fact) for fact in drawn]
    return found


def read_sentences(path: str, names: dict[str, str], world: World) -> dict[str, list]:
    """Stage 4: by name the masked sentences [th, h, rd] of each fact, or why nothing is measured of it."""
    found = _by_name(path, names, each(either(text, FED), "fact"), world)
    for name, relation in names.items():
        if relation in world.relations and name not in found:
            raise InputError(f"{path}: has nothing for {name}")
    for name, of_facts in found.items():
        for number, entry in enumerate(of_facts):
            for kind, sentences in zip(KINDS, [] if isinstance(entry, str) else entry, strict=False):
                for sentence in sentences:
                    if sentence.count(MASK) != 1:
                        place = f"{path}, {name}, fact {number}, {kind}"
                        raise InputError(f"{place}: expected one {MASK} in each sentence, found {short(sentence)}")
    return found


def unmeasured(sentences: Kinds, neurons: NeuronSet) -> str | None:
    """Why a fact with these sentences and neurons can't be measured, in the published words."""
    if not all(sentences):
        return "no_exmp"
    return None if neurons else "no_kn"


def merge(given: list[Kinds | str], own: list[Kinds], neurons: list[NeuronSet], where: str) -> list[Kinds]:
    """Stage 4: the sentences of a file, which may have `no_exmp` or `no_kn` for facts of which that is true."""
    merged = []
    for number, (entry, own_sentences, bag) in enumerate(zip(given, own, neurons, strict=False)):
        if not isinstance(entry, str):
            merged.append(entry)
        elif entry == unmeasured(own_sentences, bag):
            merged.append(own_sentences)
        else:
            raise InputError(f"{where}, fact {number}: expected [th, h, rd] sentences, found {short(entry)}")
    return merged


def read_edits(path: str, world: World) -> dict[str, list[Edit]]:
    """Stage 6: by relation the edits `[relation, fact, target, result]`; those not made have a text for a result."""
    found = read_json(path)
    check(found, each(EDIT), path)
    drawn: dict[str, list[Edit]] = {relation: [] for relation in world.relations}
    for number, (relation, fact, target, result) in enumerate(found):
        place = f"{path}, entry {number}"
        _check_fact([relation, fact], world, place)
        if isinstance(result, str) or relation not in drawn:
            continue
        prompt, inner, inter, neurons = (result[key] for key in RESULT_KEYS)
        neurons = checked_set(neurons, f"{place}, neurons")
        inter = [FactId(*other) for other in inter]
        edit = Edit(relation, fact, target, prompt, inner, inter, neurons)
        _check_edit(edit, world, place)
        drawn[relation].append(edit)
    if not any(drawn.values()):
        raise InputError(f"{path}: has no edit of {' '.join(world.relations)}")
    return drawn


def _by_name(path: str, names: dict[str, str], shape: Shape, world: World) -> dict[str, list]:
    """A list with an entry for each fact, by name; `names` are all that there may be, each with its relation.

    Those of the relations that are worked on are returned.
    """
    found = read_json(path)
    check(found, table(shape), path)
    for name in found:
        if name not in names:
            raise InputError(f"{path}: {short(name)}: expected one of {' '.join(names)}")
    wanted = {name: found[name] for name in names if name in found and names[name] in world.relations}
    for relation in world.relations:
        possible = [name for name in names if names[name] == relation]
        if not any(name in wanted for name in possible):
            raise InputError(f"{path}: has nothing for {relation}: expected {' or '.join(possible)}")
    for name, entries in wanted.items():
        count = len(world.bags[names[name]])
        # With --debug the draws may be those of all facts.
        if len(entries) < count or (len(entries) > count and world.settings["debug"] < 0):
            raise InputError(f"{path}, {name}: has {len(entries)} entries, the data have {count} facts")
    return wanted


def _check_fact(fact: list, world: World, place: str, unrelated_to: str | None = None) -> None:
    relation, number = fact
    if relation not in world.bags:
        raise InputError(f"{place}: there is no relation {short(relation)}; there are {' '.join(world.bags)}")
    count = len(world.bags[relation])
    if number >= count:
        cut = " with this --debug" if world.settings["debug"] >= 0 else ""
        raise InputError(f"{place}: there is no fact {number} of {relation}, which has {count}{cut}")
    if relation == unrelated_to:
        raise InputError(f"{place}: {short(fact)} is of the same relation: expected an unrelated fact")


def _check_edit(edit: Edit, world: World, place: str) -> None:
    for other in edit.inner:
        _check_fact([edit.relation, other], world, f"{place}, inner_bags")
        if other == edit.fact:
            raise InputError(f"{place}, inner_bags: {other} is the fact that is edited: expected others")
    for other in edit.inter:
        _check_fact(other, world, f"{place}, inter_bags", unrelated_to=edit.relation)
    for fact in [[edit.relation, edit.fact], *([edit.relation, other] for other in edit.inner), *edit.inter]:
        if not world.prompts(*fact):
            raise InputError(f"{place}: the fact {short(fact)} can't be scored")
    count = len(world.prompts(edit.relation, edit.fact))
    if edit.prompt >= count:
        raise InputError(f"{place}: there is no prompt {edit.prompt} of the fact, of which {count} can be scored")
    world.check_neurons(edit.neurons, f"{place}, neurons")
    if edit.target == world.bags[edit.relation][edit.fact][0][1]:
        raise InputError(f"{place}: the target {short(edit.target)} is the fact's own answer: expected another")
    if skipped := with_answer(edit.relation, edit.fact, edit.prompt, edit.target, world).skipped:
        raise InputError(f"{place}: the target {short(edit.target)}: {skipped}")
