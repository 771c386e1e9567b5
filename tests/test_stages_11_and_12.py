"""Stages 9, 11 and 12 on a small world in two languages, with a masked and with a causal model."""

import json
import runpy
import shutil
from collections import Counter
from itertools import combinations, product

import numpy as np
import pytest
import torch

import two_languages
from conftest import ROOT, read, run
from kn.experiments import degenerate, fact_checking
from kn.experiments.degenerate import ARMS
from kn.experiments.object_scores import Plan
from kn.methods.locator import Locator
from kn.methods.presets import PRESETS
from kn.neurons.sets import NeuronSet
from kn.stage import flags, languages
from kn.stage.runner import Unit
from two_languages import COUNTRIES, OBJECTS, TEMPLATES

RELATIONS = ("P36", "P37", "P30")  # in P30 the answer comes first, and all facts have the same
PREFIXES = {"en": ["", "In", "city"], "zh": ["", "在", "城"]}  # put before a country, they make more subjects
THRESHOLDS = ["--low", "0.5", "--high", "0.02"]  # the models are untrained, so suppressing neurons loses little


@pytest.fixture(scope="module", params=["bert", "gpt2"])
def world(request, tmp_path_factory):
    """The model's family, the folder with data, model and results, the flags, and what stages 11 and 12 printed."""
    folder = tmp_path_factory.mktemp(request.param)
    two_languages.write_model(request.param, folder / "model")
    two_languages.write_facts(folder / "mlama")
    for language, name in product(TEMPLATES, RELATIONS):
        facts = [
            {
                "uuid": f"{name} {group} {index}",
                "lineid": 4 * group + index,
                "sub_label": f"{prefix} {COUNTRIES[language][index]}".strip(),
                "obj_label": OBJECTS[language][name][index],
                "sub_uri": f"S{group} {index}",
                "obj_uri": f"O{name} {index}",
            }
            for group, prefix in enumerate(PREFIXES[language])
            for index in range(4)
        ]
        (folder / "mlama" / language / f"{name}.jsonl").write_text("\n".join(map(json.dumps, facts)))
    flags = ["--bert_model", folder / "model", "--mlama", folder / "mlama", "--output_dir", folder / "results"]
    flags += ["--fig_dir", folder / "figures", "--device", "cpu", "--dtype", "float64"]
    for language in TEMPLATES:
        run("9_analyze_amig.py", *flags, "--languages", language, "--presets", "amig")
    flags += ["--languages", *TEMPLATES]
    printed = run("11_degenerate.py", *flags, *THRESHOLDS).stdout, run("12_fact_check.py", *flags).stdout
    return request.param, folder, flags, printed


def lines(folder, language, name, relation):
    path = folder / "results" / "amig" / language / f"{name}-{relation}.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()]


def data(folder, language, relation):
    path = folder / "mlama" / language / f"{relation}.jsonl"
    facts = [json.loads(line) for line in path.read_text().splitlines()]
    return {fact["uuid"]: fact for fact in facts}


def encode(model, language, relation, fact, answer=None):
    text = TEMPLATES[language][relation].replace("[X]", fact["sub_label"]).replace("[Y]", "[MASK]")
    ((encoded,),) = model.encoder.facts([[[text, answer or fact["obj_label"], relation]]])
    return encoded


def probability(model, encoded, neurons=()):
    """Computed by transformers: the mean over the answer's pieces, each read with the neurons suppressed there."""

    def suppress(number, activations):
        return activations.index_fill(-1, torch.tensor([i for layer, i in neurons if layer == number], dtype=int), 0)

    pieces = zip(encoded.positions, encoded.answers, strict=True)
    return np.mean([model.probability(encoded.ids, *piece, change=suppress).item() for piece in pieces])


