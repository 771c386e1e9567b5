"""Stages 9 and 10 on a tiny world in two languages, with a masked and with a causal model."""

import json
import shutil

import pytest

import two_languages
from conftest import read, run
from kn.experiments import success
from kn.model.prompts import NOT_LAST, UNKNOWN
from kn.neurons.located import KEPT_LEAST, KEPT_SHARE
from kn.neurons.refining import strongest
from two_languages import TEMPLATES, ReferenceModel, facts, prompt

LANGUAGES = {"en": 0.3, "zh": 0.2}
SHARED = ("P36", "P37")  # the relations that both models can complete


@pytest.fixture(scope="module", params=["bert", "gpt2"])
def world(request, tmp_path_factory):
    """A folder in which both stages have run, their flags, the model for slow measurements, and the printed output."""
    folder = tmp_path_factory.mktemp(request.param)
    two_languages.write_facts(folder / "mlama")
    two_languages.write_model(request.param, folder / "model")
    flags = ["--bert_model", folder / "model", "--mlama", folder / "mlama", "--output_dir", folder / "results"]
    flags += ["--fig_dir", folder / "figures", "--device", "cpu", "--dtype", "float64"]
    printed = [run("9_analyze_amig.py", *flags, "--languages", name).stdout for name in LANGUAGES]
    printed.append(run("10_language_independent.py", *flags, "--languages", *LANGUAGES).stdout)
    return folder, flags, ReferenceModel(request.param, folder / "model"), "\n".join(printed)


def lines(world, *parts):
    path = world[0].joinpath("results", "amig", *parts)
    return [json.loads(line) for line in path.read_text().splitlines()]


def encode(model, language, uuid):
    relation, index = uuid.split()
    return model.encode(language, relation, int(index))


def strongest_neurons(line, share):
    return [[layer, index] for layer, index, score in line["neurons"] if score > share * line["neurons"][0][2]]


def slow_probabilities(model, encoded, *edits):
    """The answer's probability without an edit, with the neurons of all edits set to zero, and with them doubled.

    A neuron that several edits name is doubled several times.
    """

    def with_factor(factor):
        def change(number, neurons):
            neurons = neurons.clone()
            for layer, index in [neuron for edit in edits for neuron in edit]:
                if layer == number:
                    neurons[:, index] *= factor
            return neurons

        pieces = list(zip(encoded.positions, encoded.answers, strict=True))
        return sum(model.probability(encoded.ids, *piece, change=change).item() for piece in pieces) / len(pieces)

    return pytest.approx([with_factor(1), with_factor(0), with_factor(2)], rel=1e-6)


@pytest.mark.parametrize("preset", ["amig", "dai"])
@pytest.mark.parametrize("language", LANGUAGES)
def test_stage_9_writes_a_line_per_fact(world, language, preset):
    _, _, model, printed = world
    for relation in TEMPLATES[language]:
        written = lines(world, language, f"{preset}-{relation}.jsonl")
        for index, (line, fact) in enumerate(zip(written, facts(language, relation), strict=True)):
            text, answer = prompt(language, relation, index)
            assert line["uuid"] == fact["uuid"] and line["lineid"] == index
            assert (line["text"], line["answer"]) == (text, answer)
            encoded = encode(model, language, line["uuid"])
            if encoded.skipped:
                assert line["skipped"] == encoded.skipped and "neurons" not in line
                continue
            assert [line["probability"]] * 3 == slow_probabilities(model, encoded)
            scores = [score for _, _, score in line["neurons"]]
            assert scores == sorted(scores, reverse=True) and len(scores) >= KEPT_LEAST
            assert all(score >= KEPT_SHARE * scores[0] for score in scores[KEPT_LEAST:])
    reasons = {
        line.get("skipped") for name in TEMPLATES[language] for line in lines(world, language, f"amig-{name}.jsonl")
    }
    if model.family == "gpt2":
        assert reasons == {None, NOT_LAST}
        assert f"0 of 4 facts scored in 0 s; 0% predicted right; skipped: 4 ({NOT_LAST})" in printed
    else:
        assert reasons == ({None, UNKNOWN} if language == "en" else {None})


def test_the_preset_dai_gives_the_attributions_of_stage_1(world):
    folder, flags, _, _ = world
    bags = [[[*prompt("en", "P37", index), "P37(speak)"]] for index in range(4)]
    (folder / "data_all.json").write_text(json.dumps(bags))
    paths = ["--data_path", folder / "data_all.json", "--output_dir", folder / "stage_1"]
    model_flags = [*flags[:2], "--device", "cpu", "--dtype", "float64"]
    run("1_analyze_mlm.py", *model_flags, *paths, "--get_ig_gold")
    written = (folder / "stage_1" / "TREx-all-P37.rlt.jsonl").read_text().splitlines()
    for line, fact in zip(lines(world, "en", "dai-P37.jsonl"), map(json.loads, written), strict=True):
        ((_, scores),) = fact
        stage_1 = {(layer, index): score for layer, index, score in scores["ig_gold"]}
        ours = {(layer, index): score for layer, index, score in line["neurons"]}
        assert {neuron: ours[neuron] for neuron in stage_1} == pytest.approx(stage_1, rel=1e-9)
        assert sorted(strongest(line["neurons"], 0.2)) == sorted(strongest(scores["ig_gold"], 0.2))


