"""The page of the report: it stands alone, holds every fact, and works in a real browser."""

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from statistics import mean

import pytest

from conftest import ROOT, read
from kn.report.browser import COLUMNS, facts_of
from reports import change, close, lines_of, report, report_of_golden, write

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
VOID = {"meta", "img", "input", "br"}  # tags that are not closed


@pytest.fixture(scope="module")
def bench():
    """The made-up results and the browser of the benchmark."""
    spec = importlib.util.spec_from_file_location("benchmark_of_report", ROOT / "benchmarks" / "report.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def golden_report(tmp_path_factory):
    return report_of_golden(tmp_path_factory.mktemp("golden") / "results")


class Page(HTMLParser):
    """Tags must close in order; all that names another file is collected."""

    def __init__(self, text):
        super().__init__()
        self.open, self.references, self.scripts = [], [], []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attributes):
        if tag not in VOID:
            self.open.append(tag)
        self.references += [value for name, value in attributes if name in ("src", "href", "srcset", "action", "data")]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open[-1:] == ["script"]:
            self.scripts.append(data)


def test_the_page_is_well_formed_and_refers_to_nothing_outside(golden_report):
    text = (golden_report / "report.html").read_text()
    page = Page(text)
    assert page.references and all(r.startswith(("#", "data:image/png;base64,")) for r in page.references)
    assert not re.search(r"@import|url\(|https?://", text)
    assert sum(r.startswith("data:") for r in page.references) == len(list((golden_report / "figures").glob("*.png")))
    for script in ("fetch(", "XMLHttpRequest", "import("):
        assert script not in text


def test_text_that_looks_like_html_stays_text(tmp_path, bench):
    bench.make_up(tmp_path, 2, 2)
    evil = "</script><b>&\"'"
    path = tmp_path / "TREx-all-P19.rlt.jsonl"
    path.write_text(path.read_text().replace("P19(made up)", evil.replace('"', '\\"')))
    (tmp_path / "TREx-all.args.json").unlink()  # which tells that it was changed
    report(tmp_path)
    page = Page((tmp_path / "report.html").read_text())
    assert json.loads(page.scripts[0])["relations"]["P19"]["label"] == evil


def test_the_browser_of_facts_has_what_the_result_files_have(tmp_path, bench):
    bench.make_up(tmp_path, 5, 2)
    found = facts_of(tmp_path, tmp_path / "kn", "TREx-all")
    for relation, of_relation in found.items():
        lines = lines_of(tmp_path / "kn" / f"modify_activation-{relation}.jsonl")
        facts = lines_of(tmp_path / f"TREx-all-{relation}.rlt.jsonl")
        bags = read(tmp_path / "kn" / f"kn_bag-{relation}.json")
        for fact, line, prompts, bag in zip(of_relation["facts"], lines, facts, bags, strict=True):
            shown = dict(zip(COLUMNS, fact, strict=True))
            own = line["knowledge neurons"]["own"]
            plain, off, double = (mean(column) for column in zip(*own, strict=True))
            assert shown["answer"] == prompts[0][0]["gold_obj"]
            assert shown["neurons"] == [number for neuron in bag for number in neuron]
            assert (shown["right"], shown["prompts"]) == (len(prompts), len(prompts))
            assert shown["probability"] == close(plain)
            assert shown["suppressed"] == close(off / plain - 1) and shown["amplified"] == close(double / plain - 1)
            ordered = sorted(zip(own, prompts, strict=True), key=lambda of: of[0][0])
            for end, (values, (about, _)) in (("worst", ordered[0]), ("best", ordered[-1])):
                words = " ".join(about["tokens"][1:-1]).replace(" ##", "").replace(" .", ".")
                assert shown[end] == words and shown[f"{end} probability"] == close(values[0])


def test_prompts_that_could_not_be_scored_are_passed_over(tmp_path, bench):
    bench.make_up(tmp_path, 3, 2)
    path = tmp_path / "kn" / "modify_activation-P19.jsonl"
    lines = lines_of(path)
    lines[1]["knowledge neurons"]["own"] = lines[1]["knowledge neurons"]["own"][1:]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    done = report(tmp_path, check=False)
    assert (
        done.returncode == 1 and "modify_activation-P19.jsonl, fact 1: has 12 prompts, stage 1 scored 13" in done.stderr
    )
    skipped = [{"fact": 1, "prompt": 0, "answer": "x", "reason": "y"}]
    change(tmp_path / "TREx-all.args.json", lambda record: record["P19"].update(skipped=skipped))
    fact = facts_of(tmp_path, tmp_path / "kn", "TREx-all")["P19"]["facts"][1]
    assert fact[COLUMNS.index("prompts")] == 12


@pytest.mark.parametrize(
    ("line", "expected"),
    [('{"fact": 1}', "expected a list of [prompt, scores]"), ('[[{"tokens": ["a"', "not valid JSON")],
)
def test_results_that_cannot_be_read_are_named(tmp_path, line, expected):
    (tmp_path / "TREx-all-P1.rlt.jsonl").write_text(line + "\n")
    done = report(tmp_path, check=False)
    assert done.returncode == 1 and f"TREx-all-P1.rlt.jsonl, line 1: {expected}" in done.stderr


