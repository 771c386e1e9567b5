"""The report's page: it needs no other file, contains every fact, and works in a real browser."""

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
from reports import change_json, close, make_golden_report, read_lines, report, write

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
VOID = {"meta", "img", "input", "br"}  # tags without an end tag


@pytest.fixture(scope="module")
def bench():
    """The module benchmarks/report.py, which makes up results and opens pages in a browser."""
    spec = importlib.util.spec_from_file_location("benchmark_of_report", ROOT / "benchmarks" / "report.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def golden_report(tmp_path_factory):
    return make_golden_report(tmp_path_factory.mktemp("golden") / "results")


class Page(HTMLParser):
    """Parses a page: its tags must close in order; collects references to other files, and scripts."""

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


def test_the_page_is_well_formed_and_refers_to_no_other_file(golden_report):
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
    (tmp_path / "TREx-all.args.json").unlink()  # its checksum would give the change away
    report(tmp_path)
    page = Page((tmp_path / "report.html").read_text())
    assert json.loads(page.scripts[0])["relations"]["P19"]["label"] == evil


def test_the_table_of_facts_shows_what_the_result_files_contain(tmp_path, bench):
    bench.make_up(tmp_path, 5, 2)
    for relation, entry in facts_of(tmp_path, tmp_path / "kn", "TREx-all").items():
        lines = read_lines(tmp_path / "kn" / f"modify_activation-{relation}.jsonl")
        facts = read_lines(tmp_path / f"TREx-all-{relation}.rlt.jsonl")
        bags = read(tmp_path / "kn" / f"kn_bag-{relation}.json")
        for fact, line, prompts, bag in zip(entry["facts"], lines, facts, bags, strict=True):
            shown = dict(zip(COLUMNS, fact, strict=True))
            own = line["knowledge neurons"]["own"]
            plain, suppressed, amplified = (mean(prompt[column] for prompt in own) for column in range(3))
            assert shown["answer"] == prompts[0][0]["gold_obj"]
            assert shown["neurons"] == [number for neuron in bag for number in neuron]
            assert (shown["right"], shown["prompts"]) == (len(prompts), len(prompts))
            assert shown["probability"] == close(plain)
            assert shown["suppressed"] == close(suppressed / plain - 1)
            assert shown["amplified"] == close(amplified / plain - 1)
            ordered = sorted(zip(own, prompts, strict=True), key=lambda pair: pair[0][0])
            for name, (values, (about, _)) in (("worst", ordered[0]), ("best", ordered[-1])):
                text = " ".join(about["tokens"][1:-1]).replace(" ##", "").replace(" .", ".")
                assert shown[name] == text and shown[f"{name} probability"] == close(values[0])


def test_prompts_that_stage_1_skipped_are_left_out(tmp_path, bench):
    bench.make_up(tmp_path, 3, 2)
    path = tmp_path / "kn" / "modify_activation-P19.jsonl"
    lines = read_lines(path)
    lines[1]["knowledge neurons"]["own"] = lines[1]["knowledge neurons"]["own"][1:]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    done = report(tmp_path, check=False)
    assert (
        done.returncode == 1 and "modify_activation-P19.jsonl, fact 1: has 12 prompts, stage 1 scored 13" in done.stderr
    )
    skipped = [{"fact": 1, "prompt": 0, "answer": "x", "reason": "y"}]
    change_json(tmp_path / "TREx-all.args.json", lambda record: record["P19"].update(skipped=skipped))
    fact = facts_of(tmp_path, tmp_path / "kn", "TREx-all")["P19"]["facts"][1]
    assert fact[COLUMNS.index("prompts")] == 12


@pytest.mark.parametrize(
    ("line", "expected"),
    [('{"fact": 1}', "expected a list of [prompt, scores]"), ('[[{"tokens": ["a"', "not valid JSON")],
)
def test_an_unreadable_result_is_named_with_its_line(tmp_path, line, expected):
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
def test_prompts_are_put_together_from_the_tokens_of_any_tokenizer(tmp_path, tokens, text):
    about = {"tokens": tokens, "relation": "P1(x)", "gold_obj": "a", "pred_obj": "b"}
    write(tmp_path / "TREx-all-P1.rlt.jsonl", [[about, {"ig_gold": [], "base": []}]])
    own = {"fact": 0, "knowledge neurons": {"own": [[0.5, 0.25, 1.0]]}}
    write(tmp_path / "kn" / "modify_activation-P1.jsonl", own)
    (fact,) = facts_of(tmp_path, tmp_path / "kn", "TREx-all")["P1"]["facts"]
    assert dict(zip(COLUMNS, fact, strict=True))["best"] == text


# ---- in a browser ----


VISIT = """<script>
const seen = {};
const record = (name) => {
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
record("opened");
set("relation", "P36", "change"); record("one relation");
heads[5].click(); record("ascending");
heads[5].click(); record("descending");
heads[2].click(); record("by answer");
set("relation", "", "change"); record("all");
document.getElementById("more").click(); record("more");
set("filter", "%s", "input"); record("filtered");
set("filter", "no such text", "input"); record("no match");
document.body.replaceChildren(JSON.stringify(seen));
</script>"""


@pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")
def test_selecting_sorting_and_filtering_facts_in_chromium(tmp_path, bench):
    bench.make_up(tmp_path, 12, 2)
    report(tmp_path)
    relations = facts_of(tmp_path, tmp_path / "kn", "TREx-all")
    facts = [fact for entry in relations.values() for fact in entry["facts"]]
    answer = facts[17][0]
    dom = bench.in_browser(CHROMIUM, tmp_path / "report.html", VISIT % answer)
    seen = json.loads(bench.body_of(dom).replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&"))

    first = next(iter(relations))
    assert [row[2] for row in seen["opened"]["rows"]] == [fact[0] for fact in relations[first]["facts"]]
    own = relations["P36"]["facts"]
    assert {row[0] for row in seen["one relation"]["rows"]} == {"P36"} and seen["one relation"]["count"] == "12 facts"
    for row, fact in zip(seen["one relation"]["rows"], own, strict=True):
        neurons = fact[COLUMNS.index("neurons")]
        names = [f"{layer}.{index}" for layer, index in zip(neurons[::2], neurons[1::2], strict=True)]
        assert row[8] == (" ".join(names) or "-")
        assert row[7] == str(len(neurons) // 2) and row[9].startswith(fact[COLUMNS.index("best")])
        assert float(row[3]) == pytest.approx(fact[COLUMNS.index("probability")], abs=6e-4)
    by_effect = sorted(range(12), key=lambda number: own[number][COLUMNS.index("suppressed")])
    assert [int(row[1]) for row in seen["ascending"]["rows"]] == by_effect
    assert [int(row[1]) for row in seen["descending"]["rows"]] == by_effect[::-1]
    assert seen["ascending"]["sorted"][5] == "ascending" and seen["descending"]["sorted"][5] == "descending"
    assert [row[2] for row in seen["by answer"]["rows"]] == sorted(fact[0] for fact in own)
    assert seen["by answer"]["sorted"][5] is None
    assert seen["all"]["count"] == f"{len(facts)} facts"
    assert len(seen["all"]["rows"]) == 100 and len(seen["more"]["rows"]) == 200
    assert seen["all"]["rows"] == seen["more"]["rows"][:100]
    expected = [fact for fact in facts if answer.lower() in f"{fact[0]} ".lower()]
    assert [row[2] for row in seen["filtered"]["rows"]] == sorted(fact[0] for fact in expected)
    assert seen["no match"]["rows"] == [] and seen["no match"]["count"] == "0 facts"


@pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")
def test_the_tables_can_be_read_without_javascript(golden_report, bench):
    text = (golden_report / "report.html").read_text()
    assert text.index("</table>") < text.index("<noscript>") < text.index("<script")
    dom = bench.in_browser(CHROMIUM, golden_report / "report.html", "")
    assert "Suppressing neurons" in dom and not re.search('id="browser" hidden', dom)


def test_the_report_is_made_without_torch():
    program = "import sys, kn.report.page, kn.report.sections; print('torch' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program], env=os.environ | {"PYTHONPATH": "src"}, cwd=ROOT, capture_output=True
    )
    assert done.stdout.split() == [b"False"], done.stderr
