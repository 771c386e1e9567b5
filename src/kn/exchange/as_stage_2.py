"""Imported neurons written where stages 3 to 7 look for those of stage 2, with a record of their source.

Never imports torch.
"""

import hashlib
from pathlib import Path

from kn.exchange.collecting import STAGE_2
from kn.exchange.facts import Facts
from kn.exchange.form import Card
from kn.exchange.incoming import Imported, Sets, Source
from kn.neurons import sets
from kn.neurons.sets import NeuronSet
from kn.store import origins, result_files, runs
from kn.store.files import InputError, json_text, make_folder, sha256_of, writing
from kn.store.result_files import BASELINE, KNOWLEDGE


def settings_on(card: Card | None) -> dict:
    """What a card says about the model, under the names of the records."""
    if card is None:
        return {}
    fingerprint = card.get("fingerprint") or {"weights": None, "tokenizer": None}
    settings = {"bert_model": card.get("model"), "revision": card.get("revision"), "dtype": card.get("dtype")}
    settings |= {"weights": fingerprint["weights"], "tokenizer": fingerprint["tokenizer"]}
    return {name: value for name, value in settings.items() if value is not None}


def write(kn_dir: Path, imported: Imported, source: Source, facts: Facts, settings: dict, baseline: str | None) -> None:
    """Write the neurons of each relation, and the baseline's: imported ones, those of `baseline`, or none.

    `settings` are what is known of the model that they are of. Nothing that is there already is replaced.
    """
    if result_files.refining(kn_dir).exists():
        raise InputError(
            f"{kn_dir}: has the neurons of stage 2: import into another folder, with RESULTS=another/folder or --kn_dir"
        )
    relations = list(imported.arms[KNOWLEDGE])
    record = runs.Record(result_files.neurons_record(kn_dir))
    about = {"layout": source.layout, "files": imported.files, "card": source.card}
    arms = dict(imported.arms)
    entries: dict[str, dict] = {}
    if BASELINE not in arms and baseline:
        arms[BASELINE], entries = _read_baseline(Path(baseline), facts, relations, settings)
    elif BASELINE not in arms:
        arms[BASELINE] = {relation: [NeuronSet()] * len(facts.by_relation[relation]) for relation in relations}
    texts = {
        result_files.neurons(kn_dir, relation, arm): json_text(by_relation[relation])
        for arm, by_relation in arms.items()
        for relation in relations
        if relation in by_relation
    }
    for path, text in texts.items():
        if not path.exists():
            continue
        if sha256_of(path) != _sha256(text):
            raise InputError(f"{path}: is there already, with other neurons: delete it, or import into another folder")
        known = (record.made(path.name) or {"settings": {}})["settings"].get("weights")
        new = entries.get(path.name, {"settings": settings})["settings"].get("weights")
        if known not in (None, new):
            raise InputError(f"{path}: is there already, of another model: delete it, or import into another folder")
    make_folder(kn_dir)
    # The record first: a kill leaves files missing, but none that the record does not describe.
    for path, text in texts.items():
        relation = path.stem.partition("kn_bag-")[2]
        own = {
            "settings": settings | {"debug": facts.debug, "data": runs.digest(facts.bags[relation])},
            origins.IMPORTED: about,
        }
        record.add(path.name, {"sha256": _sha256(text)} | entries.get(path.name, own))
    for path, text in texts.items():
        with writing(path) as file:
            file.write(text)


def _read_baseline(kn_dir: Path, facts: Facts, relations: list[str], settings: dict) -> tuple[Sets, dict[str, dict]]:
    """The baseline's neurons that stage 2 found for the same facts and model, and the records of their files."""
    record = runs.Record(result_files.neurons_record(kn_dir))
    found, entries = {}, {}
    for relation in relations:
        path = result_files.neurons(kn_dir, relation, BASELINE)
        result_files.require(path, "run stages 1 and 2, or import without --baseline")
        made = origins.recorded_settings(path, record, path.name, STAGE_2) or {}
        origins.check_model(path, made, settings, "stages 1 and 2")
        found[relation] = sets.read_neuron_sets(path)
        if len(found[relation]) != len(facts.by_relation[relation]):
            count = len(facts.by_relation[relation])
            raise InputError(f"{path}: has {len(found[relation])} facts, the data ({facts.path}) have {count}")
        entries[path.name] = {"settings": made}
    return found, entries


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