@pytest.mark.parametrize(
    ("tokens", "text"),
    [
        (["[CLS]", "Ko", "##taba", "is", "[MASK]", ".", "[SEP]"], "Kotaba is [MASK]."),
        (["The", "Ġcapital", "Ġof", "ĠMal", "mÃ¶", "Ġis"], "The capital of Malmö is"),
        (["<s>", "▁The", "▁cap", "ital", "<mask>", "</s>"], "The capital<mask>"),
    ],
)
def test_prompts_are_read_from_the_pieces_of_any_tokenizer(tmp_path, tokens, text):
    about = {"tokens": tokens, "relation": "P1(x)", "gold_obj": "a", "pred_obj": "b"}
    write(tmp_path / "TREx-all-P1.rlt.jsonl", [[about, {"ig_gold": [], "base": []}]])
    own = {"fact": 0, "knowledge neurons": {"own": [[0.5, 0.25, 1.0]]}}
    write(tmp_path / "kn" / "modify_activation-P1.jsonl", own)
    (fact,) = facts_of(tmp_path, tmp_path / "kn", "TREx-all")["P1"]["facts"]
    assert dict(zip(COLUMNS, fact, strict=True))["best"] == text


# ---- in a browser ----


LOOK = """<script>
const seen = {};
const look = (name) => {
  const rows = [...document.querySelectorAll("#facts-table tbody tr")];
  seen[name] = {
    rows: rows.map((row) => [...row.cells].map((cell) => cell.textContent)),
    count: document.getElementById("count").textContent,
    sorted: [...document.querySelectorAll("#facts-table th")].map((head) => head.getAttribute("aria-sort")),
  };
};
const set = (name, value, event) => {
  const element = document.getElementById(name);
  element.value = value;
  element.dispatchEvent(new Event(event));
};
const heads = [...document.querySelectorAll("#facts-table th button")];
look("opened");
set("relation", "P36", "change"); look("chosen");
heads[5].click(); look("up");
heads[5].click(); look("down");
heads[2].click(); look("by answer");
set("relation", "", "change"); look("all");
document.getElementById("more").click(); look("more");
set("filter", "%s", "input"); look("filtered");
set("filter", "no such text", "input"); look("nothing");
document.body.replaceChildren(JSON.stringify(seen));
</script>"""


@pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")
def test_the_page_in_chromium(tmp_path, bench):
    bench.make_up(tmp_path, 12, 2)
    report(tmp_path)
    relations = facts_of(tmp_path, tmp_path / "kn", "TREx-all")
    facts = [fact for of in relations.values() for fact in of["facts"]]
    wanted = facts[17][0]
    dom = bench.in_browser(CHROMIUM, tmp_path / "report.html", LOOK % wanted)
    seen = json.loads(bench.body_of(dom).replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&"))

    first = next(iter(relations))
    assert [row[2] for row in seen["opened"]["rows"]] == [fact[0] for fact in relations[first]["facts"]]
    own = relations["P36"]["facts"]
    assert {row[0] for row in seen["chosen"]["rows"]} == {"P36"} and seen["chosen"]["count"] == "12 facts"
    for name, fact in zip(seen["chosen"]["rows"], own, strict=True):
        neurons = fact[COLUMNS.index("neurons")]
        assert name[8] == (" ".join(f"{a}.{b}" for a, b in zip(neurons[::2], neurons[1::2], strict=True)) or "-")
        assert name[7] == str(len(neurons) // 2) and name[9].startswith(fact[COLUMNS.index("best")])
        assert float(name[3]) == pytest.approx(fact[COLUMNS.index("probability")], abs=6e-4)
    by_effect = sorted(range(12), key=lambda number: own[number][COLUMNS.index("suppressed")])
    assert [int(row[1]) for row in seen["up"]["rows"]] == by_effect
    assert [int(row[1]) for row in seen["down"]["rows"]] == by_effect[::-1]
    assert seen["up"]["sorted"][5] == "ascending" and seen["down"]["sorted"][5] == "descending"
    assert [row[2] for row in seen["by answer"]["rows"]] == sorted(fact[0] for fact in own)
    assert seen["by answer"]["sorted"][5] is None
    assert seen["all"]["count"] == f"{len(facts)} facts"
    assert len(seen["all"]["rows"]) == 100 and len(seen["more"]["rows"]) == 200
    assert seen["all"]["rows"] == seen["more"]["rows"][:100]
    expected = [fact for fact in facts if wanted.lower() in f"{fact[0]} ".lower()]
    assert [row[2] for row in seen["filtered"]["rows"]] == sorted(fact[0] for fact in expected)
    assert seen["nothing"]["rows"] == [] and seen["nothing"]["count"] == "0 facts"


@pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")
def test_without_a_script_the_tables_can_be_read(golden_report, bench):
    text = (golden_report / "report.html").read_text()
    assert text.index("</table>") < text.index("<noscript>") < text.index("<script")
    dom = bench.in_browser(CHROMIUM, golden_report / "report.html", "")
    assert "Suppressing neurons" in dom and not re.search('id="browser" hidden', dom)


def test_the_report_is_made_without_torch():
    seen = "import sys, kn.report.page, kn.report.sections; print('torch' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", seen], env=os.environ | {"PYTHONPATH": "src"}, cwd=ROOT, capture_output=True
    )
    assert done.stdout.split() == [b"False"], done.stderr
