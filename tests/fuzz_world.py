"""The world that test_fuzz.py edits: eight facts, a random model, and all that the stages write.

And transformers' own answers to what the stages ask.
"""

import json
import shutil
from pathlib import Path

import torch
from transformers import AutoModelForMaskedLM, AutoTokenizer

import two_languages
from conftest import ROOT, run
from families import with_inputs
from kn.report import figures
from test_any_model import CRAWLED, PAIRS, TEMPLATES, draw


class World:
    """The folder that cases work in, always the same: results name the paths they were made from."""

    def __init__(self, folder: Path):
        self.pristine, self.folder = folder / "pristine", folder / "world"
        write_files(self.folder)
        self.stages = stages_of(self.folder)
        for name in self.stages:
            assert self.run(name).returncode == 0
        shutil.copytree(self.folder, self.pristine)
        self.asked = ReferenceModel(self.folder / "model")

    def run(self, stage: str):
        script, flags, _ = self.stages[stage]
        return run(script, *flags, check=False)

    def restore(self) -> None:
        shutil.rmtree(self.folder)
        shutil.copytree(self.pristine, self.folder)

    def forget(self, stage: str) -> None:
        """Remove what the stage wrote."""
        for pattern in self.stages[stage][2]:
            for path in (self.folder / "results").glob(pattern):
                path.unlink()

    def written(self, stage: str, where: Path) -> dict[str, bytes]:
        """What the stage writes, but for records, which tell when and how long."""
        patterns = [f"results/{pattern}" for pattern in self.stages[stage][2]] + ["figures/*.csv"]
        return {
            str(path.relative_to(where)): path.read_bytes()
            for pattern in patterns
            for path in where.glob(pattern)
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
    names = [f"{begin}kn_bag-{name}" for begin in ("", "base_") for name in PAIRS]
    unrelated = {name: [[other_than(name[-3:]), 3 - fact] for fact in range(4)] for name in names}
    given = {
        f"{begin}{name}": [[["在[MASK]有城"], ["the city of [MASK]"], ["In [MASK]"]]] * 4
        for begin in ("", "base_")
        for name in PAIRS
    }
    data.mkdir()
    for name, value in {
        "data_all.json": facts,
        "grouped.json": {name: [bag for bag in facts if bag[0][2].startswith(name)] for name in PAIRS},
        "query_pairs.json": PAIRS,
        **{f"final_distant_allbags_{name}_new.json": of for name, of in sentences.items()},
        "draws_3.json": unrelated,
        "draws_4.json": given,
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
                {"pattern": template.replace("[MASK]", "[Y]")} for template in of_relation
            ]
            for name, of_relation in TEMPLATES.items()
        },
    }.items():
        path = sources / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(map(json.dumps, value)) if path.suffix == ".jsonl" else json.dumps(value))
    two_languages.write_model("bert", data / "model")


