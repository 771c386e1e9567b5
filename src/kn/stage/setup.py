"""What a stage starts from: facts, a model and neurons, read and checked against each other.

Never imports torch before the command line and the data have been checked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from kn.data import facts
from kn.neurons import selection, sets
from kn.neurons.sets import NeuronSet
from kn.stage.flags import DataArgs, ModelArgs
from kn.store import origins, result_files, runs
from kn.store.files import InputError
from kn.store.result_files import BASELINE, KNOWLEDGE, RANDOM
from kn.store.workers import note

if TYPE_CHECKING:
    import torch
    from torch import nn

    from kn.methods.locator import Locator
    from kn.methods.presets import Preset
    from kn.methods.probing import Probe
    from kn.model.adapters import Adapter
    from kn.model.prompts import Encoded, Encoder, Prompt


@dataclass
class Model:
    """A model and what belongs to it."""

    model: nn.Module
    adapter: Adapter
    encoder: Encoder
    device: torch.device
    max_tokens: int | None
    settings: dict  # those that every result depends on


@dataclass
class World:
    """The facts that a stage works on, and the model."""

    bags: facts.Bags  # of all relations, cut to --debug
    relations: list[str]  # those to work on
    opened: Model

    @property
    def adapter(self) -> Adapter:
        return self.opened.adapter

    @property
    def encoder(self) -> Encoder:
        return self.opened.encoder

    @property
    def device(self) -> torch.device:
        return self.opened.device

    @property
    def settings(self) -> dict:
        return self.opened.settings

    @cached_property
    def probe(self) -> Probe:
        from kn.methods.probing import Probe

        return Probe(self.adapter, self.opened.max_tokens)

    def locator(self, preset: Preset) -> Locator:
        from kn.methods.locator import Locator

        return Locator(preset, self.adapter, self.encoder, self.opened.max_tokens)

    @property
    def lanes(self) -> int:
        """How many units to work on at a time. On a GPU, some are read and written while another is computed."""
        return 3 if self.device.type == "cuda" else 1

    def facts(self, relation: str) -> range:
        return range(len(self.bags[relation]))

    def encoded(self, relation: str, fact: int, answer: str | None = None) -> list[Encoded]:
        """The fact's prompts, with its own answer or another."""
        bag = [[text, answer or own_answer, name] for text, own_answer, name in self.bags[relation][fact]]
        (encoded,) = self.encoder.facts([bag])
        return encoded

    def prompts(self, relation: str, fact: int) -> list[Prompt]:
        """The fact's prompts that can be scored."""
        return [encoded.prompt for encoded in self.encoded(relation, fact) if not encoded.skipped]

    def check_neurons(self, neurons: Iterable[Sequence[int]], where: str) -> None:
        """The model must have these neurons; `where` says which file names them."""
        n_layers, d_ffn = self.adapter.n_layers, self.adapter.d_ffn
        for layer, index in neurons:
            if layer >= n_layers or index >= d_ffn:
                size = f"the model has {n_layers} layers of {d_ffn} neurons; this file may belong to another model"
                raise InputError(f"{where}: there is no neuron [{layer}, {index}], {size}")


def open_world(
    model: ModelArgs, data: DataArgs, look_for: Callable[[list[str]], object] = lambda relations: None
) -> World:
    """`look_for` is called with the relations before the model is loaded, to report missing input at once."""
    bags = facts.read_bags(data.data_path, data.tmp_data_path)
    relations = facts.choose_relations(bags, data.pt_relation)
    look_for(relations)
    if data.debug >= 0:
        bags = {name: relation_bags[: data.debug] for name, relation_bags in bags.items()}
    return World(bags, relations, open_model(model, data.debug))


def open_model(args: ModelArgs, debug: int) -> Model:
    # Imported here because it takes seconds: mistakes in the command line and the data have been reported before.
    from kn.model import agreement, devices, linear, loading, tokenizers
    from kn.model.batches import MAX_TOKENS
    from kn.model.prompts import Encoder

    device = devices.choose("cpu" if args.no_cuda else args.device, args.gpus or ())
    tokenizer, model = loading.load(args.bert_model, args.revision, args.dtype, device, args.do_lower_case)
    names = ("bert_model", "revision", "do_lower_case", "max_seq_length")
    settings = {name: getattr(args, name) for name in names} | {
        "debug": debug,
        "dtype": args.dtype,
        "weights": loading.fingerprint(model),
        "tokenizer": tokenizers.fingerprint(tokenizer),
        # The last digits depend on these. Recorded as requested, although a lack of memory may lower what is used.
        "device": device.type,
        "max_tokens": args.max_tokens or MAX_TOKENS[device.type],
    }
    adapter = loading.adapt(model)
    if not linear.fits(model):
        size = f"{linear.COPIES} times its weights, more than {linear.SHARE:.0%} of this machine's memory"
        note(f"model {args.bert_model}: ran slower, because laid out for fast products it would take {size}")
    adapter.spell = tokenizer.decode
    longest = min(args.max_seq_length, adapter.longest)
    agreement.check(model, adapter, args.bert_model, longest)
    return Model(model, adapter, Encoder(tokenizer, longest, adapter.causal), device, args.max_tokens, settings)


