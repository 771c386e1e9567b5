"""Every fact of a run in short, for the report's fact browser, from the files of stages 1 to 3. Never imports torch.

A fact is a list in the order of `COLUMNS`, and small, because one page holds tens of thousands of them.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, TypedDict

from tqdm import tqdm

from kn.neurons.sets import NeuronSet, read_neuron_sets
from kn.report import read_back
from kn.store import origins, result_files
from kn.store.files import SURROGATE, InputError, parsed, read_jsonl, reading
from kn.store.result_shapes import MODIFIED_FACT, PROMPTS, SKIPPED, Prompt
from kn.store.runs import Record
from kn.store.shapes import check, each, number

# None where nothing was measured. Probabilities are the answer's; changes are those of its mean over prompts.
COLUMNS = (
    *("answer", "probability", "right", "prompts", "suppressed", "amplified"),
    *("neurons", "best", "best probability", "worst", "worst probability"),
)
PROMPT_START = '{"tokens": '
IN_LIST = "[" + PROMPT_START  # begins each prompt of a line; within a text its quotes would be escaped
FRAME = {"[CLS]", "[SEP]", "<s>", "</s>", "<bos>", "<|endoftext|>", "<|begin_of_text|>"}
FACTORS = [0, 2]  # stage 3's, unless its record has others


class RelationFacts(TypedDict):
    label: str
    facts: list[list]


class Modified(NamedTuple):
    """What stage 3 has about a relation."""

    path: Path
    facts: dict[int, list[list[float]]]  # per prompt the plain probability, then with each factor
    columns: list[int | None]  # where the probabilities with factors 0 and 2 are


def facts_of(output_dir: Path, kn_dir: Path, prefix: str) -> dict[str, RelationFacts]:
    """The label and the facts of each relation."""
    stage_1 = Record(result_files.attributions_record(output_dir, prefix))
    stage_2 = Record(result_files.neurons_record(kn_dir))
    record = stage_1.read()
    paths = result_files.all_attributions(output_dir, prefix)
    relations: dict[str, RelationFacts] = {}
    names = result_files.by_number(paths)
    for relation in tqdm(names, desc="reading facts", unit="relation", dynamic_ncols=True, disable=not names):
        origins.recorded_settings(paths[relation], stage_1, relation, "stage 1 (1_run_mlm.sh)")
        left_out = record.get(relation, {}).get("skipped", [])
        check(left_out, SKIPPED, f"{stage_1.path}, {relation}, skipped")
        skipped = {(skip["fact"], skip["prompt"]) for skip in left_out}
        neurons = result_files.neurons(kn_dir, relation)
        bags = []
        if neurons.exists():
            origins.recorded_settings(neurons, stage_2, neurons.name, "stage 2 (2_run_kn.sh)")
            bags = read_neuron_sets(neurons)
        modified = _modified(kn_dir, relation)
        facts, label = [], relation
        for fact, prompts in enumerate(_prompts(paths[relation])):
            label = _label(relation, prompts[0]["relation"])
            scored = [prompt for index, prompt in enumerate(prompts) if (fact, index) not in skipped]
            probabilities = modified.facts.get(fact)
            if probabilities is not None and len(probabilities) != len(scored):
                raise InputError(
                    f"{modified.path}, fact {fact}: has {len(probabilities)} prompts, stage 1 scored {len(scored)}: "
                    "it was made from other data, so run stages 1 to 3 again"
                )
            bag = bags[fact] if fact < len(bags) else None
            facts.append(_fact(prompts, scored, bag, probabilities, modified.columns))
        relations[relation] = {"label": label, "facts": facts}
    return relations


def _label(relation: str, text: str) -> str:
    """P36 capital, for a relation that stage 1 calls P36(capital)."""
    name = read_back.relation_name(relation, text)
    return relation if name in ("", relation, relation.replace("_", " ")) else f"{relation} {name}"


def _fact(
    prompts: list[Prompt],
    scored: list[Prompt],
    bag: NeuronSet | None,
    probabilities: list[list[float]] | None,
    columns: list[int | None],
) -> list:
    answer = prompts[0]["gold_obj"]
    right = sum(prompt["pred_obj"] == prompt["gold_obj"] for prompt in scored)
    neurons = None if bag is None else [number for neuron in bag for number in neuron]
    if not probabilities:
        return [answer, None, right, len(scored), None, None, neurons, None, None, None, None]
    means = [sum(column) / len(probabilities) for column in zip(*probabilities, strict=True)]
    changes = [None if column is None or not means[0] else means[column] / means[0] - 1 for column in columns]
    plain = [values[0] for values in probabilities]
    best, worst = plain.index(max(plain)), plain.index(min(plain))
    return [
        *(answer, _short(means[0]), right, len(scored), _short(changes[0]), _short(changes[1]), neurons),
        *(_text(scored[best]), _short(plain[best]), _text(scored[worst]), _short(plain[worst])),
    ]


def _short(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.4g}")


def _modified(kn_dir: Path, relation: str) -> Modified:
    path = result_files.modified(kn_dir, relation)
    facts, factors = {}, FACTORS
    if path.exists():
        record = Record(result_files.modified_record(kn_dir))
        made = origins.recorded_settings(path, record, relation, "stage 3 (3_run_modify_activation.sh)")
        for fact, line in enumerate(read_jsonl(path)):
            check(line, MODIFIED_FACT, f"{path}, fact {fact}")
            facts[line["fact"]] = line["knowledge neurons"]["own"]
        factors = (made or {}).get("factors", FACTORS)
        check(factors, each(number), f"{record.path}, {relation}, factors")
        if any(len(values) != 1 + len(factors) for probabilities in facts.values() for values in probabilities):
            raise InputError(f"{path}: expected {1 + len(factors)} probabilities for each prompt")
    columns = [1 + factors.index(factor) if factor in factors else None for factor in FACTORS]
    return Modified(path, facts, columns)


def _prompts(path: Path) -> Iterator[list[Prompt]]:
    """What stage 1 says about each fact's prompts. Their scores, which are nearly all of the file, are not parsed."""
    decoder = json.JSONDecoder()
    with reading(path) as file:
        for number, line in enumerate(file, 1):
            starts = [match.end() - len(PROMPT_START) for match in re.finditer(re.escape(IN_LIST), line)]
            if not starts:
                raise InputError(f"{path}, line {number}: expected a list of [prompt, scores], as stage 1 writes it")
            try:
                prompts = [decoder.raw_decode(line, start)[0] for start in starts]
            except (ValueError, RecursionError):
                parsed(line, f"{path}, line {number}")  # says what is wrong
                raise
            if SURROGATE.search(line):
                parsed(line, f"{path}, line {number}")  # refuses half a character, which can't be written
            check(prompts, PROMPTS, f"{path}, line {number}")
            yield prompts


def _text(prompt: Prompt) -> str:
    """The prompt, from the pieces that the model read."""
    pieces = [piece for piece in prompt["tokens"] if piece not in FRAME]
    if any("▁" in piece for piece in pieces):
        text = "".join(pieces).replace("▁", " ")
    elif any("Ġ" in piece for piece in pieces):
        text = _from_bytes("".join(pieces))
    else:
        text = " ".join(pieces).replace(" ##", "")
    return re.sub(r" ([.,;:!?)])", r"\1", text).strip()


def _from_bytes(text: str) -> str:
    """Byte-level tokenizers write each byte as a printable character: those that are not printable from 256 up."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    byte_of = {chr(byte): byte for byte in printable} | {chr(256 + index): byte for index, byte in enumerate(others)}
    if not all(character in byte_of for character in text):
        return text.replace("Ġ", " ")
    return bytes(byte_of[character] for character in text).decode("utf-8", errors="replace")