def stages_of(data: Path) -> dict[str, tuple]:
    """By name a script, its flags, and what it writes."""
    results = data / "results"
    common = ["--bert_model", data / "model", "--output_dir", results, "--device", "cpu"]
    facts_from = [*common, "--data_path", data / "data_all.json", "--tmp_data_path", data / "grouped.json"]
    kn = ["--kn_dir", results / "kn"]
    crawled = ["--distant_data_dir", data, "--query_pairs_path", data / "query_pairs.json"]
    shown = ["--output_dir", results, *kn, "--fig_dir", data / "figures"]
    spoken = [*common, "--mlama", data / "mlama", "--fig_dir", data / "figures", "--pt_relation", "P36", "P37"]
    zipped = [data / "mlama.zip" if flag == data / "mlama" else flag for flag in spoken]
    return {
        "0": ("0_build_data.py", ["--data_dir", data / "sources"], ["../sources/PARAREL/data*"]),
        "1": ("1_analyze_mlm.py", [*facts_from, "--get_ig_gold", "--get_base"], ["TREx-all*"]),
        "2": (
            "2_get_kn.py",
            ["--output_dir", results, *kn, "--min_prompts", "2"],
            ["kn/*kn_*", "kn/refining.json"],
        ),
        "2b": ("2_analyze_kn.py", [*kn, "--fig_dir", data / "figures"], ["kn/statistics.json"]),
        "3": ("3_modify_activation.py", [*facts_from, *kn, "--draws", data / "draws_3.json"], ["kn/*modify*"]),
        "4": (
            "4_check_weights_distant.py",
            [*facts_from, *kn, *crawled, "--draws", data / "draws_4.json"],
            ["distant/*"],
        ),
        "5": ("5_find_trigger_examples.py", [*facts_from, *kn, *crawled], ["trigger*/*"]),
        "6": ("6_edit_knowledge_sampled.py", [*facts_from, *kn, "--draws", data / "draws_6.json"], ["edit/*"]),
        "7": ("7_erase_knowledge.py", [*facts_from, *kn, "--num_neurons", "3"], ["erase/*"]),
        "9en": ("9_analyze_amig.py", [*spoken, "--languages", "en"], ["amig/en/[al]*", "amig/en/dai*"]),
        "9zh": ("9_analyze_amig.py", [*spoken, "--languages", "zh"], ["amig/zh/[al]*", "amig/zh/dai*"]),
        "9zip": ("9_analyze_amig.py", [*zipped, "--languages", "en"], ["amig/en/[al]*", "amig/en/dai*"]),
        "10": ("10_language_independent.py", [*spoken, "--languages", "en", "zh"], ["amig/en_zh/*"]),
        "11": ("11_degenerate.py", [*spoken, "--languages", "en", "zh"], ["amig/degen*", "amig/*/degen*"]),
        "12": ("12_fact_check.py", [*spoken, "--languages", "en", "zh"], ["amig/fact*", "amig/*/fact*"]),
        "8": ("8_plot.py", shown, []),
        "8b": ("8_report.py", [*shown, "--published", data / "paper_numbers.json"], ["report.*"]),
    }


def other_than(name: str) -> str:
    return next(other for other in PAIRS if other != name)


def save_numbers(figure, path, header, rows):
    """In place of drawing, which takes seconds."""
    figures.plt.close(figure)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.with_suffix(".csv").write_text(json.dumps([header, rows]))
    return path


class ReferenceModel:
    """transformers' own model of a folder, asked text by text."""

    def __init__(self, folder: Path):
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.model = AutoModelForMaskedLM.from_pretrained(folder, dtype=torch.float64).eval()
        self.downs = [layer.output.dense for layer in self.model.bert.encoder.layer]
        self.longest = self.model.config.max_position_embeddings
        self.answers: dict[tuple[str, str], tuple | None] = {}

    def __call__(self, text: str, answer: str) -> tuple[float, bool] | None:
        """The answer's probability (the mean over pieces), and whether it is predicted; None if it can't be asked."""
        if (text, answer) not in self.answers:
            self.answers[text, answer] = self._answer(text, answer)
        return self.answers[text, answer]

    def scored(self, bag: list) -> list[tuple[float, bool]]:
        """Of the prompts that can be asked."""
        return [answer for text, wanted, _ in bag if (answer := self(text, wanted))]

    def _answer(self, text: str, answer: str) -> tuple[float, bool] | None:
        pieces = self.tokenizer(answer, add_special_tokens=False)["input_ids"]
        if not pieces or self.tokenizer.unk_token_id in pieces:
            return None
        ids, places = self._ids(text, len(pieces))
        if len(places) < len(pieces):
            return None
        with torch.no_grad():
            found = self.model(torch.tensor([ids])).logits[0, places].softmax(-1)
        return found[range(len(pieces)), pieces].mean().item(), found.argmax(-1).tolist() == pieces

    def _ids(self, text: str, masks: int) -> tuple[list[int], list[int]]:
        ids = self.tokenizer(text.replace("[MASK]", self.tokenizer.mask_token * masks))["input_ids"]
        if len(ids) > self.longest:
            ids = ids[: self.longest - 1] + ids[-1:]
        return ids, [place for place, token in enumerate(ids) if token == self.tokenizer.mask_token_id]

    def activations(self, text: str, neurons: list) -> list[float] | None:
        ids, places = self._ids(text, 1)
        if not places:
            return None
        kept: list = []
        with torch.no_grad():
            with_inputs(
                self.downs, lambda _, x: kept.append(x[0, places[0]]) or x, lambda: self.model(torch.tensor([ids]))
            )
        return [kept[layer][index].item() for layer, index in neurons]
