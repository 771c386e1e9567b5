"""The world that test_fuzz.py edits: eight facts, a random model, and the results of all stages.

`ReferenceModel` has transformers' own answers to compare the results with.
"""

import json
import shutil
from pathlib import Path

import torch
from transformers import AutoModelForMaskedLM, AutoTokenizer

import two_languages
from conftest import ROOT, run
from families import with_inputs
from test_any_model import CRAWLED, PAIRS, TEMPLATES, draw


class World:
    """All cases work in the same folder, because results name the paths of their inputs."""

    def __init__(self, folder: Path):
        self.pristine, self.folder = folder / "pristine", folder / "world"
        write_files(self.folder)
        self.stages = stages_of(self.folder)
        for name in self.stages:
            assert self.run(name).returncode == 0
        shutil.copytree(self.folder, self.pristine)
        self.reference = ReferenceModel(self.folder / "model")

    def run(self, stage: str):
        script, flags, _ = self.stages[stage]
        return run(script, *flags, check=False)

    def restore(self) -> None:
        shutil.rmtree(self.folder)
        shutil.copytree(self.pristine, self.folder)

    def forget(self, stage: str) -> None:
        """Remove the results of a stage."""
        for pattern in self.stages[stage][2]:
            for path in (self.folder / "results").glob(pattern):
                path.unlink()

    def results(self, stage: str, folder: Path) -> dict[str, bytes]:
        """The files of a stage without the records, which say when and how long it ran."""
        patterns = [f"results/{pattern}" for pattern in self.stages[stage][2]] + ["figures/*.csv"]
        return {
            str(path.relative_to(folder)): path.read_bytes()
            for pattern in patterns
            for path in folder.glob(pattern)
            if path.is_file() and not path.name.startswith(".") and "args.json" not in path.name
        }


def write_files(data: Path) -> None:
    facts = [
        [[template.replace("[X]", subject), answer, f"{name}(relation)"] for template in TEMPLATES[name]]
        for name in PAIRS
        for subject, answer in PAIRS[name]
    ]
    sentences = {
        name: [{"th_bags": [CRAWLED[name].format(*pair)], "h_bags": [f"{pair[0]} city, 1999"]} for pair in pairs]
        for name, pairs in PAIRS.items()
    }
    names = [f"{prefix}kn_bag-{name}" for prefix in ("", "base_") for name in PAIRS]
    unrelated = {name: [[other_than(name[-3:]), 3 - fact] for fact in range(4)] for name in names}
    sentences_by_name = {
        f"{prefix}{name}": [[["在[MASK]有城"], ["the city of [MASK]"], ["In [MASK]"]]] * 4
        for prefix in ("", "base_")
        for name in PAIRS
    }
    data.mkdir()
    for name, value in {
        "data_all.json": facts,
        "grouped.json": {name: [bag for bag in facts if bag[0][2].startswith(name)] for name in PAIRS},
        "query_pairs.json": PAIRS,
        **{f"final_distant_allbags_{name}_new.json": bags for name, bags in sentences.items()},
        "draws_3.json": unrelated,
        "draws_4.json": sentences_by_name,
        "draws_6.json": [draw(name, fact) for name in PAIRS for fact in range(4)],
    }.items():
        (data / name).write_text(json.dumps(value))
    two_languages.write_facts(data / "mlama")
    shutil.make_archive(str(data / "mlama"), "zip", data / "mlama")
    shutil.copy(ROOT / "data" / "paper_numbers.json", data)
    sources = data / "sources"
    for name, value in {
        "PARAREL/query_pairs.json": PAIRS,
        "LAMA/raw_data/relations.jsonl": [{"relation": name, "label": "x", "type": "N-1"} for name in PAIRS],
        **{
            f"PARAREL/raw_data/patterns/{name}.jsonl": [
                {"pattern": template.replace("[MASK]", "[Y]")} for template in templates
            ]
            for name, templates in TEMPLATES.items()
        },
    }.items():
        path = sources / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(map(json.dumps, value)) if path.suffix == ".jsonl" else json.dumps(value))
    two_languages.write_model("bert", data / "model")


