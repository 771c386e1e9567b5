"""The report's browser of neurons: its data against slow loops over the results, and the page in a real browser."""

import html
import json
import shutil
from collections import defaultdict
from functools import partial

import pytest

from conftest import read
from kn.report.browser import facts_of
from kn.report.neuron_browser import COLUMNS, neurons_of, shown_around_mask
from kn.store.files import InputError
from reports import read_lines, report

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
RELATIONS = ["P19", "P36", "P101"]
FACTS = 4
FACTS_OF: dict = {relation: {"label": relation, "facts": [[]] * FACTS} for relation in RELATIONS}  # their number counts
close = partial(pytest.approx, rel=6e-3)  # the page has three digits
EVIL = "</script><b>&\"'"


@pytest.fixture(scope="module")
def results(tmp_path_factory, bench):
    """Made-up results with a hostile word and a hostile sentence, and three facts that share a neuron."""
    folder = tmp_path_factory.mktemp("results")
    bench.make_up(folder, FACTS, 2)
    shared = {"P19": [0, 2], "P36": [1]}
    for relation in RELATIONS:
        path = folder / "kn" / f"kn_bag-{relation}.json"
        bags = read(path)
        for fact in shared.get(relation, []):
            bags[fact] = [[5, 3000], *bags[fact]]
        path.write_text(json.dumps(bags))
        bench.make_up_neurons(folder, relation, bags)
    for relation in shared:
        change_entry(folder / "kn" / f"words-{relation}.jsonl", nearest=[EVIL, "", EVIL, "a word"])
        path = folder / "trigger_examples_th" / f"neurons-{relation}.json"
        entries = read(path)
        for entry in entries:
            if entry["neuron"] == [5, 3000]:
                entry["most"][0] |= {"text": f"{EVIL} [MASK] {EVIL}", "activation": 90.0, "fact": 1}
                entry["most"][1] |= {"activation": 95.0, "fact": FACTS}  # which stage 1 does not have
                entry["least"][0] |= {"text": f"{EVIL} [MASK] {EVIL}", "activation": -90.0, "fact": 1}
        path.write_text(json.dumps(entries))
    return folder