@pytest.mark.parametrize("language, relation", [("en", "P36"), ("zh", "P37")])
def test_pairs_and_losses_are_those_of_slow_suppressions(world, language, relation):
    family, folder, _, _ = world
    model = two_languages.ReferenceModel(family, folder / "model")
    facts, located = data(folder, language, relation), lines(folder, language, "amig", relation)
    assert len({len(encode(model, language, relation, fact).answers) for fact in facts.values()}) > 1
    searched = lines(folder, language, "degenerate", relation)
    assert [line["uuid"] for line in located] == list(facts)
    scored = [line for line in located if "skipped" not in line]  # BERT's tokenizer does not know one of the answers
    assert len(scored) == (9 if (family, language) == ("bert", "en") else 12)
    assert [line["uuid"] for line in searched] == [line["uuid"] for line in scored]
    # Look closely at the fact with the most pairs.
    line, stage_9_line = max(zip(searched, scored, strict=True), key=lambda lines: len(lines[0][ARMS[0]]["pairs"]))
    cut = {"en": 0.3, "zh": 0.2}[language] * stage_9_line["neurons"][0][2]
    strongest = [[layer, index] for layer, index, score in stage_9_line["neurons"] if score > cut][:20]
    assert line[ARMS[0]]["neurons"] == strongest
    tried = [line[ARMS[0]]["neurons"] for name in RELATIONS for line in lines(folder, language, "degenerate", name)]
    assert {len(neurons) for neurons in tried} & set(range(20))  # some facts have fewer than 20 above the threshold
    drawn = line[ARMS[1]]["neurons"]
    assert Counter(layer for layer, _ in drawn) == Counter(layer for layer, _ in strongest)
    encoded = encode(model, language, relation, facts[line["uuid"]])
    plain = probability(model, encoded)
    for arm in ARMS:
        neurons = line[arm]["neurons"][:6]  # all of them would take too long
        expected = {}
        for first, second in combinations(neurons, 2):
            first_loss, second_loss, both_loss = (
                1 - probability(model, encoded, suppressed) / plain
                for suppressed in ([first], [second], [first, second])
            )
            if max(first_loss, second_loss) <= 0.5 and both_loss > 0.02:
                interaction = both_loss - first_loss - second_loss
                expected[str([first, second])] = [first_loss, second_loss, both_loss, interaction]
        pairs = {str(pair[:2]): pair[2:] for pair in line[arm]["pairs"] if pair[0] in neurons and pair[1] in neurons}
        assert pairs.keys() == expected.keys()
        for pair, losses in pairs.items():
            assert losses == pytest.approx(expected[pair], abs=1e-9)
    assert line[ARMS[0]]["pairs"]  # otherwise the test would prove nothing


def test_the_summary_of_degenerate_pairs_counts_what_the_lines_say(world):
    _, folder, flags, (printed, _) = world
    summary = read(folder / "results" / "amig" / "degenerate.json")
    pairs_by_language = []
    for language in TEMPLATES:
        all_relations = summary[language]["all"]
        facts = [line for relation in RELATIONS for line in lines(folder, language, "degenerate", relation)]
        for arm in ARMS:
            pairs = [pair for line in facts for pair in line[arm]["pairs"]]
            assert all_relations[arm]["published"]["pairs"] == len(pairs)
            assert all_relations[arm]["strict"]["pairs"] == sum(pair[5] >= degenerate.STRICT for pair in pairs)
            with_pair = sum(bool(line[arm]["pairs"]) for line in facts)
            assert all_relations[arm]["published"]["facts with a pair"] == pytest.approx(with_pair / len(facts))
            assert sum(all_relations[arm]["published"]["percent by layer"]) == pytest.approx(100)
        assert f"{language:9} facts" in printed
        pairs_by_language.append(
            {(line["uuid"], str(sorted(pair[:2]))) for line in facts for pair in line[ARMS[0]]["pairs"]}
        )
    in_both = pairs_by_language[0] & pairs_by_language[1]
    assert summary["en zh"]["all"][ARMS[0]]["published"]["pairs"] == len(in_both)
    assert (folder / "figures" / "degenerate_layers.png").stat().st_size > 5_000
    # Counting by another definition measures nothing again.
    again = run("11_degenerate.py", *flags, *THRESHOLDS, "--disjoint", "--min_interaction", "-1").stdout
    assert again.count("is there already") == 6
    fewer = read(folder / "results" / "amig" / "degenerate.json")["en"]["all"][ARMS[0]]
    assert fewer["strict"] == fewer["published"]
    assert fewer["published"]["neurons"] == 2 * fewer["published"]["pairs"]
    assert 0 < fewer["published"]["pairs"] < summary["en"]["all"][ARMS[0]]["published"]["pairs"]
    other = run("11_degenerate.py", *flags, "--low", "0.1", "--high", "0.02", check=False)
    assert "was made with --low 0.5, this run has 0.1" in other.stderr and other.returncode == 1