def stages_of(data: Path) -> dict[str, tuple]:
    """Per name of a stage: its script, its flags, and patterns of the files it writes."""
    results = data / "results"
    common = ["--bert_model", data / "model", "--output_dir", results, "--device", "cpu"]
    with_facts = [*common, "--data_path", data / "data_all.json", "--tmp_data_path", data / "grouped.json"]
    kn = ["--kn_dir", results / "kn"]
    crawled = ["--distant_data_dir", data, "--query_pairs_path", data / "query_pairs.json"]
    report = ["--output_dir", results, *kn, "--fig_dir", data / "figures"]
    amig = [*common, "--mlama", data / "mlama", "--fig_dir", data / "figures", "--pt_relation", "P36", "P37"]
    zipped = [data / "mlama.zip" if flag == data / "mlama" else flag for flag in amig]
    return {
        "0": ("0_build_data.py", ["--data_dir", data / "sources"], ["../sources/PARAREL/data*"]),
        "1": ("1_analyze_mlm.py", [*with_facts, "--get_ig_gold", "--get_base"], ["TREx-all*"]),
        "2": (
            "2_get_kn.py",
            ["--output_dir", results, *kn, "--min_prompts", "2"],
            ["kn/*kn_*", "kn/refining.json"],
        ),
        "2b": (
            "2_analyze_kn.py",
            [*kn, "--fig_dir", data / "figures"],
            ["kn/statistics.json", "kn/shared_neurons.json"],
        ),
        "3": (
            "3_modify_activation.py",
            [*with_facts, *kn, "--draws", data / "draws_3.json"],
            ["kn/*modify*", "kn/single*", "kn/words*"],
        ),
        "4": (
            "4_check_weights_distant.py",
            [*with_facts, *kn, *crawled, "--draws", data / "draws_4.json"],
            ["distant/*"],
        ),
        "5": ("5_find_trigger_examples.py", [*with_facts, *kn, *crawled], ["trigger*/*"]),
        "6": ("6_edit_knowledge_sampled.py", [*with_facts, *kn, "--draws", data / "draws_6.json"], ["edit/*"]),
        "7": ("7_erase_knowledge.py", [*with_facts, *kn, "--num_neurons", "3"], ["erase/*"]),
        "9en": ("9_analyze_amig.py", [*amig, "--languages", "en"], ["amig/en/[al]*", "amig/en/dai*"]),
        "9zh": ("9_analyze_amig.py", [*amig, "--languages", "zh"], ["amig/zh/[al]*", "amig/zh/dai*"]),
        "9zip": ("9_analyze_amig.py", [*zipped, "--languages", "en"], ["amig/en/[al]*", "amig/en/dai*"]),
        "10": ("10_language_independent.py", [*amig, "--languages", "en", "zh"], ["amig/en_zh/*"]),
        "11": ("11_degenerate.py", [*amig, "--languages", "en", "zh"], ["amig/degen*", "amig/*/degen*"]),
        "12": ("12_fact_check.py", [*amig, "--languages", "en", "zh"], ["amig/fact*", "amig/*/fact*"]),
        "14": (
            "14_consistency.py",
            ["--output_dir", results, "--fig_dir", data / "figures"],
            ["consistency/agree*", "consistency/consis*"],
        ),
        "14b": (
            "14_carry_over.py",
            [*with_facts, *kn, *crawled[2:], "--fig_dir", data / "figures", "--facts", "2"],
            ["consistency/carry*"],
        ),
        "8": ("8_plot.py", report, []),
        "8b": ("8_report.py", [*report, "--published", data / "paper_numbers.json"], ["report.*"]),
    }


def other_than(name: str) -> str:
    return next(other for other in PAIRS if other != name)


class ReferenceModel:
    """transformers' own model in a folder, run text by text."""

    def __init__(self, folder: Path):
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.model = AutoModelForMaskedLM.from_pretrained(folder, dtype=torch.float64).eval()
        self.downs = [layer.output.dense for layer in self.model.bert.encoder.layer]
        self.longest = self.model.config.max_position_embeddings
        self.answers: dict[tuple[str, str], tuple | None] = {}

    def __call__(self, text: str, answer: str) -> tuple[float, bool] | None:
        """The answer's mean probability over its pieces, and whether it is predicted. None if the prompt is skipped."""
        if (text, answer) not in self.answers:
            self.answers[text, answer] = self._answer(text, answer)
        return self.answers[text, answer]

    def scored(self, bag: list) -> list[tuple[float, bool]]:
        """The same per prompt of a fact, without the skipped prompts."""
        return [reading for text, answer, _ in bag if (reading := self(text, answer))]

    def _answer(self, text: str, answer: str) -> tuple[float, bool] | None:
        pieces = self.tokenizer(answer, add_special_tokens=False)["input_ids"]
        if not pieces or self.tokenizer.unk_token_id in pieces:
            return None
        ids, positions = self._ids(text, len(pieces))
        if len(positions) < len(pieces):
            return None
        with torch.no_grad():
            probabilities = self.model(torch.tensor([ids])).logits[0, positions].softmax(-1)
        return probabilities[range(len(pieces)), pieces].mean().item(), probabilities.argmax(-1).tolist() == pieces

    def _ids(self, text: str, masks: int) -> tuple[list[int], list[int]]:
        """The token ids with `masks` masks, and the positions of these."""
        ids = self.tokenizer(text.replace("[MASK]", self.tokenizer.mask_token * masks))["input_ids"]
        if len(ids) > self.longest:
            ids = ids[: self.longest - 1] + ids[-1:]
        return ids, [position for position, token in enumerate(ids) if token == self.tokenizer.mask_token_id]

    def activations(self, text: str, neurons: list) -> list[float] | None:
        """The activations of neurons at the mask. None if the text has no mask."""
        ids, positions = self._ids(text, 1)
        if not positions:
            return None
        inputs: list = []
        with torch.no_grad():
            with_inputs(
                self.downs, lambda _, x: inputs.append(x[0, positions[0]]) or x, lambda: self.model(torch.tensor([ids]))
            )
        return [inputs[layer][index].item() for layer, index in neurons]
