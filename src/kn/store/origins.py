"""Whether a result is unchanged, and was made by this model, with these settings. Never imports torch.

A stage checks its own results against the settings of the run (`check_settings`), and the results of other stages
against their records (`recorded_settings`, `check_model`).
"""

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from kn.store.files import InputError, sha256_of
from kn.store.runs import Record
from kn.store.workers import note

# The variables in which the user gives a setting. Other settings are flags of the same name.
VARIABLES = {
    "bert_model": "MODEL",
    "device": "DEVICE",
    "dtype": "DTYPE",
    "rule": "RULE",
    "max_seq_length": "MAX_SEQ_LENGTH",
    "seed": "SEED",
}
FLAGS = {"threshold": "thresholds"}  # settings whose flag has another name
# What it means that a digest differs: its value would tell the user nothing.
MEANINGS = {
    "weights": "with other weights, or another configuration of the model",
    "tokenizer": "with another tokenizer",
    "data": "from other facts",
    "neurons": "with other neurons",
    "others": "with other unrelated facts",
    "sentences": "from other sentences",
    "draws": "with other draws",
    "objects": "with other objects",
    "erased": "with other neurons",
    "certificate": "with other bounds on the error of few points",
    "largest unit": "by a version of the program that divides the work differently",
}


class LaterSetting(NamedTuple):
    """A setting that earlier versions did not record."""

    is_valid: Callable[[object], bool]  # whether a result without it is valid in a run with this value
    otherwise: str  # how it was made


LATER = {
    "threshold": LaterSetting(  # stage 11
        lambda value: False, "when any of a fact's strongest neurons were tried, not only its knowledge neurons"
    ),
    "order": LaterSetting(  # stage 4
        lambda value: False, "when a fact's numbers were in the order of its neurons in stage 2, not by layer"
    ),
    "certificate": LaterSetting(  # stages 1, 9 and 12
        lambda value: value is None,  # RULE=literal has nothing to certify
        "when RULE=riemann and RULE=gauss only estimated their error, and missed steps of up to 26 %",
    ),
    "points": LaterSetting(  # stage 9
        lambda value: value in (None, 20), "from 20 points, the only number there was"
    ),
    "columns": LaterSetting(  # stage 12
        lambda value: False, "when the model's own prediction was not recorded"
    ),
}

IMPORTED = "imported from"  # in the record of neurons, and on the card of exported ones: another program's files
ELSEWHERE = "set RESULTS=another/folder for this run"


def check_settings(path: Path, made: dict, now: dict, remedy: str, record: Path) -> None:
    """Refuse a result that was made with other settings than those of this run."""
    for key, later in LATER.items():
        if key in now and key not in made and not later.is_valid(now[key]):
            raise InputError(f"{path}: was made {later.otherwise}: {remedy}")
    if has_sampled_fingerprint(made, now):
        # The sample may have missed edits of a few neurons, so only somebody who knows the folder's past can say.
        fingerprints = {"weights": now["weights"], "tokenizer": now.get("tokenizer")}
        new = ", ".join(f'"{key}": "{value}"' for key, value in fingerprints.items() if value)
        command = f'sed -i \'s/"weights": "{made["weights"]}"/{new}/\' {shlex.quote(str(record))}'
        raise InputError(
            f"{path}: was made by a version that compared only a sample of the model's weights. If the model has not "
            f"changed since then, run: {command}; otherwise {remedy}"
        )
    for key in now:
        if key not in made:
            if key not in LATER:
                name = VARIABLES.get(key, key)
                raise InputError(f"{path}: was made by a version that did not record {name}: {remedy}")
        elif made[key] != now[key]:
            raise InputError(f"{path}: was made {_difference(key, made[key], now[key])}: {remedy}")


def _difference(key: str, made: object, now: object) -> str:
    if key in MEANINGS:
        return MEANINGS[key]
    if key == "debug":
        made, now = ("all facts" if count == -1 else f"--debug {count}" for count in (made, now))
        return f"with {made}, this run has {now}"
    name = f"{VARIABLES[key]}=" if key in VARIABLES else f"--{FLAGS.get(key, key)} "
    return f"with {name}{_as_typed(made)}, this run has {_as_typed(now)}"


def _as_typed(value: object) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)


def has_sampled_fingerprint(made: dict, now: dict) -> bool:
    """Whether a result has the fingerprint of earlier versions, which took a sample of the weights."""
    return len(str(made.get("weights"))) == 16 < len(str(now.get("weights")))


def settings_of_this_model(path: Path, record: Record, name: str, stage: str, now: dict) -> dict:
    """The settings that made a result, which must be unchanged, and made by the model of this run."""
    made = recorded_settings(path, record, name, stage)
    if made is None:
        raise InputError(
            f"{path}: has no record of what made it, {record.path} has no entry for {name}: restore that file, or "
            f"delete {path} and run {stage} again"
        )
    if has_sampled_fingerprint(made, now):
        check_settings(path, made, now, f"delete it and run {stage} again", record.path)
    check_model(path, made, now, stage)
    return made


def recorded_settings(path: Path, record: Record, name: str, stage: str) -> dict | None:
    """The settings that made a result, which must be unchanged. None if the record has no entry for it."""
    made = record.made(name)
    if made is None:
        return None
    check_sha256(path, made["sha256"], f"run {stage} again")
    return made["settings"]


def check_sha256(path: Path, expected: str, remedy: str) -> None:
    if sha256_of(path) != expected:
        raise InputError(f"{path}: has changed since it was written: delete it and {remedy}")


def note_unknown_origin(record: Record, names: list[str]) -> None:
    """Print at the end that results without a record were read, such as the published program's."""
    if names:
        which = f"{names[0]} and {len(names) - 1} more" if len(names) > 1 else names[0]
        note(
            f"note: {record.path} does not say what made the results of {which}, so it could not be checked whether "
            "they belong to this model and data"
        )


def refuse_several_models(record: Record, paths: dict[str, Path]) -> None:
    """Refuse to mix the attributions of several models. Print the relations whose model is not known."""
    made = {relation: record.made(relation) for relation in paths}
    note_unknown_origin(record, [relation for relation, entry in made.items() if entry is None])
    first_by_weights: dict[str, str] = {}
    for relation, entry in made.items():
        if entry:
            first_by_weights.setdefault(str(entry["settings"].get("weights")), relation)
    if len(first_by_weights) > 1:
        one, other = list(first_by_weights.values())[:2]
        raise InputError(
            f"{paths[other]}: was made with another model than {one}: give each model its own RESULTS folder, "
            "and delete the other model's results here"
        )


def check_model(path: Path | str, made: dict, now: dict, stages: str) -> None:
    """Refuse the result of another model. `stages` are those that made it."""
    keys = [key for key in ("dtype", "weights", "tokenizer") if key in now and key in made]
    remedy = f"run {stages} with this one and with RESULTS=another/folder"
    for key in keys:
        if made[key] == now[key] or (key == "dtype" and {made[key], now[key]} == {"float32", "tf32"}):
            continue
        if key == "dtype":
            raise InputError(
                f"{path}: was made with DTYPE={made[key]}, this run has {now[key]}, so it can't be checked whether the "
                "model is the same: run all stages with the same DTYPE"
            )
        what = "another tokenizer" if key == "tokenizer" else f"another model ({made.get('bert_model')})"
        raise InputError(f"{path}: was made with {what}: {remedy}")
