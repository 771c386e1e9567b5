"""The report shows the numbers of the result files next to the published ones; --check compares them."""

import csv
import html
import re
import shutil
from statistics import mean

import pytest

from conftest import GOLDEN, RELATIONS, ROOT, read, run
from kn.report import read_back
from reports import Rounded, change_json, make_golden_report, number, report, rows, write

NUMBERS = read(ROOT / "data" / "paper_numbers.json")
KINDS = ("paper", "rerun")
TITLES = {  # of the sections with these numbers
    "data": "Data",
    "statistics": "Neurons of a fact",
    "layers": "Layers",
    "suppress": "Suppressing neurons",
    "amplify": "Amplifying neurons",
    "distant": "Crawled sentences",
}


@pytest.fixture(scope="module")
def golden_report(tmp_path_factory):
    return make_golden_report(tmp_path_factory.mktemp("golden") / "results")


# ---- numbers ----


@pytest.mark.parametrize(("section", "key"), [("Suppressing neurons", "rm"), ("Amplifying neurons", "eh")])
def test_the_report_shows_the_published_programs_results(golden_report, section, key):
    cells = rows(golden_report)
    names = {"P36": "P36 capital", "P103": "P103 native language", "P101": "P101 field of work"}
    for begin, arm in (("", "knowledge neurons"), ("base_", "baseline")):
        measured = read(GOLDEN / "results" / "kn" / f"{begin}modify_activation_rlt.json")
        for measure, side in (("mean over relations (%)", "own"), ("unrelated facts (%)", "oth")):
            ratios = [100 * averages[f"{key}_{side}:ave_delta_ratio"] for averages in measured.values()]
            assert cells[section, measure, arm]["this run"] == Rounded(mean(ratios))
        for relation in RELATIONS:
            ratio = 100 * measured[f"{begin}kn_bag-{relation}"][f"{key}_own:ave_delta_ratio"]
            assert cells[section, names[relation], arm]["this run"] == Rounded(ratio)


def test_differences_are_shown_where_they_mean_something(golden_report, tmp_path):
    """In a run with the paper's model and data: from the paper's number, or from the rerun's if the paper has none."""
    assert not any("difference" in cells for cells in rows(golden_report).values())  # nobody knows what made it
    papers_run(tmp_path)
    change_json(tmp_path / "kn" / "statistics.json", lambda statistics: statistics["baseline"].update(ODD))
    report(tmp_path)
    cells = rows(tmp_path)
    for measure, value in ODD.items():
        (entry,) = (e for e in NUMBERS["numbers"]["statistics"] if (e["measure"], e["of"]) == (measure, "baseline"))
        known = entry["paper"] if entry.get("paper") is not None else entry["rerun"]
        found = cells["Neurons of a fact", measure, "baseline"]
        assert found["this run"] == Rounded(value) and found["difference"] == Rounded(value - known)
    change_json(tmp_path / "TREx-all.args.json", lambda record: change_settings(record, {"rule": "gauss"}))
    report(tmp_path)
    assert not any("difference" in cells for cells in rows(tmp_path).values())


ODD = {"neurons per fact": 5.678, "shared by facts of two relations": 1.5, "facts without neurons": 1234}


def test_every_published_number_is_shown_and_an_uncertain_one_as_unknown(golden_report, tmp_path):
    papers_run(tmp_path)
    report(tmp_path)
    found = rows(golden_report) | rows(tmp_path)
    for section, title in TITLES.items():
        for entry in NUMBERS["numbers"][section]:
            if "by" in entry:
                continue
            cell = found[title, entry["measure"], entry["of"]]["paper"]
            if entry.get("paper", 0) is None:
                assert cell == "unknown"
            else:
                assert cell == Rounded(entry.get("paper", entry.get("rerun")))
                assert cell.endswith("†") == ("paper" not in entry)


def test_all_numbers_of_the_data_file_have_a_source_and_a_reason():
    for entries in NUMBERS["numbers"].values():
        for entry in entries:
            assert set(entry) & set(KINDS) and entry["reason"] and entry["measure"] and entry["of"]
            assert "tolerance" not in entry or any(entry.get(kind) is not None for kind in KINDS)


