"""Stage 1 on all relations from start to end, in several precisions: how fast it is, and where the time goes.

    PYTHONPATH=src .venv/bin/python benchmarks/full_run.py                 everything, on a GPU
    PYTHONPATH=src .venv/bin/python benchmarks/full_run.py --debug 2       2 facts of each relation, for a CPU

Runs `src/1_analyze_mlm.py` as a user would, once for each precision. It uses a BERT-base with random weights and
made-up facts, as many as the real ones, with prompts of the same lengths; or your own model (--bert_model) on the real
facts. Then it runs stage 2, and reports the share of facts whose neurons differ from those of the first precision.
Random weights know no facts, so name a model if you want to know what precision costs. With random weights, stage 1
also keeps far more neurons than with a trained model, so "text" and "MB" are too high.

The seconds of the parts are sums over all processes and lanes: on a GPU, tokenising and making text overlap with
computing.
"""

from kn.store.start import guard

import argparse
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import torch
from transformers import BertConfig, BertForMaskedLM, BertTokenizer

from attribution import fastest_product
from kn.data.facts import MASK, read_bags
from kn.methods.quadrature import ladder
from kn.model import devices, loading
from kn.model.adapters import Adapter
from kn.stage import flags
from kn.store import runs
from kn.store.files import InputError, read_json, read_jsonl, write_json
from measuring import operations

SRC = Path(__file__).resolve().parent.parent / "src"
ENVIRONMENT = os.environ | {"PYTHONPATH": str(SRC)}
POINTS = 20
WORDS = 28_000
# The made-up facts are as many as the real ones.
RELATIONS, FACTS, PROMPTS = 34, 27_738, 253_448
# The number of prompts by length in word pieces, with the special ones, in the real data with a vocabulary of 8,401.
LENGTHS = {
    **{6: 66, 7: 1452, 8: 4948, 9: 21689, 10: 33419, 11: 38115, 12: 42532, 13: 36893, 14: 28497, 15: 19020},
    **{16: 11467, 17: 6760, 18: 3730, 19: 2098, 20: 1165, 21: 678, 22: 367, 23: 222, 24: 119, 25: 67, 26: 50},
    **{27: 37, 28: 12, 29: 8, 30: 4, 31: 11, 32: 6, 33: 9, 34: 5, 35: 1, 36: 1},
}
COLUMNS = ("prompts", "s", "prompts/s", "of peak", "start, s", "tokenise", "compute", "text", "MB", "facts differ")


def parse() -> argparse.Namespace:
    parser = flags.parser(__doc__)
    parser.add_argument(
        "--bert_model",
        help="a folder or a name on the hub (default: a BERT-base with random weights, and made-up facts)",
    )
    parser.add_argument("--data_path", default="data/PARAREL/data_all.json", help="the facts for your own model")
    parser.add_argument("--device", type=flags.device, default="auto", help="auto, cpu, cuda or cuda:N")
    parser.add_argument("--debug", type=int, default=-1, metavar="N", help="use only N facts of each relation; -1: all")
    parser.add_argument(
        "--dtypes", nargs="+", help="the precisions to run (default: those of the device, float32 first)"
    )
    return parser.parse_args()


def main() -> None:
    args = parse()
    device = devices.choose(args.device)
    dtypes = args.dtypes or ["float32", *(["tf32"] if device.type == "cuda" else []), "bfloat16"]
    print(f"{runs.provenance(device)}\n")
    with tempfile.TemporaryDirectory() as folder:
        scratch, data = Path(folder), Path(args.data_path)
        if args.bert_model and not data.exists():
            raise InputError(f"{data}: no such file: your own model needs the real data (bash 0_get_data.sh)")
        model = args.bert_model or make_model(scratch / "model")
        if not args.bert_model:
            data = make_facts(scratch / "data_all.json")
        print(f"{'':10}" + "".join(f"{column:>13}" for column in COLUMNS))
        rates, reference, first = {}, {}, next(iter(read_bags(data)))
        for dtype in dtypes:
            start, one_fact = stage_1(scratch / f"start-{dtype}", model, data, device, dtype, 1, "--pt_relation", first)
            start -= sum(one_fact[0]["seconds"].values())
            seconds, relations = stage_1(scratch / dtype, model, data, device, dtype, args.debug)
            bags = neurons_by_fact(scratch / dtype)
            reference = reference or bags
            prompts = sum(relation["scored"] for relation in relations)
            parts = sum((Counter(relation["seconds"]) for relation in relations), Counter())
            share = total_operations(scratch / dtype, model) / (seconds - start) / peak(model, device, dtype)
            size = sum(path.stat().st_size for path in (scratch / dtype).glob("*.jsonl")) / 1e6
            different = sum(neurons != reference[fact] for fact, neurons in bags.items()) / len(bags)
            rates[dtype] = start, (seconds - start) / prompts
            print(
                f"{dtype:10}{prompts:13,}{seconds:13.0f}{prompts / (seconds - start):13.1f}{share:13.0%}{start:13.1f}"
                + "".join(f"{parts[part]:13.1f}" for part in ("tokenise", "compute", "text"))
                + f"{size:13.0f}{different:13.1%}"
            )
    print(f"\nAll {PROMPTS:,} prompts, projected, in minutes:")
    for dtype, (start, per_prompt) in rates.items():
        minutes = ", ".join(f"{(start + PROMPTS * per_prompt / gpus) / 60:.1f} on {gpus}" for gpus in (1, 2, 4, 8))
        print(f"{dtype:10}{minutes} {'GPUs' if device.type == 'cuda' else 'machines like this'}")