def test_stage_12_scores_the_right_and_all_wrong_objects(world):
    family, folder, _, _ = world
    model = two_languages.ReferenceModel(family, folder / "model")
    locator = Locator(PRESETS["amig"], model.adapter, model.encoder)
    language, relation = "zh", "P36"
    facts, checked = data(folder, language, relation), lines(folder, language, "fact_check", relation)
    pairs = {line["uuid"]: line[ARMS[0]]["pairs"] for line in lines(folder, language, "degenerate", relation)}
    assert [line["uuid"] for line in checked] == list(facts)
    assert Counter(line["part"] for line in checked) == {"first": 10, "second": 2}
    counts = Counter()
    for line in checked:
        if line["part"] == "first":
            counts.update({str(neuron) for pair in pairs[line["uuid"]] for neuron in pair[:2]})
    kept = read(folder / "results" / "amig" / "fact_check.json")[language]["relations"][relation]["neurons"]
    assert sorted(map(str, kept)) == sorted(n for n, count in counts.items() if count >= 0.7 * max(counts.values()))
    for line in checked:
        fact = facts[line["uuid"]]
        right, *wrong = line["objects"]
        assert right == fact["obj_label"]
        assert sorted(wrong) == sorted({fact["obj_label"] for fact in facts.values()} - {right})
    line = checked[3]
    for index, answer in enumerate(line["objects"]):
        encoded = encode(model, language, relation, facts[line["uuid"]], answer)
        assert line["probability"][index] == pytest.approx(probability(model, encoded), abs=1e-9)
        # The same layers as in stage 12, since the certificate's precision depends on them.
        (batch,) = locator.attribute([encoded], {layer for layer, _ in kept})
        mean = np.mean([batch.answer[0, layer, neuron].item() for layer, neuron in kept])
        assert line["attribution"][index] == pytest.approx(mean, rel=1e-5, abs=1e-12)
    assert line["attribution"] != line["random neurons"]


def test_the_measures_of_stage_12_come_from_the_second_parts(world):
    family, folder, flags, (_, printed) = world
    for language in TEMPLATES:
        summary = read(folder / "results" / "amig" / "fact_check.json")[language]
        checked = [line for relation in RELATIONS[:2] for line in lines(folder, language, "fact_check", relation)]
        second = [line for line in checked if line["part"] == "second"]
        assert summary["facts"] == {"first": len(checked) - len(second), "second": len(second)}
        for name, n_wrong in (("1 wrong", 1), ("5 wrong", 5)):
            wrong = sum(len(line["objects"][1 : 1 + n_wrong]) for line in second)  # a fact has three at most
            published = summary["measures"][name]["attribution, published threshold"]
            hits = sum(line["attribution"][0] > 1e-6 for line in second)
            alarms = sum(score > 1e-6 for line in second for score in line["attribution"][1 : 1 + n_wrong])
            assert published["recall"] == pytest.approx(hits / len(second))
            assert published["FPR"] == pytest.approx(alarms / wrong)
            assert published["precision"] == (pytest.approx(hits / (hits + alarms)) if hits + alarms else None)
            assert summary["measures"][name]["everything"]["F1"] == pytest.approx(
                2 * len(second) / (2 * len(second) + wrong)
            )
        assert f"{language}, {len(second)} facts, 1 wrong" in printed
        drawn = (folder / "figures" / f"fact_check_{language}.csv").read_text().splitlines()[1:]
        cells = [row.split(",") for row in drawn if row.startswith("probability,")]
        curve = {(float(x) / 100, float(y) / 100) for _, x, y, *_ in cells if y}
        right = [line["probability"][0] for line in second]
        others = [score for line in second for score in line["probability"][1:]]
        for cut in (0, *right):
            point = np.mean(np.array(others) > cut), np.mean(np.array(right) > cut)
            assert any(point == pytest.approx(drawn_point) for drawn_point in curve)
        assert (folder / "figures" / f"fact_check_{language}.png").stat().st_size > 5_000
    again = run("12_fact_check.py", *flags).stdout
    assert again.count("is there already") == (6 if family == "bert" else 4)