@pytest.mark.parametrize("language", LANGUAGES)
def test_localization_suppresses_and_doubles_neurons_on_the_fact_and_on_an_unrelated_one(world, language):
    _, _, model, printed = world
    rates_by_preset = []
    for preset in ("amig", "dai"):
        for relation in SHARED:
            known = {line["uuid"]: line for line in lines(world, language, f"{preset}-{relation}.jsonl")}
            measured = lines(world, language, f"localization-{preset}-{relation}.jsonl")
            assert [line["uuid"] for line in measured] == [uuid for uuid in known if "skipped" not in known[uuid]]
            for line in measured:
                neurons = strongest_neurons(known[line["uuid"]], LANGUAGES[language])
                assert line["neurons"] == {preset: len(neurons), f"random like {preset}": len(neurons)}
                assert line["layers"] == [layer for layer, _ in neurons]
                assert line["other"][0] != relation and line["other"][1].startswith(line["other"][0])
            line = measured[-1]
            neurons = strongest_neurons(known[line["uuid"]], LANGUAGES[language])
            assert line["related"][preset] == slow_probabilities(model, encode(model, language, line["uuid"]), neurons)
            assert line["unrelated"][preset] == slow_probabilities(
                model, encode(model, language, line["other"][1]), neurons
            )
        all_lines = [
            line
            for name in sorted(TEMPLATES["en"])
            for line in lines(world, language, f"localization-{preset}-{name}.jsonl")
        ]
        rates_by_preset.append(
            success.rate(*([line[side][preset] for line in all_lines] for side in success.SIDES), 42)
        )
    summary = read(world[0] / "results" / "amig" / language / "localization.json")
    assert summary["threshold"] == LANGUAGES[language]
    assert set(summary["all"]) == {"amig", "random like amig", "dai", "random like dai"}
    for preset, rates in zip(("amig", "dai"), rates_by_preset, strict=True):
        assert summary["all"][preset]["SR"] == pytest.approx(rates["SR"])
        assert summary["all"][preset]["facts"] == rates["facts"]
        assert sum(arms[preset]["facts"] for arms in summary["relations"].values() if arms) == rates["facts"]
    assert f"Success rates in {language}" in printed
    assert (world[0] / "figures" / f"amig_layers-{language}.csv").exists()


def test_language_independent_neurons_and_the_measurements_of_each_arm(world):
    folder, _, model, printed = world
    total = without = 0
    for relation in SHARED:
        known = {}
        for name in LANGUAGES:
            located = lines(world, name, f"amig-{relation}.jsonl")
            known[name] = {line["uuid"]: line for line in located if "skipped" not in line}
        measured = lines(world, "en_zh", f"amig-{relation}.jsonl")
        assert [line["uuid"] for line in measured] == [uuid for uuid in known["en"] if uuid in known["zh"]]
        for line in measured:
            own = {name: strongest_neurons(known[name][line["uuid"]], share) for name, share in LANGUAGES.items()}
            assert line["neurons"] == own
            assert sorted(line["LIKN"]) == sorted(neuron for neuron in own["en"] if neuron in own["zh"])
            for name, other in (("en", "zh"), ("zh", "en")):
                counts = line["edits"][name]["neurons"]
                sizes = {"LIKN": len(line["LIKN"]), "Mono-KN": len(own[other]), "Seq-KN": len(own["en"] + own["zh"])}
                assert counts == sizes | {f"random like {arm}": size for arm, size in sizes.items()}
            total += 1
            without += not line["LIKN"]
        line = max(measured, key=lambda line: len(line["LIKN"]))
        assert line["LIKN"]
        neurons = line["neurons"]
        for name, other in (("en", "zh"), ("zh", "en")):
            arms = {"LIKN": [line["LIKN"]], "Mono-KN": [neurons[other]], "Seq-KN": [neurons[name], neurons[other]]}
            for arm, edits in arms.items():
                own, unrelated = encode(model, name, line["uuid"]), encode(model, name, line["other"][1])
                assert line["edits"][name]["related"][arm] == slow_probabilities(model, own, *edits)
                assert line["edits"][name]["unrelated"][arm] == slow_probabilities(model, unrelated, *edits)
    summary = read(folder / "results" / "amig" / "en_zh" / "amig.json")
    for relation in set(TEMPLATES["en"]) - set(SHARED):
        rest = lines(world, "en_zh", f"amig-{relation}.jsonl")
        total += len(rest)
        without += sum(not line["LIKN"] for line in rest)
    assert (summary["facts"], summary["facts without LIKN"]) == (total, without)
    for name in LANGUAGES:
        assert {rates["facts"] for rates in summary["same facts"][name]["all"].values()} == {total - without}
        facts_by_arm = {arm: rates["facts"] for arm, rates in summary["all facts"][name]["all"].items()}
        assert facts_by_arm["LIKN"] == total - without and facts_by_arm["Seq-KN"] == total
    assert "without LIKN" in printed
    header = (folder / "figures" / "language_independent_layers-en_zh.csv").read_text().splitlines()[0]
    assert header.startswith("layer,en,") and "language-independent" in header


