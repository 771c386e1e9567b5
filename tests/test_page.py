"""The report's page: it needs no other file, contains every fact, and works in a real browser."""

import html
import json
import os
import re
import shutil
import subprocess
import sys
from functools import partial
from html.parser import HTMLParser
from statistics import mean

import pytest

from conftest import ROOT, read
from kn.report.browser import COLUMNS, facts_of
from reports import change_json, make_golden_report, number, read_lines, report, write

close = partial(pytest.approx, rel=1e-3)  # the page has four digits
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
VOID = {"meta", "img", "input"}  # tags without an end tag


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


def test_the_first_screen_has_the_main_numbers_with_their_controls(golden_report):
    text = (golden_report / "report.html").read_text()
    cards = dict(re.findall(r'<article class="card"><h3>(.*?)</h3>(.*?)</article>', text))
    averages = read(golden_report / "kn" / "modify_activation_rlt.json").values()
    change = 100 * mean(measures["rm_own:ave_delta_ratio"] for measures in averages)
    card = html.unescape(cards["Suppressing a fact&#x27;s neurons"])
    assert re.search(r'class="big">(.*?) %', card)[1] == f"\N{MINUS SIGN}{abs(change):.1f}" and change < 0
    assert "\N{MINUS SIGN}29.03 %" in card and ">baseline</th>" in card
    assert text.index("</article>") < text.index("<figure") < text.index('class="sortable') < text.index("facts-table")
    assert "Neurons of a fact and Layers: <code>bash 2_run_kn.sh</code>" in text and "<main" in text and "<nav" in text


def test_figures_and_tables_say_what_they_are(golden_report):
    text = (golden_report / "report.html").read_text()
    figures = re.findall(r"<figure.*?</figure>", text)
    assert len(figures) == 3
    for figure in figures:
        (alt,) = re.findall('alt="(.*?)"', figure)
        assert alt.count(". ") >= 1 and ".png" not in alt
        assert re.search("<figcaption><strong>.+</strong> .*[0-9]", figure)
    tables = re.findall(r'<table class="sortable.*?</table>', text, re.DOTALL)
    assert tables and all("<caption" in table for table in tables)
    assert not re.findall(r"<th(?! scope=)", "".join(tables).replace("<thead", ""))


