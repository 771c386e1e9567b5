"""Neurons collected from the results of stages 1 and 2, or from an import, to be exported. Never imports torch."""

from dataclasses import dataclass
from pathlib import Path
from statistics import mean

from tqdm import tqdm

from kn.exchange import form
from kn.exchange.facts import Fact, Facts
from kn.exchange.form import Card, Line
from kn.neurons import sets
from kn.neurons.attributed import Scored, read_scores
from kn.neurons.sets import Neuron, NeuronSet, Triplet
from kn.store import origins, result_files, runs, summaries
from kn.store.files import InputError, read_object
from kn.store.result_files import BASELINE, KNOWLEDGE
from kn.store.result_shapes import REFINING
from kn.store.shapes import check

SCORES = {KNOWLEDGE: "ig_gold", BASELINE: "base"}  # by arm, the scores of stage 1 that its neurons come from
STAGE_2 = "stage 2 (2_run_kn.sh)"
ATTRIBUTION = ("rule", "points", "do_lower_case", "max_seq_length")  # settings of stage 1
FOLDERS = ("output_dir", "output_prefix", "kn_dir")  # settings of stage 2 that say nothing about the neurons


@dataclass(frozen=True)
class Results:
    """Where the neurons and their scores are."""

    kn_dir: Path
    output_dir: Path  # of stage 1; there need not be any results in it
    prefix: str

    @property
    def record(self) -> runs.Record:
        return runs.Record(result_files.neurons_record(self.kn_dir))


@dataclass(frozen=True)
class Collected:
    """Everything that a layout may contain."""

    card: Card
    arms: dict[str, list[Line]]
    facts: dict[str, Fact]  # by id
    n_layers: int

    def by_relation(self) -> dict[str, list[NeuronSet]]:
        """The knowledge neurons of each relation's facts."""
        relations: dict[str, list[NeuronSet]] = {}
        for line in self.arms[KNOWLEDGE]:
            relations.setdefault(line["relation"], []).append(neurons_of(line))
        return relations


def neurons_of(line: Line) -> NeuronSet:
    return NeuronSet(neuron[:2] for neuron in line["neurons"])


def relations_to_export(kn_dir: Path, wanted: list[str]) -> list[str]:
    """The wanted relations, or all of which there are neurons that belong to stage 1's results."""
    present = result_files.relations_with_neurons(kn_dir)
    for relation in wanted:
        if relation not in present:
            raise InputError(f"{kn_dir}: has no neurons of {relation}; it has those of {' '.join(present)}")
    refined = _refining(kn_dir).get("relations")
    return wanted or [relation for relation in present if refined is None or relation in refined]


def collect(results: Results, facts: Facts) -> Collected:
    """The neurons of these facts, with scores and prompts where stage 1's results are there."""
    arms: dict[str, list[Line]] = {KNOWLEDGE: [], BASELINE: []}
    exported: dict[str, Fact] = {}
    made_by_relation: dict[str, dict] = {}
    for relation in tqdm(facts.by_relation, desc="reading", unit="relation", dynamic_ncols=True):
        scored = None
        for arm, lines in arms.items():
            path = result_files.neurons(results.kn_dir, relation, arm)
            if arm == BASELINE and not path.exists():
                continue
            made = origins.recorded_settings(path, results.record, path.name, STAGE_2) or {}
            imported = origins.IMPORTED in (results.record.made(path.name) or {})
            own_facts = _own_facts(path, made, facts, relation)
            neurons = sets.read_neuron_sets(path)
            if len(neurons) != len(own_facts):
                raise InputError(f"{path}: has {len(neurons)} facts, the data ({facts.path}) have {len(own_facts)}")
            if arm == KNOWLEDGE:
                made_by_relation[relation] = made
                exported |= {fact.id: fact for fact in own_facts}
                scored = None if imported else _scored_prompts(results, made, own_facts, relation)
            for number, fact in enumerate(own_facts):
                lines.append(_line(fact, neurons[number], SCORES[arm], scored[number] if scored else None))
    all_neurons = [neuron for lines in arms.values() for line in lines for neuron in line["neurons"]]
    n_layers = max([_refining(results.kn_dir).get("layers", 0), *(1 + layer for layer, *_ in all_neurons)])
    return Collected(
        _card(results, made_by_relation, exported),
        {arm: lines for arm, lines in arms.items() if lines},
        exported,
        n_layers,
    )