def test_results_of_earlier_versions_are_refused_with_the_reason(world, tmp_path):
    """They had no threshold: the strongest neurons were tried, whatever their scores."""
    _, folder, flags, _ = world
    shutil.copytree(folder / "results", tmp_path / "results")
    flags = [tmp_path / "results" if flag == folder / "results" else flag for flag in flags]
    before = {path: path.read_bytes() for path in (tmp_path / "results").rglob("*.jsonl")}

    def remove_setting(name, setting):
        path = tmp_path / "results" / "amig" / "en" / f"{name}.args.json"
        record = read(path)
        for entry in record.values():
            del entry["settings"][setting]
        path.write_text(json.dumps(record))

    def error_of(script, *more):
        done = run(script, *flags, *more, check=False)
        assert done.returncode == 1 and done.stderr.count("\n") == 1
        return done.stderr

    remove_setting("fact_check", "columns")
    reason = "when the model's own prediction was not recorded"
    assert f"fact_check-P36.jsonl: was made {reason}" in error_of("12_fact_check.py", "--pt_relation", "P36")
    remove_setting("degenerate", "threshold")
    reason = "when any of a fact's strongest neurons were tried, not only its knowledge neurons"
    for script, more in (("11_degenerate.py", THRESHOLDS), ("12_fact_check.py", [])):
        assert f"degenerate-P30.jsonl: was made {reason}" in error_of(script, *more)
    assert {path: path.read_bytes() for path in before} == before


def test_a_malformed_line_in_a_result_is_named(world, tmp_path):
    _, folder, flags, _ = world
    shutil.copytree(folder / "results", tmp_path / "results")
    flags = [tmp_path / "results" if flag == folder / "results" else flag for flag in flags]
    for script, name, column, more in (
        ("12_fact_check.py", "fact_check", "probability", []),
        ("11_degenerate.py", "degenerate", ARMS[1], THRESHOLDS),
    ):
        results = tmp_path / "results" / "amig" / "en"
        path = two_languages.change_result(results, name, "P36", lambda line, key=column: line.update({key: 0.5}))
        done = run(script, *flags, *more, check=False)
        assert done.returncode == 1 and f"{path}, entry 1" in done.stderr and done.stderr.count("\n") == 1


