"""What the stages found, as their result files say it: for figures and report. Never imports torch.

Works on our results and on the published program's, which have no intervals and no random neurons.
"""

from pathlib import Path
from statistics import mean

from kn.neurons.sets import ARMS
from kn.store import summaries
from kn.store.files import InputError
from kn.store.shapes import Problem, Shape, anything, check, each, either, having, number, optional, row, table, text

Measured = tuple[float, float | None, float | None]  # a value, and its interval where there is one
KINDS = ("subject and object", "subject only", "random sentence")  # of crawled sentences


OBJECT = table(anything)
NOT_NUMBERS = ("before -> after", "percent by layer", "relations", "in range")
INTERVAL = optional(row(optional(number), optional(number)))
DISTANT = table(each(either(text, row(*[each(number, least=1)] * len(KINDS))), "fact"))


def measures(value) -> Problem | None:
    """A shape: measures by name, null where nothing could be measured, and their intervals."""
    if not isinstance(value, dict):
        return table(number)(value)
    named = {name: INTERVAL if name.endswith(":interval") else optional(number) for name in value}
    return having({name: shape for name, shape in named.items() if name not in NOT_NUMBERS})(value)


CRAWLED = table(table(having({kind: having({"mean": optional(number)}) for kind in ("th", "h", "rd")})))
ERASED = having({"measures": table(measures)})
UPDATED = having({"lambda1": number, "lambda2": number, "averages": table(measures)})


def read_if_there(path: Path, shape: Shape = OBJECT) -> dict | None:
    return read(path, shape) if path.exists() else None


def read(path: Path, shape: Shape = OBJECT) -> dict:
    found = summaries.read(path)
    check(found, shape, path)
    return found


def by_number(relations) -> list[str]:
    return sorted(relations, key=lambda name: (len(name), name))


def measured(values: dict, name: str, scale: float = 1) -> Measured | None:
    """A value of a result file and its interval; None where nothing could be measured."""
    value = values.get(name)
    low, high = values.get(f"{name}:interval") or (None, None)
    return None if value is None else (scale * value, *(None if x is None else scale * x for x in (low, high)))


def statistics(kn_dir: Path) -> dict[str, dict]:
    """By method what stage 2 counted."""
    of_method = having({"percent by layer": each(optional(number), "layer", least=1), "relations": table(measures)})
    path = kn_dir / "statistics.json"
    found = read_if_there(path, table(of_method)) or {}
    check(found, table(measures), path)
    depths = {arm: len(of["percent by layer"]) for arm, of in found.items()}
    if len({*depths.values()}) > 1:
        raise InputError(f"{path}: expected as many layers for each method, found {depths}")
    return found


def modified(kn_dir: Path, name: str) -> dict[str, dict[str, Measured]]:
    """By arm and relation a ratio of stage 3, in percent."""
    found: dict[str, dict[str, Measured]] = {}
    for arm, begin in ARMS.items():
        for key, values in (
            read_if_there(kn_dir / f"{begin}modify_activation_rlt.json", table(measures)) or {}
        ).items():
            value = measured(values, name, 100)
            if value is not None:
                found.setdefault(arm, {})[key.removeprefix(f"{begin}kn_bag-")] = value
    return found


def distant(folder: Path) -> dict[str, list[float]]:
    """By arm the mean activation at each of `KINDS`: over neurons within a relation, then over relations."""
    found = {}
    for arm in ("knowledge neurons", "baseline"):
        of_arm = (read_if_there(folder / f"{ARMS[arm]}kn_weights@distant_data.json", DISTANT) or {}).values()
        of_relations = [of for of in map(_activations, of_arm) if of]
        if of_relations:
            found[arm] = [mean(of[kind] for of in of_relations) for kind in range(len(KINDS))]
    return found


def _activations(facts: list) -> list[float] | None:
    """The means of the three kinds of sentences over the neurons of all facts that have any."""
    of_facts = [fact for fact in facts if not isinstance(fact, str)]  # the others say why they have none
    if not of_facts:
        return None
    return [mean(value for fact in of_facts for value in fact[kind]) for kind in range(len(KINDS))]


def updates(folder: Path) -> list[dict]:
    """What stage 6 found for each pair of strengths."""
    grid = read_if_there(folder / "grid.json", having({"pairs": each(UPDATED)})) or {"pairs": []}
    pairs = grid["pairs"]
    swept = {(pair["lambda1"], pair["lambda2"]) for pair in pairs}
    paths = [path for path in sorted(folder.glob("edit-*.json")) if not path.name.endswith(".args.json")]
    single = [read(path, UPDATED) for path in paths]
    return pairs + [pair for pair in single if (pair["lambda1"], pair["lambda2"]) not in swept]


def erasures(folder: Path) -> dict[str, dict[str, dict]]:
    """By relation and arm the measures of stage 7."""
    files = {path.stem: path for path in folder.glob("*.json") if not path.name.endswith(".args.json")}
    return {relation: read(files[relation], ERASED)["measures"] for relation in by_number(files)}