def _own_facts(path: Path, made: dict, facts: Facts, relation: str) -> list[Fact]:
    """The facts that the neurons in a file are of: with --debug, the first ones of the relation."""
    count = made.get("debug", -1)
    own_facts, bags = facts.by_relation[relation], facts.bags[relation]
    if count >= 0:
        own_facts, bags = own_facts[:count], bags[:count]
    if "data" in made and made["data"] != runs.digest(bags):
        raise InputError(f"{path}: was made from other facts than {facts.path}: name their file (--data_path)")
    return own_facts


def _scored_prompts(results: Results, made: dict, facts: list[Fact], relation: str) -> list[list[Scored]] | None:
    """Per fact, its prompts with stage 1's scores. None if stage 1's results are not there."""
    path = result_files.attributions(results.output_dir, results.prefix, relation)
    if not path.exists():
        return None
    record = runs.Record(result_files.attributions_record(results.output_dir, results.prefix))
    scored = origins.recorded_settings(path, record, relation, "stage 1 (1_run_mlm.sh)") or {}
    origins.check_model(path, scored, made, STAGE_2)
    by_fact = [prompts for _, prompts in read_scores(path, SCORES.values())]
    if [len(prompts) for prompts in by_fact] != [len(fact.prompts) for fact in facts]:
        raise InputError(f"{path}: has other facts or prompts than the data: name their file (--data_path)")
    return by_fact


def _line(fact: Fact, neurons: NeuronSet, score: str, prompts: list[Scored] | None) -> Line:
    used = None
    shares: list[dict[Neuron, float]] = []
    if prompts is not None:
        used = [text for text, prompt in zip(fact.prompts, prompts, strict=True) if not prompt.skipped]
        shares = [_shares(prompt.triplets[score]) for prompt in prompts if not prompt.skipped]
    return {
        "id": fact.id,
        "relation": fact.relation,
        "subject": fact.subject,
        "object": fact.object,
        "neurons": [
            [*neuron, round(mean(by_neuron.get(neuron, 0.0) for by_neuron in shares), 6) if shares else None]
            for neuron in neurons
        ],
        "prompts": used,
    }


def _shares(triplets: list[Triplet]) -> dict[Neuron, float]:
    """Scores as shares of the prompt's highest."""
    highest = max((value for _, _, value in triplets), default=0)
    return {Neuron(layer, index): value / highest for layer, index, value in triplets} if highest > 0 else {}


def _refining(kn_dir: Path) -> dict:
    """What stage 2 wrote about refining; the published program writes no such file, and an import neither."""
    path = result_files.refining(kn_dir)
    if not path.exists():
        return {}
    content = summaries.read(path, read_object)
    check(content, REFINING, path)
    return content


def _card(results: Results, made_by_relation: dict[str, dict], exported: dict[str, Fact]) -> Card:
    """What made the neurons, which must be the same model for all relations."""
    first, made = next(iter(made_by_relation.items()))
    for relation, other in made_by_relation.items():
        if other.get("weights") != made.get("weights"):
            path = result_files.neurons(results.kn_dir, relation)
            raise InputError(
                f"{path}: was made with another model than {first}: export them separately (--pt_relation)"
            )
    refining = _refining(results.kn_dir)
    card: Card = {
        "format": form.FORMAT,
        "model": made.get("bert_model"),
        "revision": made.get("revision"),
        "dtype": made.get("dtype"),
        "fingerprint": {"weights": made["weights"], "tokenizer": made.get("tokenizer")} if "weights" in made else None,
        "method": "knowledge neurons (Dai et al., 2022): integrated gradients of the answer's probability",
        "attribution": {name: made[name] for name in ATTRIBUTION if name in made},
        "thresholds": {name: value for name, value in refining.get("settings", {}).items() if name not in FOLDERS},
        "relations": {
            relation: {
                "facts": sum(fact.relation == relation for fact in exported.values()),
                **refining.get("relations", {}).get(relation, {}).get("ig_gold", {}),
            }
            for relation in made_by_relation
        },
        "commit": runs.commit(),
    }
    entry = results.record.made(result_files.neurons(results.kn_dir, first).name) or {}
    if origins.IMPORTED in entry:
        card |= {"method": f"imported: see {origins.IMPORTED!r}", origins.IMPORTED: entry[origins.IMPORTED]}  # type: ignore[misc]
    return card