def test_the_report_shows_our_own_results(stage1, tmp_path):
    results = tmp_path / "results"
    shutil.copytree(stage1, results)
    run("2_get_kn.py", "--output_dir", results, "--kn_dir", results / "kn")
    run("2_analyze_kn.py", "--kn_dir", results / "kn", "--fig_dir", results / "figures")
    out = report(results, "--check").stdout
    assert "nothing was checked" in out and "another model" in out
    table, statistics = rows(results), read(results / "kn" / "statistics.json")
    for arm, measures in statistics.items():
        for measure in ("neurons per fact", "shared by two facts of one relation", "facts without neurons"):
            assert table["Neurons of a fact", measure, arm]["this run"] == Rounded(measures[measure])
    for name in ("P36 capital", "P101 field of work"):
        value = statistics["knowledge neurons"]["relations"][name.split(" ")[0]]["neurons per fact"]
        assert table["Neurons of a fact", name, "knowledge neurons"]["this run"] == Rounded(value)
    # The report, the figure and the files call a layer by the same number.
    with open(results / "figures" / "kneurons_distribution.csv", newline="") as file:
        _, *drawn = csv.reader(file)
    for arm, column in (("knowledge neurons", 1), ("baseline", 4)):
        shares = statistics[arm]["percent by layer"]
        assert [(row[0], float(row[column])) for row in drawn] == [(str(i), share) for i, share in enumerate(shares)]
        for layer, share in enumerate(shares):
            assert table["Layers", f"layer {layer}", arm]["this run"] == Rounded(share)
    record = read(results / "TREx-all.args.json")
    assert number(table["Data", "prompts", "all"]["this run"]) == sum(entry["prompts"] for entry in record.values())
    text = (results / "report.md").read_text()
    settings = record["P36"]["settings"] | record["P36"]["made by"][0]
    for name in ("bert_model", "rule", "points", "dtype", "torch", "device"):
        (line,) = [line for line in text.splitlines() if line.startswith(f"| {name} |")]
        assert html.unescape(re.sub(r"\\\\(.)", r"\\1", line)) == f"| {name} | {settings[name]} |"
    assert "kneurons_distribution.png" in text
    assert "Erasing relations: `bash 7_run_erase.sh" in text


def test_missing_stages_are_named_with_their_commands_and_an_empty_folder_is_an_error(golden_report, tmp_path):
    text = (golden_report / "report.md").read_text()
    commands = re.findall("^- .*: `bash (.*)`$", text, re.MULTILINE)
    assert {"2_run_kn.sh", "6_run_edit.sh 1 8", "9_run_amig.sh MODEL LANG"} <= set(commands)
    assert not {"3_run_modify_activation.sh", "4_run_distant.sh"} & set(commands)
    assert "no record of what made stage 1" in text
    done = report(tmp_path, check=False)
    assert done.returncode == 1 and "has no results to report" in done.stderr


def test_names_from_the_data_become_neither_html_nor_links(stage1, tmp_path):
    results = tmp_path / "results"
    shutil.copytree(stage1, results)
    name = "<img src=x onerror=alert(1)> ![a](http://x/y) \\\\[b](http://x/y) | c\n<b>"

    def rename(record):
        for entry in record.values():
            entry["settings"]["bert_model"] = name

    change_json(results / "TREx-all.args.json", rename)
    report(results)
    text = (results / "report.md").read_text()
    (line,) = [line for line in text.splitlines() if line.startswith("| bert_model |")]
    (cell,) = re.findall(r"(?:[^|\\]|\\.)+", line.removeprefix("| bert_model |"))[:1]
    assert html.unescape(re.sub(r"\\(.)", r"\1", cell)).strip() == name.replace("\n", " ")
    assert not re.search("<[a-zA-Z/!]", text)
    assert not re.search(
        r"(?<!\\)(?:\\\\)*\[[^]]*\]\(", text
    )  # any link comes from the name: this report has no figures


# ---- --check ----


