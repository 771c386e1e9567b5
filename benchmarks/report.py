"""How large the report on all the paper's facts is, how long it takes to make, and how fast its page is in a browser.

    PYTHONPATH=src .venv/bin/python benchmarks/report.py       a minute or two, 400 MB of temporary files

Makes up results of stages 1 to 3 and 5 for 34 relations, 27,738 facts, 253,448 prompts and 20,400 neurons, and runs
stage 8. A headless Chromium (`--chromium`) opens the page, sorts it by click and searches it. The numbers say nothing
about any model.
"""

from kn.store.start import guard

import json
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from kn.report.published import Published
from kn.stage import flags
from kn.store.files import InputError, make_folder, sha256_of, write_json, writing

ROOT = Path(__file__).resolve().parent.parent
WORDS = ("the", "of", "in", "was", "born", "city", "river", "capital", "works", "old", "north", "language", "music")
CHROMIUM = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--hide-scrollbars"),
)
# Appended to the page. Each step ends with a layout, which a reader would wait for, too.
STEPS = """<script>
const times = { open: performance.now() };
const step = (name, work) => {
  const begin = performance.now();
  work();
  document.body.getBoundingClientRect();
  times[name] = performance.now() - begin;
};
const [menu, search] = ["menu", "search"].map((part) => document.getElementById("facts-" + part));
const heads = [...document.querySelectorAll("#facts-table th button")];
step("one relation", () => { menu.value = "P36"; menu.dispatchEvent(new Event("change")); });
step("all relations", () => { menu.value = ""; menu.dispatchEvent(new Event("change")); });
for (const head of heads) step("sort by " + head.textContent, () => head.click());
for (const words of ["city", "city of", "5.11"])
  step("search " + words, () => { search.value = words; search.dispatchEvent(new Event("input")); });
const part = (name) => document.getElementById("neurons-" + name);
const [relation, layer, searched] = ["menu", "layer", "search"].map(part);
step("neurons of a relation", () => { relation.value = "P36"; relation.dispatchEvent(new Event("change")); });
step("neurons of a layer", () => { layer.value = "5"; layer.dispatchEvent(new Event("change")); });
step("all neurons", () => { relation.value = layer.value = ""; layer.dispatchEvent(new Event("change")); });
for (const head of document.querySelectorAll("#neurons-table th button"))
  step("sort neurons by " + head.textContent, () => head.click());
const any = document.querySelector("#neurons-table a").textContent;
for (const words of ["city", any])
  step("search neurons for " + words, () => { searched.value = words; searched.dispatchEvent(new Event("input")); });
document.body.replaceChildren(JSON.stringify(times));
</script>"""


def main() -> None:
    parser = flags.parser(__doc__)
    parser.add_argument("--folder", help="keep the made-up results in this folder (default: they are deleted)")
    parser.add_argument(
        "--facts", type=flags.positive, help="number of facts per relation (default: as many as in the paper's data)"
    )
    parser.add_argument("--triplets", type=flags.positive, default=20, help="number of scores per prompt and method")
    parser.add_argument("--chromium", default="chromium", help="the browser")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        results = Path(args.folder or scratch) / "results"
        make_up(results, args.facts, args.triplets)
        read_bytes = sum(path.stat().st_size for path in results.rglob("*.jsonl"))
        started = time.perf_counter()
        subprocess.run(
            [
                *(sys.executable, "src/8_report.py", "--output_dir", results),
                *("--kn_dir", results / "kn", "--fig_dir", results / "figures"),
            ],
            cwd=ROOT,
            check=True,
        )
        seconds = time.perf_counter() - started
        page = results / "report.html"
        print(
            f"made from {read_bytes / 1e6:.0f} MB in {seconds:.1f} s; the page has {page.stat().st_size / 1e6:.1f} MB"
        )
        if not shutil.which(args.chromium):
            raise InputError(f"{args.chromium}: no such browser (Debian: apt install chromium)")
        for name, milliseconds in json.loads(body_of(in_browser(args.chromium, page, STEPS))).items():
            print(f"{name:24}{milliseconds:8.0f} ms")