def change_entry(path, **values):
    lines = [line | values if line["neuron"] == [5, 3000] else line for line in read_lines(path)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def found_in(results):
    data = neurons_of(results, results / "kn", FACTS_OF)
    return data, [dict(zip(COLUMNS, row, strict=True)) for row in data["neurons"]]


def test_the_browsers_data_are_those_of_the_result_files(results):
    data, neurons = found_in(results)
    facts = defaultdict(list)  # by neuron: relation, probability, without, activation
    for number, relation in enumerate(RELATIONS):
        lines = read_lines(results / "kn" / f"single_neurons-{relation}.jsonl")
        for line, changes in zip(lines, data["without"][relation], strict=True):
            for place, neuron in enumerate(line["neurons"]):
                without = line["without"][place]
                facts[tuple(neuron)].append((number, line["probability"], without, line["activations"][place]))
                assert changes[place] == close(without / line["probability"] - 1)
    assert [(neuron["layer"], neuron["index"]) for neuron in neurons] == sorted(facts)
    both_signs = set()
    for neuron in neurons:
        own = facts[neuron["layer"], neuron["index"]]
        assert neuron["facts"] == len(own)
        assert neuron["relations"] == sorted({number for number, *_ in own})
        assert neuron["without"] == close(sum(fact[2] for fact in own) / sum(fact[1] for fact in own) - 1)
        negative = sum(activation for *_, activation in own) < 0
        both_signs.add(negative)
        words, sentences = {}, []
        for number in neuron["relations"]:
            by_neuron = read_lines(results / "kn" / f"words-{RELATIONS[number]}.jsonl")
            (words,) = (line for line in by_neuron if line["neuron"] == [neuron["layer"], neuron["index"]])
            entries = read(results / "trigger_examples_th" / f"neurons-{RELATIONS[number]}.json")
            (entry,) = (entry for entry in entries if entry["neuron"] == words["neuron"])
            ends = [sentence for sentence in entry["most"] + entry["least"] if sentence["fact"] < FACTS]
            sentences += [(sentence["activation"], number, sentence["fact"], sentence["text"]) for sentence in ends]
        more, less = ("farthest", "nearest") if negative else ("nearest", "farthest")
        assert neuron["more"] == [word for word in dict.fromkeys(words[more]) if word][:6]
        assert neuron["less"] == [word for word in dict.fromkeys(words[less]) if word][:6]
        expected, texts = [], set()
        for sentence in sorted(sentences, key=lambda sentence: sentence[0], reverse=not negative):
            if sentence[3] not in texts:
                texts.add(sentence[3])
                expected.append(sentence)
        for shown, (activation, *where, text) in zip(neuron["sentences"], expected[:3], strict=True):
            assert shown[0] == close(activation) and shown[1:3] == where
            assert data["texts"][shown[3]].strip("…") in text and "[MASK]" in data["texts"][shown[3]]
    assert both_signs == {False, True}  # a neuron with a negative activation writes the opposite


def test_neurons_that_nobody_measured_alone_are_listed_with_their_facts(results, tmp_path):
    shutil.copytree(results / "kn", tmp_path / "kn")
    for kind in ("single_neurons", "words"):
        for path in (tmp_path / "kn").glob(f"{kind}*"):
            path.unlink()
    _, neurons = found_in(tmp_path)
    _, measured = found_in(results)
    assert [neuron["facts"] for neuron in neurons] == [neuron["facts"] for neuron in measured]
    unmeasured = {"without": None, "more": [], "less": [], "sentences": []}
    assert all({name: neuron[name] for name in unmeasured} == unmeasured for neuron in neurons)


@pytest.mark.parametrize(
    "damage",
    [
        lambda line: line | {"neurons": [[1, 1], *line["neurons"]]},
        lambda line: line | {"fact": 99},
        lambda line: line | {"without": line["without"][1:]},
    ],
)
def test_results_with_other_neurons_are_refused_in_one_line(results, tmp_path, damage):
    shutil.copytree(results / "kn", tmp_path / "kn")
    path = tmp_path / "kn" / "single_neurons-P19.jsonl"
    first, *others = read_lines(path)
    path.write_text("".join(json.dumps(line) + "\n" for line in [damage(first), *others]))
    with pytest.raises(InputError, match=r"single_neurons-P19.jsonl, entry 1: has other neurons than kn_bag-P19.json"):
        neurons_of(tmp_path, tmp_path / "kn", FACTS_OF)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("short [MASK] text", "short [MASK] text"),
        (f"{'word ' * 40}[MASK]{' word' * 40}", f"… {'word ' * 23}[MASK]{' word' * 11} …"),
        (f"{'字' * 200}[MASK]{'字' * 200}", f"… {'字' * 120}[MASK]{'字' * 60} …"),
    ],
)
def test_long_sentences_are_cut_between_words(text, shown):
    assert shown_around_mask(text) == shown


# ---- in a browser ----

VISIT = """<script>
const seen = {};
const byId = (id) => document.getElementById(id);
const text = (element) => element.textContent.replace(/\\s+/g, " ").trim();
const record = (name, browser) => {
  seen[name] = {
    rows: [...byId(browser + "-table").tBodies[0].rows].map((row) => [...row.cells].map(text)),
    count: text(byId(browser + "-count")),
    one: byId(browser + "-one").hidden ? "" : text(byId(browser + "-one")),
    table: byId(browser + "-table").getBoundingClientRect().height > 0,
    bold: byId(browser + "-one").querySelectorAll("b").length,
    links: [...byId(browser + "-one").querySelectorAll("a")].map((link) => link.getAttribute("href")),
  };
};
const set = (id, value, event) => { byId(id).value = value; byId(id).dispatchEvent(new Event(event)); };
const steps = [
  () => { record("opened", "neurons"); location.hash = "#facts=P36-1"; },
  () => { record("fact", "facts"); byId("facts-one").querySelector('a[href="#neurons=5.3000"]').click(); },
  () => { record("neuron", "neurons"); byId("neurons-one").querySelector('a[href="#facts=P19-2"]').click(); },
  () => { record("back", "facts"); location.hash = "#neurons="; },
  () => {
    record("all", "neurons");
    const fact = Facts.data.relations.P36.facts[0];
    seen.said = %s.map(([text, answer]) => {
      [fact[Facts.at.best], fact[Facts.at.answer]] = [text, answer];
      return Facts.said("P36", 0);
    });
    byId("neurons-table").querySelectorAll("th button")[3].click(); record("sorted", "neurons");
    set("neurons-layer", "5", "change"); record("layer", "neurons");
    set("neurons-menu", "P36", "change"); record("layer and relation", "neurons");
    document.body.replaceChildren(JSON.stringify(seen));
  },
];
window.addEventListener("hashchange", () => steps.shift()());
steps.shift()();
</script>"""
SAID = [
    ("[MASK] is the capital of France.", "Paris", "Paris is the capital of France."),
    ("<mask><mask> is large.", "New York", "New York is large."),
    ("The capital of France is", "Paris", "The capital of France is Paris"),
    ("Cayuga County's capital city, Aub", "Auburn", "Cayuga County's capital city, Auburn"),  # its first piece was read
]


@pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")
def test_from_a_fact_to_its_neuron_and_back_in_chromium(results, bench):
    report(results)
    relations = facts_of(results, results / "kn", "TREx-all")
    names = list(relations)
    data = neurons_of(results, results / "kn", relations)
    neurons = {f"{row[0]}.{row[1]}": dict(zip(COLUMNS, row, strict=True)) for row in data["neurons"]}
    dom = bench.in_browser(CHROMIUM, results / "report.html", VISIT % json.dumps(SAID), "--virtual-time-budget=3000")
    seen = json.loads(html.unescape(bench.body_of(dom)))

    assert seen["opened"]["count"] == f"{len(neurons)} neurons" and not seen["opened"]["one"]
    assert [row[0] for row in seen["opened"]["rows"]] == list(neurons)[:100]
    for row in seen["opened"]["rows"]:
        neuron = neurons[row[0]]
        assert row[1:3] == [str(neuron["facts"]), str(len(neuron["relations"]))]
        assert row[3] == percent(neuron["without"])
        assert [row[4], row[5]] == [" \N{MIDDLE DOT} ".join(neuron[end]) for end in ("more", "less")]
    # A fact alone names its neurons, with what each carries.
    fact = seen["fact"]
    assert fact["count"] == "1 fact" and not fact["table"]
    bag = read(results / "kn" / "kn_bag-P36.json")[1]
    links = [f"#neurons={layer}.{index}" for layer, index in bag]
    assert [link for link in fact["links"] if "neurons" in link] == links
    for change in data["without"]["P36"][1]:
        assert percent(change) in fact["one"]
    # A neuron alone names its facts, and shows text as text.
    neuron = seen["neuron"]
    assert neuron["one"].startswith("Neuron 5.3000") and "3 facts of 2 relations" in neuron["one"]
    facts = {f"#facts={name}" for name in ("P19-0", "P19-2", "P36-1")}
    assert facts <= {*neuron["links"]} and percent(neurons["5.3000"]["without"]) in neuron["one"]
    assert EVIL in neuron["one"] and neuron["bold"] == 0
    assert "activation 90, not one of its facts" in neuron["one"] or "\N{MINUS SIGN}90" in neuron["one"]
    assert seen["back"]["one"].endswith(f"All {FACTS * len(names)} facts") and ", fact 2" in seen["back"]["one"]
    assert seen["said"] == [said for *_, said in SAID]
    # The table again.
    assert seen["all"]["rows"] == seen["opened"]["rows"] and seen["all"]["table"]
    by_change = [neurons[row[0]]["without"] for row in seen["sorted"]["rows"]]
    assert by_change == sorted(neuron["without"] for neuron in neurons.values())[:100]
    fifth = [name for name in neurons if name.startswith("5.")]
    assert {row[0] for row in seen["layer"]["rows"]} == {*fifth}
    capital = names.index("P36")
    both = [name for name in fifth if capital in neurons[name]["relations"]]
    assert {row[0] for row in seen["layer and relation"]["rows"]} == {*both}


def percent(change):
    return f"{100 * change:+.1f} %".replace("-", "\N{MINUS SIGN}")