def change_settings(record, settings):
    for entry in record.values():
        entry["settings"].update(settings)


def papers_run(folder):
    """Write results that have the paper's settings and consist of the published numbers."""
    numbers = NUMBERS["numbers"]
    single, series = {}, {}  # one number per key; a list or dictionary of them
    for name, entries in numbers.items():
        for entry in entries:
            key = name, entry["measure"], entry["of"]
            if "by" in entry:
                series[key] = entry["rerun"]
            else:
                single[key] = entry

    def published(*key):
        entry = single[key]
        return entry["rerun"] if entry.get("paper") is None else entry["paper"]

    settings = {name: values[0] for name, values in NUMBERS["settings"].items() if name != "about"}
    facts, prompts = series["data", "facts", "all"], series["data", "prompts per fact", "all"]
    record = {
        relation: {
            "facts": count,
            "prompts": count * prompts[relation],
            "scored": count * prompts[relation],
            "settings": settings,
            "made by": {"device": "none"},
            "seconds": {"compute": 1.0},
            "skipped": [],
        }
        for relation, count in facts.items()
    }
    write(folder / "TREx-all.args.json", record)
    write(folder / "kn" / "modify_activation.args.json", record)
    write(folder / "kn" / "refining.json", {"settings": settings})
    arms = {"knowledge neurons": "", "baseline": "base_"}
    statistics = {
        arm: {m: published(s, m, of) for s, m, of in single if s == "statistics" and of == arm}
        | {
            "percent by layer": list(series["layers", "share of neurons (%)", arm].values()),
            "relations": {
                relation: {"neurons per fact": value}
                for relation, value in series["statistics", "neurons per fact", "knowledge neurons"].items()
            },
        }
        for arm in arms
    }
    write(folder / "kn" / "statistics.json", statistics)
    for arm, begin in arms.items():
        measured = {}
        for relation in facts:
            averages = measured[f"{begin}kn_bag-{relation}"] = {}
            for key, name in (("rm", "suppress"), ("eh", "amplify")):
                by_relation = series.get((name, "change of probability (%)", arm), {})
                averages[f"{key}_own:ave_delta_ratio"] = (
                    by_relation.get(relation, published(name, "mean over relations (%)", arm)) / 100
                )
                if (name, "unrelated facts (%)", arm) in single:
                    averages[f"{key}_oth:ave_delta_ratio"] = published(name, "unrelated facts (%)", arm) / 100
        write(folder / "kn" / f"{begin}modify_activation_rlt.json", measured)


def test_check_accepts_a_run_with_the_papers_numbers(tmp_path):
    papers_run(tmp_path)
    out = report(tmp_path, "--check").stdout
    counted = int(re.search(r"(\d+) numbers checked, 0 outside", out)[1])
    assert counted > 34 * 4  # 34 relations, each with facts, prompts, neurons, suppressed, amplified
    text = (tmp_path / "report.html").read_text()
    assert text.count(">✓</abbr>") == counted and "✗" not in text and "tolerance 0.05" in text


@pytest.mark.parametrize(("factor", "status"), [(0.9, 0), (1.1, 1), (-0.9, 0), (-1.1, 1)])
def test_check_fails_only_outside_the_tolerance(tmp_path, factor, status):
    papers_run(tmp_path)
    (entry,) = [
        entry
        for entry in NUMBERS["numbers"]["statistics"]
        if (entry["measure"], entry["of"]) == ("neurons per fact", "baseline")
    ]
    value = entry["paper"] + factor * entry["tolerance"]
    path = tmp_path / "kn" / "statistics.json"
    change_json(path, lambda statistics: statistics["baseline"].update({"neurons per fact": value}))
    done = report(tmp_path, "--check", check=False)
    assert done.returncode == status
    assert (f"tolerance {entry['tolerance']} ({entry['reason']})" in done.stdout) == bool(status)