def test_a_run_resumes_and_produces_the_same_bytes(world):
    folder, flags, _, _ = world
    results = folder / "results" / "amig"
    before = {path: path.read_bytes() for path in results.rglob("*.json*") if "args" not in path.name}
    for name in ("en/amig-P37.jsonl", "en/localization-amig-P36.jsonl", "en_zh/amig-P36.jsonl"):
        (results / name).unlink()
    printed = run("9_analyze_amig.py", *flags, "--languages", "en").stdout
    run("10_language_independent.py", *flags, "--languages", *LANGUAGES)
    assert printed.count("is there already, skipped") == 5
    assert {path: path.read_bytes() for path in before} == before


def test_a_malformed_line_in_a_result_is_named(world, tmp_path):
    folder, flags, _, _ = world
    shutil.copytree(folder / "results", tmp_path / "results")
    flags = [tmp_path / "results" if flag == folder / "results" else flag for flag in flags]
    for script, languages, name, column in (
        ("10_language_independent.py", ["en", "zh"], "amig", "LIKN"),
        ("9_analyze_amig.py", ["en"], "localization-dai", "related"),
    ):
        results = tmp_path / "results" / "amig" / "_".join(languages)
        path = two_languages.change_result(results, name, "P36", lambda line, key=column: line.update({key: 0.5}))
        done = run(script, *flags, "--languages", *languages, check=False)
        assert done.returncode == 1 and f"{path}, entry 1" in done.stderr and done.stderr.count("\n") == 1


def test_other_numbers_of_points_and_the_warning_for_amig_paper(world, tmp_path):
    _, flags, _, _ = world
    flags = [*flags[:4], "--output_dir", tmp_path, "--fig_dir", tmp_path, *flags[8:], "--languages", "en"]
    flags += ["--debug", "1"]
    done = run("9_analyze_amig.py", *flags, "--presets", "dai", "amig", "--points", "10")
    assert "amig-paper" not in done.stderr and "; 10 points" not in done.stdout
    folder = tmp_path / "amig" / "en"
    points = {preset: read(folder / f"{preset}.args.json")["P37"]["settings"]["points"] for preset in ("dai", "amig")}
    assert points == {"dai": 10, "amig": None}
    before = (folder / "dai-P37.jsonl").read_bytes()
    refused = run("9_analyze_amig.py", *flags, "--presets", "dai", check=False)
    assert "was made with --points 10, this run has 20" in refused.stderr and refused.returncode == 1
    assert (folder / "dai-P37.jsonl").read_bytes() == before
    done = run("9_analyze_amig.py", *flags, "--presets", "amig-paper", "--pt_relation", "P37")
    assert "neurons that lower the probability come first" in done.stderr


def test_wrong_arguments_and_missing_results_are_reported_in_one_line(world, tmp_path):
    _, flags, model, _ = world

    def error(script, *more):
        done = run(script, *more, check=False)
        assert done.returncode == 1 and done.stderr.count("\n") == 1, done.stderr
        return done.stderr

    stage_9, stage_10 = "9_analyze_amig.py", "10_language_independent.py"
    assert "expected one language" in error(stage_9, *flags, "--languages", "en", "zh")
    assert "expected 2 different languages" in error(stage_10, *flags, "--languages", "en", "en")
    assert "it has the languages en zh" in error(stage_9, *flags, "--languages", "fr")
    assert "2 for 1 languages" in error(stage_9, *flags, "--languages", "en", "--thresholds", "0.1", "0.2")
    assert "no relation P1" in error(stage_9, *flags, "--languages", "en", "--pt_relation", "P1")
    # What is missing is reported before a model is looked for.
    elsewhere = ["--bert_model", tmp_path / "none", *flags[2:4], "--output_dir", tmp_path, *flags[6:]]
    assert "run stage 9 (9_run_amig.sh) for en" in error(stage_10, *elsewhere, "--languages", *LANGUAGES)
    assert "made with --threshold" in error(stage_9, *flags, "--languages", "en", "--thresholds", "0.4")
    two_languages.write_model("bert" if model.family == "gpt2" else "gpt2", tmp_path / "model")
    other = ["--bert_model", tmp_path / "model", *flags[2:]]
    assert "made with another model" in error(stage_10, *other, "--languages", *LANGUAGES)
    assert "made with MODEL=" in error(stage_9, *other, "--languages", "en")