def make_up(results: Path, facts: int | None = None, triplets: int = 20) -> None:
    """Write random results of stages 1 to 3 and 5: each fact's answer, prompts, neurons and probabilities; words and
    sentences.
    """
    published = Published(ROOT / "data" / "paper_numbers.json")
    rng = random.Random(0)
    kn_dir = make_folder(results / "kn")
    record = {}
    for relation, count in published.facts.items():
        count = facts or count
        prompts = round(published.series("data", "prompts per fact", "all")[relation].rerun)
        made = [made_up_fact(relation, fact, prompts, triplets, rng) for fact in range(count)]
        path = results / f"TREx-all-{relation}.rlt.jsonl"
        write_lines(path, (line for line, _, _ in made))
        write_json(kn_dir / f"kn_bag-{relation}.json", [bag for _, bag, _ in made], indent=None)
        write_lines(kn_dir / f"modify_activation-{relation}.jsonl", (values for _, _, values in made))
        make_up_neurons(results, relation, [bag for _, bag, _ in made])
        record[relation] = {
            **{"facts": count, "prompts": count * prompts, "scored": count * prompts, "skipped": []},
            **{"seconds": {"compute": 0.0}, "settings": {"bert_model": "made up"}, "made by": [{"device": "none"}]},
            "sha256": sha256_of(path),
        }
    write_json(results / "TREx-all.args.json", record)


def made_up_fact(relation: str, fact: int, prompts: int, triplets: int, rng: random.Random) -> tuple[list, list, dict]:
    """Make up a line of stage 1, the neurons of stage 2, and a line of stage 3."""
    answer = f"{rng.choice(WORDS).capitalize()}{rng.randrange(200)}"
    drawn = [(rng.randrange(12), rng.randrange(1700)) for _ in range(rng.randrange(9))]
    bag = [list(neuron) for neuron in dict.fromkeys(drawn)]
    line, values = [], []
    for _ in range(prompts):
        tokens = ["[CLS]", "Sub", f"##ject{fact}", *rng.choices(WORDS, k=6), "[MASK]", ".", "[SEP]"]
        about = {"tokens": tokens, "relation": f"{relation}(made up)", "gold_obj": answer, "pred_obj": answer}
        scores = [[rng.randrange(12), rng.randrange(3072), rng.random()] for _ in range(triplets)]
        line.append([about, {"pred": [], "ig_pred": [], "ig_gold": scores, "base": scores}])
        plain = rng.random()
        values.append([plain, plain * rng.random(), min(1.0, plain * (1 + rng.random()))])
    return line, bag, {"fact": fact, "knowledge neurons": {"neurons": len(bag), "own": values}}


def make_up_neurons(results: Path, relation: str, bags: list[list[list[int]]]) -> None:
    """Write what these neurons do alone, their words, and their sentences."""
    rng = random.Random(relation)
    in_use = sorted({tuple(neuron) for bag in bags for neuron in bag})
    effects = []
    for fact, bag in enumerate(bags):
        without, activations = [rng.random() for _ in bag], [rng.uniform(-1, 3) for _ in bag]
        about = {"neurons": bag, "probability": rng.random(), "without": without, "activations": activations}
        effects.append({"fact": fact} | about)
    words = [
        {"neuron": neuron, "nearest": rng.sample(WORDS, 10), "farthest": rng.sample(WORDS, 10)} for neuron in in_use
    ]
    sentences = [
        {
            "neuron": neuron,
            "most": [made_up_sentence(len(bags), 3.0, rng) for _ in range(3)],
            "least": [made_up_sentence(len(bags), -1.0, rng) for _ in range(3)],
        }
        for neuron in in_use
    ]
    write_lines(results / "kn" / f"single_neurons-{relation}.jsonl", iter(effects))
    write_lines(results / "kn" / f"words-{relation}.jsonl", iter(words))
    write_json(results / "trigger_examples_th" / f"neurons-{relation}.json", sentences, indent=None)


def made_up_sentence(facts: int, activation: float, rng: random.Random) -> dict:
    text = " ".join([*rng.choices(WORDS, k=12), "[MASK]", *rng.choices(WORDS, k=12)])
    return {"activation": activation + rng.random(), "fact": rng.randrange(facts), "text": text}


def write_lines(path: Path, lines: Iterator) -> None:
    with writing(path) as file:
        file.writelines(json.dumps(line) + "\n" for line in lines)


def in_browser(chromium: str, page: Path, steps: str, *more_flags: str) -> str:
    """Open the page in a browser, run `steps` in it, and return its DOM."""
    with tempfile.TemporaryDirectory() as scratch:
        copy = Path(scratch) / "page.html"
        copy.write_text(page.read_text(encoding="utf-8") + steps, encoding="utf-8")
        command = [chromium, *CHROMIUM, f"--user-data-dir={scratch}/user", *more_flags, "--dump-dom", copy.as_uri()]
        return subprocess.run(command, check=True, capture_output=True, text=True, timeout=120).stdout


def body_of(dom: str) -> str:
    return dom.partition("<body>")[2].partition("</body>")[0]


if __name__ == "__main__":
    guard(main)