def test_check_says_that_nothing_was_checked_for_another_model(tmp_path):
    papers_run(tmp_path)
    other = {"bert_model": "roberta-base"}
    change_json(tmp_path / "TREx-all.args.json", lambda record: change_settings(record, other))
    path = tmp_path / "kn" / "statistics.json"
    change_json(path, lambda statistics: statistics["baseline"].update({"neurons per fact": 9.0}))
    out = report(tmp_path, "--check").stdout
    assert "nothing was checked" in out and "another model (roberta-base, not bert-base-cased)" in out


def test_check_of_a_part_of_the_data_compares_the_complete_relations(tmp_path):
    papers_run(tmp_path)
    change_json(tmp_path / "TREx-all.args.json", lambda record: record["P19"].update({"facts": 943}))
    # P19 has too few facts, so neither its numbers nor the means over all relations are checked.
    out = report(tmp_path, "--check").stdout
    assert "only complete relations are checked: 27,737 facts of 34 relations" in out
    assert re.search(r"[1-9]\d* numbers checked, 0 outside", out)
    path = tmp_path / "kn" / "statistics.json"
    for relation, status in (("P19", 0), ("P20", 1)):
        far = {"neurons per fact": 20.0}
        change_json(path, lambda measures: measures["knowledge neurons"]["relations"][relation].update(far))  # noqa: B023
        assert report(tmp_path, "--check", check=False).returncode == status


@pytest.mark.parametrize("name", ["google-bert/bert-base-cased", "/models/bert-base-cased/"])
def test_a_model_is_recognized_by_its_name_in_any_folder(tmp_path, name):
    papers_run(tmp_path)
    change_json(tmp_path / "TREx-all.args.json", lambda record: change_settings(record, {"bert_model": name}))
    assert "numbers checked, 0 outside" in report(tmp_path, "--check").stdout


# ---- the second paper ----


def amig_results(folder, model):
    """Write made-up summaries of stages 9 to 12."""
    record_entry = {"settings": {"bert_model": model}, "made by": {"torch": "3.0"}}
    for name in ("en/amig", "zh/amig", "en_zh/amig", "en/degenerate", "zh/fact_check"):
        write(folder / "amig" / f"{name}.args.json", {"P36": record_entry})
    rates = {
        arm: {"SR": [value, value - 1, value + 1], "SR of medians": [1.25, 1, 2], "SR of absolute changes": [None] * 3}
        for arm, value in (("dai", 3.5), ("amig", 4.5), ("LIKN", 2.75))
    }
    write(folder / "amig" / "en" / "localization.json", {"all": {arm: rates[arm] for arm in ("dai", "amig")}})
    edits = {"zh": {"all": {"LIKN": rates["LIKN"]}}}
    summary = {"facts": 9, "facts without LIKN": 4, "same facts": edits, "all facts": edits}
    write(folder / "amig" / "en_zh" / "amig.json", summary)
    pairs = {
        "pairs a fact": 1.5,
        "pairs a fact:interval": [1, 2],
        "facts with a pair": 0.5,
        "percent by layer": [25, 75],
    }
    measures = {"all": {"knowledge neurons": {"published": pairs}}}
    write(folder / "amig" / "degenerate.json", {"en": measures, "en zh": measures})
    measures = {"1 wrong": {"everything": {"F1": 0.625, "F1:interval": [0.5, 0.75]}}}
    write(folder / "amig" / "fact_check.json", {"zh": {"measures": measures}})


