"""Whether a result is what a stage takes it for: unchanged, and made by this model, with these settings.

A stage compares its own results with the settings of the run (`compare`), and the results of others, which it reads,
with their records (`unchanged`, `same_model`). Never imports torch.
"""

import shlex
from collections.abc import Callable, Iterable
from pathlib import Path

from kn.store.files import InputError, sha256_of
from kn.store.runs import Record
from kn.store.workers import note

# What the user calls a setting; the others are flags of that name.
VARIABLES = {
    "bert_model": "MODEL",
    "device": "DEVICE",
    "dtype": "DTYPE",
    "rule": "RULE",
    "max_seq_length": "MAX_SEQ_LENGTH",
    "seed": "SEED",
}
FLAGS = {"threshold": "thresholds"}  # of settings that do not have the name of their flag
# Settings that are digests or the like: what it means that they differ.
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
# Settings that earlier versions did not record: when a result without one is valid all the same, by its settings and
# those of this run; and what to say of one that is not.
LATER: dict[str, tuple[Callable[[dict, dict], bool], str]] = {
    "threshold": (  # of stage 11
        lambda made, now: False,
        "when any of a fact's strongest neurons were tried, and not only its knowledge neurons",
    ),
    "order": (lambda made, now: False, "when a fact's numbers came in the order of its bag, and not by layer"),
    "certificate": (  # of stages 1, 9 and 12
        lambda made, now: now["certificate"] is None,  # of RULE=literal, which has nothing to certify
        "when RULE=riemann and RULE=gauss only estimated their error, and missed steps of up to 26 %",
    ),
    "points": (
        lambda made, now: now["points"] in (None, 20),
        "from 20 points, the only number there was",
    ),  # of stage 9
    "columns": (lambda made, now: False, "when what the model itself predicts was not recorded"),  # of stage 12
}

ELSEWHERE = "set RESULTS=another/folder for this run"


def compare(path: Path, made: dict, now: dict, remedy: str, record: Path) -> None:
    """Refuse a result that was made with other settings than this run has."""
    for key, (valid, why) in LATER.items():
        if key in now and key not in made and not valid(made, now):
            raise InputError(f"{path}: was made {why}: {remedy}")
    if of_earlier_version(made, now):
        # Edits of a few neurons may have escaped the sample: only who knows the folder's past can tell.
        vouched = {"weights": now["weights"], "tokenizer": now.get("tokenizer")}
        new = ", ".join(f'"{key}": "{value}"' for key, value in vouched.items() if value)
        command = f'sed -i \'s/"weights": "{made["weights"]}"/{new}/\' {shlex.quote(str(record))}'
        raise InputError(
            f"{path}: was made by a version that compared only a sample of the model's weights. If the model has not "
            f"changed since: {command}; otherwise {remedy}"
        )
    for key in now:
        if key in made and made[key] == now[key]:
            continue
        if key not in made and key in LATER:
            continue
        unknown = f"by a version that did not record {VARIABLES.get(key, key)}"
        about = _different(key, made[key], now[key]) if key in made else unknown
        raise InputError(f"{path}: was made {about}: {remedy}")


def _different(key: str, made, now) -> str:
    if key in MEANINGS:
        return MEANINGS[key]
    if key == "debug":
        made, now = ("all facts" if count == -1 else f"--debug {count}" for count in (made, now))
        return f"with {made}, this run has {now}"
    name = f"{VARIABLES[key]}=" if key in VARIABLES else f"--{FLAGS.get(key, key)} "
    return f"with {name}{_shown(made)}, this run has {_shown(now)}"


def _shown(value) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)


def of_earlier_version(made: dict, now: dict) -> bool:
    """Whether a result has the fingerprint that earlier versions took of a sample of the weights."""
    return len(str(made.get("weights"))) == 16 < len(str(now.get("weights")))


def known(path: Path, record: Record, name: str, stage: str, now: dict) -> dict:
    """The settings that made a result of a stage, unchanged and of the model that this run has."""
    made = unchanged(path, record, name, stage)
    if made is None:
        raise InputError(
            f"{path}: what made it is unknown, {record.path} has no entry for {name}: restore that file, or delete "
            f"{path} and run {stage} again"
        )
    if of_earlier_version(made, now):
        compare(path, made, now, f"delete it and run {stage} again", record.path)
    same_model(path, made, now, stage)
    return made


def unchanged(path: Path, record: Record, name: str, stage: str) -> dict | None:
    """The settings that made a result of a stage, which must be as it was written. None if no record tells."""
    made = record.made(name)
    if made is None:
        return None
    check_sum(path, made["sha256"], f"run {stage} again")
    return made["settings"]


def check_sum(path: Path, expected: str, remedy: str) -> None:
    if sha256_of(path) != expected:
        raise InputError(f"{path}: has changed since it was written: delete it and {remedy}")


def of_unknown_origin(record: Path, names: Iterable[str]) -> None:
    """Have it said that no record tells what made results that are read, such as the published program's."""
    names = list(names)
    if names:
        which = f"{names[0]} and {len(names) - 1} more" if len(names) > 1 else names[0]
        note(
            f"note: {record.path} does not say what made the results of {which} that were read: whether they are of "
            "this model and these data could not be checked"
        )


def same_model(path: Path | str, made: dict, now: dict, stages: str) -> None:
    """Refuse what another model was asked for. `stages` are those that made it."""
    keys = [key for key in ("dtype", "weights", "tokenizer") if key in now and key in made]
    remedy = f"run {stages} with this one and with RESULTS=another/folder"
    for key in keys:
        if made[key] == now[key] or (key == "dtype" and {made[key], now[key]} == {"float32", "tf32"}):
            continue
        if key == "dtype":
            raise InputError(
                f"{path}: was made with DTYPE={made[key]}, this run has {now[key]}: whether the model is the same "
                f"can't be told then; run all stages with one"
            )
        what = "another tokenizer" if key == "tokenizer" else f"another model ({made.get('bert_model')})"
        raise InputError(f"{path}: was made with {what}: {remedy}")
