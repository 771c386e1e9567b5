"""Draws given in a file with `--draws`: read, and checked against the facts and the model.

Stages 3, 4 and 6 use them instead of drawing at random. Each has the file format of the published program's draws.
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
SENTENCES = row(*[each(text, "sentence")] * len(KINDS))
RESULT_KEYS = ("prompt_idx", "inner_bags", "inter_bags", "neurons")
RESULT_SHAPES = (whole, each(whole, least=1), each(FACT, least=1), each(NEURON, "neuron", least=1))
EDIT = row(text, whole, text, either(text, having(dict(zip(RESULT_KEYS, RESULT_SHAPES, strict=True)))))


def read_unrelated(path: str, names: dict[str, str], world: World) -> dict[str, list[FactId]]:
    """For stage 3: by name, an unrelated fact for each fact of the name's relation."""
    drawn = {}
    for name, entries in _by_name(path, names, each(FACT, "fact"), world).items():
        drawn[name] = [FactId(*entry) for entry in entries]
        for number, fact in enumerate(drawn[name][: len(world.bags[names[name]])]):
            _check_fact(fact, world, f"{path}, {name}, fact {number}", unrelated_to=names[name])
    return drawn


def read_sentences(path: str, names: dict[str, str], world: World) -> dict[str, list[str | list[list[str]]]]:
    """For stage 4: by name, the masked sentences [th, h, rd] of each fact, or why the fact has no measurement."""
    drawn = _by_name(path, names, each(either(text, SENTENCES), "fact"), world)
    for name, relation in names.items():
        if relation in world.relations and name not in drawn:
            raise InputError(f"{path}: has nothing for {name}")
    for name, entries in drawn.items():
        for number, entry in enumerate(entries):
            if isinstance(entry, str):
                continue
            for kind, sentences in zip(KINDS, entry, strict=True):
                for sentence in sentences:
                    if sentence.count(MASK) != 1:
                        place = f"{path}, {name}, fact {number}, {kind}"
                        raise InputError(f"{place}: expected one {MASK} in each sentence, found {short(sentence)}")
    return drawn


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
    """For stage 6: by relation, the edits `[relation, fact, target, result]`, where a text as result means none."""
    entries = read_json(path)
    check(entries, each(EDIT), path)
    drawn: dict[str, list[Edit]] = {relation: [] for relation in world.relations}
    for number, (relation, fact, target, result) in enumerate(entries):
        place = f"{path}, entry {number}"
        _check_fact(FactId(relation, fact), world, place)
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
    """By name, a list with one entry per fact, for the relations of this run.

    `names` are all possible names, each with its relation.
    """
    entries_by_name = read_json(path)
    check(entries_by_name, table(shape), path)
    for name in entries_by_name:
        if name not in names:
            raise InputError(f"{path}: {short(name)}: expected one of {' '.join(names)}")
    wanted = {
        name: entries_by_name[name]
        for name, relation in names.items()
        if name in entries_by_name and relation in world.relations
    }
    for relation in world.relations:
        possible = [name for name in names if names[name] == relation]
        if not any(name in wanted for name in possible):
            raise InputError(f"{path}: has nothing for {relation}: expected {' or '.join(possible)}")
    for name, entries in wanted.items():
        count = len(world.bags[names[name]])
        # With --debug, the file may still have draws for all facts.
        if len(entries) < count or (len(entries) > count and world.settings["debug"] < 0):
            raise InputError(f"{path}, {name}: has {len(entries)} entries, the data have {count} facts")
    return wanted


def _check_fact(fact: FactId, world: World, place: str, unrelated_to: str | None = None) -> None:
    relation, number = fact
    if relation not in world.bags:
        raise InputError(f"{place}: there is no relation {short(relation)}; there are {' '.join(world.bags)}")
    count = len(world.bags[relation])
    if number >= count:
        cut = " with this --debug" if world.settings["debug"] >= 0 else ""
        raise InputError(f"{place}: there is no fact {number} of {relation}, which has {count}{cut}")
    if relation == unrelated_to:
        raise InputError(f"{place}: {short(fact)} belongs to the same relation: expected an unrelated fact")


def _check_edit(edit: Edit, world: World, place: str) -> None:
    for fact in edit.inner:
        _check_fact(FactId(edit.relation, fact), world, f"{place}, inner_bags")
        if fact == edit.fact:
            raise InputError(f"{place}, inner_bags: {fact} is the edited fact itself: expected others")
    for other in edit.inter:
        _check_fact(other, world, f"{place}, inter_bags", unrelated_to=edit.relation)
    same_relation = [FactId(edit.relation, fact) for fact in (edit.fact, *edit.inner)]
    for fact_id in (*same_relation, *edit.inter):
        if not world.prompts(*fact_id):
            raise InputError(f"{place}: the fact {short(fact_id)} can't be scored")
    count = len(world.prompts(edit.relation, edit.fact))
    if edit.prompt >= count:
        raise InputError(f"{place}: there is no prompt {edit.prompt}: {count} prompts of the fact can be scored")
    world.check_neurons(edit.neurons, f"{place}, neurons")
    if edit.target == world.bags[edit.relation][edit.fact][0][1]:
        raise InputError(f"{place}: the target {short(edit.target)} is the fact's own answer: expected another")
    if skipped := with_answer(edit.relation, edit.fact, edit.prompt, edit.target, world).skipped:
        raise InputError(f"{place}: the target {short(edit.target)}: {skipped}")
