"""Every fact of a run in short, for the report's fact browser, from the files of stages 1 to 3. Never imports torch.

A fact is a list in the order of `COLUMNS`, and small: there are tens of thousands of them in one page.
"""

import json
import re
from pathlib import Path

from tqdm import tqdm

from kn.neurons.sets import RECORD, read_bags
from kn.report import found
from kn.store import origins
from kn.store.files import SURROGATE, InputError, parsed, read_jsonl, reading
from kn.store.runs import Record
from kn.store.shapes import check, each, having, number, optional, text, whole

# None where it was not measured. Probabilities are of the answer; changes are those of its mean over prompts.
COLUMNS = (
    *("answer", "probability", "right", "prompts", "suppressed", "amplified"),
    *("neurons", "best", "best probability", "worst", "worst probability"),
)
ABOUT = '[{"tokens": '  # begins each prompt of a fact; within a text its quotes would be escaped
FRAME = {"[CLS]", "[SEP]", "<s>", "</s>", "<bos>", "<|endoftext|>", "<|begin_of_text|>"}

Brief = dict  # what stage 1 says of a prompt
BRIEFS = each(
    having({"tokens": each(text), "relation": text, "gold_obj": text, "pred_obj": optional(text)}), "prompt", least=1
)
SKIPPED = each(having({"fact": whole, "prompt": whole}))
MODIFIED = having({"fact": whole, "knowledge neurons": having({"own": each(each(number, least=1), "prompt")})})


def facts_of(results: Path, kn_dir: Path, prefix: str) -> dict[str, dict]:
    """By relation its label and its facts."""
    stage_1 = Record(results / f"{prefix}.args.json")
    stage_2 = Record(kn_dir / RECORD)
    stage_3 = Record(kn_dir / "modify_activation.args.json")
    record = stage_1.read()
    paths = {path.name[len(prefix) + 1 : -len(".rlt.jsonl")]: path for path in results.glob(f"{prefix}-*.rlt.jsonl")}
    relations = {}
    for relation in tqdm(found.by_number(paths), desc="reading facts", unit="relation", dynamic_ncols=True):
        origins.unchanged(paths[relation], stage_1, relation, "stage 1 (1_run_mlm.sh)")
        neurons, changes = kn_dir / f"kn_bag-{relation}.json", kn_dir / f"modify_activation-{relation}.jsonl"
        bags, modified, factors = [], {}, [0, 2]
        if neurons.exists():
            origins.unchanged(neurons, stage_2, neurons.name, "stage 2 (2_run_kn.sh)")
            bags = read_bags(neurons)
        if changes.exists():
            made = origins.unchanged(changes, stage_3, relation, "stage 3 (3_run_modify_activation.sh)")
            modified, factors = _modified(changes), (made or {}).get("factors", factors)
            check(factors, each(number), f"{stage_3.path}, {relation}, factors")
            if any(len(values) != 1 + len(factors) for of_fact in modified.values() for values in of_fact):
                raise InputError(f"{changes}: expected {1 + len(factors)} probabilities for each prompt")
        left_out = record.get(relation, {}).get("skipped", [])
        check(left_out, SKIPPED, f"{stage_1.path}, {relation}, skipped")
        skipped = {(skip["fact"], skip["prompt"]) for skip in left_out}
        places = _places(factors)
        facts, label = [], relation
        for fact, briefs in enumerate(_prompts(paths[relation])):
            label = briefs[0]["relation"]
            scored = [brief for index, brief in enumerate(briefs) if (fact, index) not in skipped]
            of_prompts = modified.get(fact)
            if of_prompts is not None and len(of_prompts) != len(scored):
                raise InputError(
                    f"{changes}, fact {fact}: has {len(of_prompts)} prompts, stage 1 scored {len(scored)}: "
                    "of other data?"
                )
            bag = bags[fact] if fact < len(bags) else None
            facts.append(_fact(briefs, scored, bag, of_prompts, places))
        relations[relation] = {"label": label, "facts": facts}
    return relations


def _fact(briefs: list[Brief], scored: list[Brief], bag: list | None, of_prompts: list | None, places: list) -> list:
    answer = briefs[0]["gold_obj"]
    right = sum(brief["pred_obj"] == brief["gold_obj"] for brief in scored)
    neurons = None if bag is None else [number for neuron in bag for number in neuron]
    if not of_prompts:
        return [answer, None, right, len(scored), None, None, neurons, None, None, None, None]
    means = [sum(column) / len(of_prompts) for column in zip(*of_prompts, strict=True)]
    changes = [None if place is None or not means[0] else means[place] / means[0] - 1 for place in places]
    plain = [values[0] for values in of_prompts]
    ends = [end for place in (_highest(plain), _lowest(plain)) for end in (_text(scored[place]), _short(plain[place]))]
    return [answer, _short(means[0]), right, len(scored), *map(_short, changes), neurons, *ends]


def _highest(values: list[float]) -> int:
    return max(range(len(values)), key=values.__getitem__)


def _lowest(values: list[float]) -> int:
    return min(range(len(values)), key=values.__getitem__)


def _short(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.4g}")


def _places(factors: list[float]) -> list[int | None]:
    """Where stage 3 has the probabilities with neurons suppressed and amplified; the plain one comes first."""
    return [1 + factors.index(factor) if factor in factors else None for factor in (0, 2)]


def _modified(path: Path) -> dict[int, list[list[float]]]:
    """By fact, for each prompt the probability as it is and with each factor."""
    modified = {}
    for fact, line in enumerate(read_jsonl(path)):
        check(line, MODIFIED, f"{path}, fact {fact}")
        modified[line["fact"]] = line["knowledge neurons"]["own"]
    return modified


def _prompts(path: Path):
    """Per fact what stage 1 says of its prompts. Their scores, which are nearly all of the file, are not parsed."""
    decoder = json.JSONDecoder()
    with reading(path) as file:
        for place, line in enumerate(file, 1):
            starts = [match.end() - len('{"tokens": ') for match in re.finditer(re.escape(ABOUT), line)]
            if not starts:
                raise InputError(f"{path}, line {place}: expected a list of [prompt, scores], as stage 1 writes it")
            try:
                briefs = [decoder.raw_decode(line, start)[0] for start in starts]
            except (ValueError, RecursionError):
                parsed(line, f"{path}, line {place}")  # says what is wrong
                raise
            if SURROGATE.search(line):
                parsed(line, f"{path}, line {place}")  # refuses half a character, which can't be written
            check(briefs, BRIEFS, f"{path}, line {place}")
            yield briefs


def _text(brief: Brief) -> str:
    """The prompt, from the pieces that the model read."""
    pieces = [piece for piece in brief["tokens"] if piece not in FRAME]
    if any("▁" in piece for piece in pieces):
        text = "".join(pieces).replace("▁", " ")
    elif any("Ġ" in piece for piece in pieces):
        text = _from_bytes("".join(pieces))
    else:
        text = " ".join(pieces).replace(" ##", "")
    return re.sub(r" ([.,;:!?)])", r"\1", text).strip()


def _from_bytes(text: str) -> str:
    """Tokenizers of bytes write each as a character that can be seen: those that can't be stand from 256 up."""
    shown = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    hidden = [byte for byte in range(256) if byte not in shown]
    byte_of = {chr(byte): byte for byte in shown} | {chr(256 + place): byte for place, byte in enumerate(hidden)}
    if not all(character in byte_of for character in text):
        return text.replace("Ġ", " ")
    return bytes(byte_of[character] for character in text).decode("utf-8", errors="replace")
