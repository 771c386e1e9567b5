"""Neurons one by one: what a fact's answer loses without each of its neurons, and what each neuron writes."""

from itertools import groupby
from pathlib import Path

import numpy as np

from kn.neurons import sets
from kn.neurons.sets import Neuron, NeuronSet
from kn.stage.runner import Task, Unit, run
from kn.stage.setup import World
from kn.store import result_files, runs
from kn.store.result_shapes import NeuronWords, SingleNeurons

WORDS = 10  # at each end
FACTS = 64  # in a unit: what a killed run loses at most
NEURONS = 64  # each needs a number for every word of the vocabulary


def make(kn_dir: Path, neurons: dict[str, list[NeuronSet]], world: World) -> None:
    """Make the results that are missing. `neurons` has those of each fact, by relation."""
    effects = (effects_task(kn_dir, relation, neurons[relation], world) for relation in world.relations)
    words = (words_task(kn_dir, relation, neurons[relation], world) for relation in world.relations)
    for _ in run(world, result_files.single_neurons_record(kn_dir), effects):
        pass
    for _ in run(world, result_files.words_record(kn_dir), words):
        pass


def effects_task(kn_dir: Path, relation: str, neurons: list[NeuronSet], world: World) -> Task:
    """One line per fact."""
    return Task(
        relation,
        result_files.single_neurons(kn_dir, relation),
        len(neurons),
        depends={"data": runs.digest(world.bags[relation]), "neurons": runs.digest(neurons)},
        measure=lambda unit: measure_effects(unit, relation, neurons, world),
        unit=FACTS,
    )


def measure_effects(unit: Unit, relation: str, neurons: list[NeuronSet], world: World) -> tuple[list[dict], dict]:
    facts = [(fact, prompt) for fact in unit if neurons[fact] for prompt in world.prompts(relation, fact)]
    alone = world.probe.alone([prompt for _, prompt in facts], [neurons[fact] for fact, _ in facts])
    lines = {
        fact: SingleNeurons(fact=fact, neurons=neurons[fact], probability=None, without=[], activations=[])
        for fact in unit
    }
    for fact, prompts in groupby(zip(facts, alone, strict=True), key=lambda measured: measured[0][0]):
        probabilities, activations = zip(*(read for _, read in prompts), strict=True)
        lines[fact]["probability"], *lines[fact]["without"] = np.mean(probabilities, 0).tolist()
        lines[fact]["activations"] = np.mean(activations, 0).tolist()
    return [dict(line) for line in lines.values()], {"prompts": len(facts)}


def words_task(kn_dir: Path, relation: str, neurons: list[NeuronSet], world: World) -> Task:
    """One line per neuron that any of the relation's facts has, by layer."""
    in_use = sets.in_use(neurons)
    return Task(
        relation,
        result_files.words(kn_dir, relation),
        len(in_use),
        depends={"neurons": runs.digest(neurons)},
        measure=lambda unit: (find_words([in_use[number] for number in unit], world), {}),
        unit=NEURONS,
        counts="neuron",
    )


def find_words(neurons: list[Neuron], world: World) -> list[dict]:
    from kn.methods.vocabulary import words_written

    found = words_written(world.adapter, [list(neuron) for neuron in neurons], [1.0] * len(neurons), WORDS)
    lines: list[dict] = []
    for neuron, ends in zip(neurons, found, strict=True):
        nearest, farthest = ([world.encoder.text((token,)) for token in tokens] for tokens in ends)
        lines.append(dict(NeuronWords(neuron=list(neuron), nearest=nearest, farthest=farthest)))
    return lines