def neuron_files(kn_dir: str | Path, arm: str, relations: Iterable[str]) -> dict[str, Path]:
    """The files with the neurons of these relations. All must exist."""
    present = result_files.relations_with_neurons(kn_dir, arm)
    paths = {relation: result_files.neurons(kn_dir, relation, arm) for relation in relations}
    for relation, path in paths.items():
        if relation not in present:
            raise InputError(f"{path}: no such file: run stages 1 and 2 for {relation} first")
    return paths


def read_neurons(kn_dir: str | Path, arm: str, world: World) -> dict[str, list[NeuronSet]]:
    """The neurons of each fact, by relation. They must be of this model and of these facts."""
    neurons = {}
    for relation, path in neuron_files(kn_dir, arm, world.relations).items():
        sets_by_fact, count = sets.read_neuron_sets(path), len(world.bags[relation])
        if world.settings["debug"] >= 0:
            sets_by_fact = sets_by_fact[:count]
        if len(sets_by_fact) != count:
            remedy = "run stages 1 and 2 again, with these data"
            raise InputError(f"{path}: has {len(sets_by_fact)} facts, the data have {count}: {remedy}")
        for fact, members in enumerate(sets_by_fact):
            world.check_neurons(members, f"{path}, fact {fact}")
        neurons[relation] = sets_by_fact
    _check_origin(kn_dir, arm, world)
    return neurons


def _check_origin(kn_dir: str | Path, arm: str, world: World) -> None:
    """Neurons that stage 2 or an import recorded must be as they were written, of this model and of these facts."""
    record, unknown, imported = runs.Record(result_files.neurons_record(kn_dir)), [], []
    for relation in world.relations:
        path = result_files.neurons(kn_dir, relation, arm)
        maker = "stage 2 (2_run_kn.sh)"
        stages, facts_remedy = "stages 1 and 2", "run stages 1 and 2 with these"
        if origins.IMPORTED in (record.made(path.name) or {}):
            imported.append(relation)
            maker = stages = "`kn import`"
            facts_remedy = "import neurons of these"
        made = origins.recorded_settings(path, record, path.name, maker)
        if not made or origins.has_sampled_fingerprint(made, world.settings):
            unknown.append(relation)
            continue
        origins.check_model(path, made, world.settings, stages)
        if "weights" not in made:  # of an import
            unknown.append(relation)
        if made.get("debug") == world.settings["debug"] and made.get("data") != runs.digest(world.bags[relation]):
            raise InputError(f"{path}: was made from other facts: {facts_remedy}, in another RESULTS folder")
    if arm == KNOWLEDGE:  # the notes would be the same for the baseline
        if imported:
            note(f"note: the neurons of {' '.join(imported)} were imported; {record.path} says from where")
        origins.note_unknown_origin(record, unknown)


def read_some_neurons(kn_dir: str | Path, arm: str, world: World) -> dict[str, list[NeuronSet]]:
    """`read_neurons`, for stages that have nothing to do where no relation has any."""
    neurons = read_neurons(kn_dir, arm, world)
    if not any(any(sets_by_fact) for sets_by_fact in neurons.values()):
        first, *others = (str(result_files.neurons(kn_dir, relation, arm)) for relation in neurons)
        which = f"{first} and {len(others)} more" if others else first
        raise InputError(f"{which}: no fact has a neuron, so there is nothing to edit; stage 2 says why (2_run_kn.sh)")
    return neurons


def read_arms(world: World, kn_dir: str | Path, seed: int) -> dict[str, dict[str, list[NeuronSet]]]:
    """The neurons of each fact, by arm and relation. Random neurons are as many, and in the same layers."""
    knowledge = read_neurons(kn_dir, KNOWLEDGE, world)
    baseline = read_neurons(kn_dir, BASELINE, world)
    drawn = {
        relation: [
            selection.random_like(members, world.adapter.d_ffn, runs.rng(seed, "random neurons", relation, fact))
            for fact, members in enumerate(sets_by_fact)
        ]
        for relation, sets_by_fact in knowledge.items()
    }
    return {KNOWLEDGE: knowledge, BASELINE: baseline, RANDOM: drawn}