def test_an_object_counts_as_predicted_if_all_its_pieces_are(tmp_path, monkeypatch):
    """Objects of one piece are made likely here, so that some are predicted."""
    two_languages.write_facts(tmp_path / "mlama")
    two_languages.write_model("bert", tmp_path / "model")
    model = two_languages.ReferenceModel("bert", tmp_path / "model")
    prompts = {
        (index, answer): encode(model, "zh", "P37", fact, answer)
        for index, fact in enumerate(data(tmp_path, "zh", "P37").values())
        for answer in OBJECTS["zh"]["P37"]
    }
    likely = sorted({encoded.answers[0] for encoded in prompts.values() if len(encoded.answers) == 1})
    bias = torch.zeros(len(model.tokenizer), dtype=torch.float64)
    bias[likely] = 10
    argv = ["stage 12", "--bert_model", str(tmp_path / "model"), "--mlama", str(tmp_path / "mlama")]
    monkeypatch.setattr("sys.argv", [*argv, "--device", "cpu", "--dtype", "float64", "--languages", "zh"])
    stage = runpy.run_path(str(ROOT / "src" / "12_fact_check.py"))
    args = stage["parse"]()
    (language,) = languages.open_languages(flags.model_args(args), languages.language_args(args))
    language.world.opened.model.get_output_embeddings().bias.data += bias
    model.own.get_output_embeddings().bias.data += bias
    facts = language.facts["P37"]
    neurons = {name: NeuronSet([[0, 1]]) for name in fact_checking.SCORES[:2]}
    plan = Plan("P37", fact_checking.Objects(facts.values()), dict.fromkeys(facts, "first"), neurons)
    locator = language.world.locator(PRESETS["amig"])
    settings = stage["Settings"](args.wrong, args.common, args.min_interaction, args.seed)
    texts, _ = stage["measure"](Unit(range(len(facts)), lambda _: None), plan, language, locator, settings)
    expected, predicted = [], []
    for index, line in enumerate(map(json.loads, texts)):
        predicted += line["predicted"]
        for answer in line["objects"]:
            encoded = prompts[index, answer]
            best = model.own(torch.tensor([encoded.ids])).logits[0].argmax(-1)
            expected.append(
                all(best[position] == piece for position, piece in zip(encoded.positions, encoded.answers, strict=True))
            )
    assert predicted == expected and True in expected and False in expected


def test_relations_that_cannot_be_checked_are_empty_or_left_out(world):
    """In P30 BERT has no wrong objects to score; GPT-2 can't complete the prompts, because the answer comes first."""
    family, folder, _, (_, printed) = world
    left_out = "en P30: no fact of the first part has a degenerate neuron, left out"
    assert len(lines(folder, "en", "degenerate", "P30")) == (12 if family == "bert" else 0)
    if family == "bert":
        assert lines(folder, "en", "fact_check", "P30") == [] and left_out not in printed
        about = read(folder / "results" / "amig" / "en" / "fact_check.args.json")["P30"]
        assert (about["facts"], about["scored"], about["without a wrong object"]) == (12, 0, 12)
    else:
        assert left_out in printed


def test_runs_of_one_language_and_the_errors_for_missing_or_other_results(world, tmp_path):
    family, folder, flags, _ = world
    flags = [*flags[: flags.index("--languages")], "--languages", "zh"]
    assert "zh        facts" in run("11_degenerate.py", *flags, *THRESHOLDS).stdout
    # What is missing is reported before a model is looked for.
    other = {folder / "results": tmp_path, folder / "model": tmp_path / "none"}
    elsewhere = [other.get(flag, flag) for flag in flags]
    missing = run("11_degenerate.py", *elsewhere, check=False)
    assert "run stage 9 (9_run_amig.sh) for zh and P30 first" in missing.stderr and missing.returncode == 1, (
        missing.stderr
    )
    missing = run("12_fact_check.py", *elsewhere, check=False)
    assert "run stage 11 (11_run_degenerate.sh) for zh and P30 first" in missing.stderr
    fewer = run("12_fact_check.py", *flags, "--debug", "2", check=False)
    assert "degenerate-P30.jsonl: was made with all facts, this run has --debug 2" in fewer.stderr
    higher = run("11_degenerate.py", *flags, *THRESHOLDS, "--thresholds", "0.9", check=False)
    assert "was made with --thresholds 0.2, this run has 0.9" in higher.stderr
    other = tmp_path / "other"
    shutil.copytree(folder / "model", other)
    own = two_languages.KINDS[family].from_pretrained(other)
    with torch.no_grad():
        own.get_input_embeddings().weight.mul_(1.1)
    own.save_pretrained(other)
    flags = [other if flag == folder / "model" else flag for flag in flags]
    for script in ("11_degenerate.py", "12_fact_check.py"):
        refused = run(script, *flags, check=False)
        assert "was made with another model (" in refused.stderr