def make_model(folder: Path) -> Path:
    """Make a BERT-base with random weights, and a vocabulary of made-up words."""
    folder.mkdir()
    torch.manual_seed(0)
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"w{number}" for number in range(WORDS))]
    (folder / "vocab.txt").write_text("\n".join(vocabulary))
    BertTokenizer(str(folder / "vocab.txt"), do_lower_case=False).save_pretrained(folder)
    BertForMaskedLM(BertConfig(vocab_size=len(vocabulary))).save_pretrained(folder)
    return folder


def make_facts(path: Path) -> Path:
    rng = random.Random(0)
    lengths = rng.choices(list(LENGTHS), list(LENGTHS.values()), k=PROMPTS)
    bags = []
    for fact in range(FACTS):
        relation = f"P{fact * RELATIONS // FACTS + 1}"
        answer = f"w{rng.randrange(WORDS)}"
        bag = []
        for _ in range(PROMPTS // FACTS + (fact < PROMPTS % FACTS)):
            words = [f"w{rng.randrange(WORDS)}" for _ in range(lengths.pop() - 2)]
            words[rng.randrange(len(words))] = MASK
            bag.append([" ".join(words), answer, f"{relation}(made up)"])
        bags.append(bag)
    write_json(path, bags, indent=None)
    return path


def stage_1(
    results: Path, model: str | Path, data: Path, device: torch.device, dtype: str, facts: int, *more_flags: str
) -> tuple[float, list[dict]]:
    """Run stage 1 with this many facts of each relation. Returns its seconds from start to end, and its records."""
    command = [
        *(sys.executable, SRC / "1_analyze_mlm.py", "--bert_model", model, "--data_path", data),
        *("--output_dir", results, "--device", device, "--dtype", dtype, "--debug", facts),
        *("--get_ig_gold", "--get_base", *more_flags),
    ]
    started = time.perf_counter()
    subprocess.run(list(map(str, command)), env=ENVIRONMENT, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started, list(read_json(results / "TREx-all.args.json").values())


def neurons_by_fact(results: Path) -> dict[tuple[str, int], list[tuple[int, int]]]:
    """Run stage 2. Returns the neurons of each fact, by the name of its file and its number there."""
    command = [sys.executable, SRC / "2_get_kn.py", "--output_dir", results, "--kn_dir", results / "kn"]
    subprocess.run(list(map(str, command)), env=ENVIRONMENT, check=True, stdout=subprocess.DEVNULL)
    return {
        (path.name, fact): sorted(map(tuple, bag))
        for path in sorted((results / "kn").glob("kn_bag-*.json"))
        for fact, bag in enumerate(read_json(path))
    }


def total_operations(results: Path, model: str | Path) -> float:
    """The operations in the matrix products of all scored prompts, without those for more points."""
    adapter = load(model, "float32", torch.device("cpu"))
    (rule, *_) = ladder("riemann", POINTS)
    lengths = Counter(
        len(about["tokens"])
        for path in results.glob("*.jsonl")
        for fact in read_jsonl(path)
        for about, scores in fact
        if "skipped" not in scores
    )
    return sum(count * operations(adapter, length, rule) for length, count in lengths.items())


def peak(model: str | Path, device: torch.device, dtype: str) -> float:
    return fastest_product(load(model, dtype, device))


def load(model: str | Path, dtype: str, device: torch.device) -> Adapter:
    return loading.adapt(loading.load(str(model), None, dtype, device)[1])


if __name__ == "__main__":
    guard(main)