def test_text_that_looks_like_html_stays_text(tmp_path, bench):
    bench.make_up(tmp_path, 2, 2)
    evil = "</script><b>&\"'"
    path = tmp_path / "TREx-all-P19.rlt.jsonl"
    path.write_text(path.read_text().replace("P19(made up)", evil.replace('"', '\\"')))
    (tmp_path / "TREx-all.args.json").unlink()  # its checksum would give the change away
    report(tmp_path)
    page = Page((tmp_path / "report.html").read_text())
    assert json.loads(page.scripts[0])["relations"]["P19"]["label"] == f"P19 {evil}"


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
const byId = (id) => document.getElementById(id);
const record = (name) => {
  const rows = [...document.querySelectorAll("#facts-table tbody tr")];
  seen[name] = {
    rows: rows.map((row) => [...row.cells].map((cell) => cell.textContent.trim())),
    count: byId("facts-count").textContent,
    none: byId("facts-none").hidden ? "" : byId("facts-none").textContent,
    sorted: [...document.querySelectorAll("#facts-table th")].map((head) => head.getAttribute("aria-sort")),
  };
};
const set = (name, value, event) => {
  byId(name).value = value;
  byId(name).dispatchEvent(new Event(event));
};
const heads = [...document.querySelectorAll("#facts-table th button")];
record("opened");
byId("facts-more").click(); record("more");
set("facts-menu", "P36", "change"); record("one relation");
heads[5].click(); record("ascending");
heads[5].click(); record("descending");
heads[2].click(); record("by answer");
set("facts-menu", "", "change");
set("facts-search", "%(answer)s", "input"); record("answer");
set("facts-search", "%(neuron)s", "input"); record("neuron");
set("facts-search", "%(start)s", "input"); record("start of a neuron");
set("facts-search", "no such text", "input"); record("no match");
location.hash = "#facts=%(neuron)s";
window.addEventListener("hashchange", () => { record("link"); finish(); });
const finish = () => document.body.replaceChildren(JSON.stringify(seen));
</script>"""


@pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")
def test_selecting_sorting_and_searching_facts_in_chromium(tmp_path, bench):
    bench.make_up(tmp_path, 12, 2)
    path = tmp_path / "TREx-all-P19.rlt.jsonl"
    bags = read(tmp_path / "kn" / "kn_bag-P36.json")
    neuron = next(name for bag in bags for name in map("{0[0]}.{0[1]}".format, bag) if len(name) > 5)
    path.write_text(path.read_text().replace('"gold_obj": "', f'"gold_obj": "{neuron} ', 1))  # a text with its name
    (tmp_path / "TREx-all.args.json").unlink()  # its checksum would give the change away
    report(tmp_path)
    relations = facts_of(tmp_path, tmp_path / "kn", "TREx-all")
    facts = [dict(zip(COLUMNS, fact, strict=True)) for entry in relations.values() for fact in entry["facts"]]
    neurons = [list(map("{}.{}".format, fact["neurons"][::2], fact["neurons"][1::2])) for fact in facts]
    answer = facts[17]["answer"]
    words = {"answer": answer, "neuron": neuron, "start": neuron[:-1]}
    dom = bench.in_browser(CHROMIUM, tmp_path / "report.html", VISIT % words, "--virtual-time-budget=2000")
    seen = json.loads(html.unescape(bench.body_of(dom)))

    assert seen["opened"]["count"] == f"{len(facts)} facts"
    assert len(seen["opened"]["rows"]) == 100 and len(seen["more"]["rows"]) == 200
    assert [row[2] for row in seen["more"]["rows"]] == [fact["answer"] for fact in facts[:200]]
    assert seen["opened"]["rows"] == seen["more"]["rows"][:100]
    own = [dict(zip(COLUMNS, fact, strict=True)) for fact in relations["P36"]["facts"]]
    assert seen["one relation"]["count"] == "12 facts"
    for row, fact in zip(seen["one relation"]["rows"], own, strict=True):
        assert row[0] == "P36 made up" and row[9].startswith(fact["best"])
        assert row[8] == " ".join(map("{}.{}".format, fact["neurons"][::2], fact["neurons"][1::2]))
        assert row[7] == str(len(fact["neurons"]) // 2)
        assert float(row[3]) == pytest.approx(fact["probability"], abs=6e-4)
    by_effect = sorted(range(12), key=lambda number: own[number]["suppressed"])
    assert [int(row[1]) for row in seen["ascending"]["rows"]] == by_effect
    assert [int(row[1]) for row in seen["descending"]["rows"]] == by_effect[::-1]
    assert seen["ascending"]["sorted"][5] == "ascending" and seen["descending"]["sorted"][5] == "descending"
    natural = sorted((fact["answer"] for fact in own), key=lambda text: (re.sub(r"\d", "", text), len(text), text))
    assert [row[2] for row in seen["by answer"]["rows"]] == natural and seen["by answer"]["sorted"][5] is None
    assert {row[2] for row in seen["answer"]["rows"]} == {f["answer"] for f in facts if answer in f["answer"]}
    # A neuron is found whole, and only as a neuron: 5.11 finds neither 5.111 nor a text with 5.11 in it.
    having = [fact["answer"] for fact, names in zip(facts, neurons, strict=True) if neuron in names]
    assert sorted(row[2] for row in seen["neuron"]["rows"]) == sorted(having)
    assert all(words["start"] in row[8].split() for row in seen["start of a neuron"]["rows"])
    assert seen["link"]["rows"] == seen["neuron"]["rows"]
    assert seen["no match"]["rows"] == [] and seen["no match"]["count"] == "0 facts"
    assert "No facts match “no such text”" in seen["no match"]["none"] and not seen["neuron"]["none"]


SORT = """<script>
const seen = {};
const table = document.querySelector(".comparison");
const texts = () => [...table.tBodies[0].rows].map((row) => row.cells[2].textContent);
const button = table.querySelectorAll("th button")[2];
for (const name of ["once", "twice"]) { button.click(); seen[name] = texts(); }
seen.sorted = button.closest("th").getAttribute("aria-sort");
seen.wide = document.documentElement.scrollWidth;
document.body.replaceChildren(JSON.stringify(seen));
</script>"""


@pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")
def test_tables_are_sorted_by_number_and_fit_a_telephone_in_chromium(golden_report, bench):
    dom = bench.in_browser(CHROMIUM, golden_report / "report.html", SORT, "--window-size=500,900")
    seen = json.loads(html.unescape(bench.body_of(dom)))
    values = [number(re.sub("[^\\d.\N{MINUS SIGN}]", "", text)) for text in seen["once"]]
    assert values[-1] is None and values[:-1] == sorted(values[:-1]) and len(values) == 4  # nothing is last, always
    assert seen["twice"] == [*seen["once"][-2::-1], seen["once"][-1]] and seen["sorted"] == "descending"
    assert seen["wide"] <= 500


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