@pytest.mark.parametrize("model", ["bert-base-multilingual-cased", "data/small"])
def test_a_report_of_the_second_papers_stages_alone(tmp_path, model):
    amig_results(tmp_path, model)
    assert (
        "no results yet, `bash 2_run_kn.sh` makes them"
        in run("8_plot.py", "--output_dir", tmp_path, "--kn_dir", tmp_path / "kn").stdout
    )
    assert "nothing was checked" in report(tmp_path, "--check").stdout
    cells_by_row = {key[1:]: cells for key, cells in rows(tmp_path).items()}
    is_papers_model = model.startswith("bert")
    name = "mBERT" if is_papers_model else "small"
    table = {(e["measure"], e["of"]): e["paper"] for e in NUMBERS["numbers"]["localization"]}
    for arm, value in (("B-KN", 3.5), ("AMIG", 4.5)):
        cells = cells_by_row[f"English, {name}", arm]
        assert number(cells["this run"]) == value and "difference" not in cells  # nothing is checked
        assert [number(end) for end in cells["95 % interval"].split(" to ")] == [value - 1, value + 1]
        if is_papers_model:
            assert number(cells["paper"]) == table["English, mBERT", arm]
        else:
            assert cells["paper"] == ""
            assert "another model (small, not one of the paper's)" in (tmp_path / "report.md").read_text()
    about = "knowledge neurons, published definition"
    for key, value in {
        (f"English, {name}, of medians", "AMIG"): 1.25,
        (f"Chinese, {name}", "LIKN"): 2.75,
        ("facts without language-independent neurons", "en_zh"): 4,
        (f"English and Chinese, {name}: facts with a pair (%)", about): 50,
        ("layer 1", f"English and Chinese, {name}, {about}"): 75,
        (f"Chinese, {name}, 1 wrong: F1", "everything"): 0.625,
    }.items():
        assert number(cells_by_row[key]["this run"]) == value
    text = (tmp_path / "report.md").read_text()
    assert f"| bert_model | {model} |" in text and "| torch | 3.0 |" in text


def test_a_setting_that_differs_between_stages_is_shown_with_its_stages(tmp_path):
    amig_results(tmp_path, "gpt2")
    change_json(
        tmp_path / "amig" / "zh" / "amig.args.json", lambda record: change_settings(record, {"bert_model": "x"})
    )
    report(tmp_path)
    assert "| bert_model | gpt2 (stages 9 en, 10 en_zh, 11 en and 12 zh); x (stage 9 zh) |" in re.sub(
        r"\\(.)", r"\1", (tmp_path / "report.md").read_text()
    )


@pytest.mark.parametrize("model, name", [("gpt2", "GPT-2"), ("google-bert/bert-base-cased", "BERT")])
def test_the_papers_monolingual_models_are_recognized(tmp_path, model, name):
    amig_results(tmp_path, model)
    report(tmp_path)
    text = (tmp_path / "report.md").read_text()
    assert f"English, {name}: pairs per fact" in text and "SR lies outside its own interval" in text
    # The paper's Tables 1 and 2 are about those two only; in the others it has the four.
    assert re.findall(r"another model \(.*?\)", text) == [f"another model ({name}, not mBERT or mGPT)"]


@pytest.mark.parametrize(
    "file, value, message",
    [
        ("en/localization", {"all": {"amig": {"SR": "1"}}}, "'SR': expected a list of 3"),
        ("en_zh/amig", [1], "expected an object"),
        ("degenerate", {"en": {"all": {"knowledge neurons": {"published": [1]}}}}, "expected an object, found [1]"),
        ("fact_check", {"zh": {"measures": {"1 wrong": {"all": {"F1": "high"}}}}}, "'F1': expected a number"),
        ("en/degenerate.args", {"P36": {"settings": 1}}, "expected an object, found 1"),
    ],
)
def test_a_damaged_summary_of_the_second_paper_is_named(tmp_path, file, value, message):
    amig_results(tmp_path, "gpt2")
    write(tmp_path / "amig" / f"{file}.json", value)
    done = report(tmp_path, check=False)
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert f"{file}.json" in done.stderr and message in done.stderr.replace('"', "'")


def test_relations_out_of_range_and_facts_that_were_not_edited_are_said():
    measures = {"in range": False, "neurons per fact": 0.0, "mean in the nearest pass": 9.25}
    (line,) = read_back.out_of_range({"P30": measures, "P36": {"in range": True, "neurons per fact": 3.0}})
    assert "in 1 of 2 relations: P30 0.00 (nearest pass 9.25). " in line
    assert read_back.out_of_range({"P36": {"in range": None}}) == read_back.unedited({}) == []
    facts = {"P30": {"edited": 0, "no neurons": 7, "not drawn": None}, "P36": {"edited": 9, "no neurons": 2}}
    (line,) = read_back.unedited(facts)
    assert line == "Facts in the updates: 9 edited, 9 no neurons. Relations without an edit: P30."
