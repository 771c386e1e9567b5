"""Crawled sentences: masking them, stages 4 and 5 on the golden world, and malformed data."""

import json
import random
import shutil
from collections import Counter

import numpy as np
import pytest
import torch

from conftest import GOLDEN, RELATIONS, read, run
from kn.data import crawled
from kn.experiments import neuron_sentences
from kn.experiments.neuron_sentences import Source
from kn.neurons.sets import Neuron
from kn.store import runs
from kn.store.files import InputError

PUBLISHED = GOLDEN / "results"
DISTANT = GOLDEN / "data" / "BingDistantTREx"
DRAWS = GOLDEN / "draws" / "stage4_masked_sentences.json"
ARMS = {"": "knowledge neurons", "base_": "baseline"}


def crawled_flags(results, *more, distant=DISTANT):
    return [
        *("--bert_model", GOLDEN / "model", "--data_path", GOLDEN / "data" / "PARAREL" / "data_all.json"),
        *("--distant_data_dir", distant / "final", "--query_pairs_path", distant / "query_pairs.json"),
        *("--kn_dir", PUBLISHED / "kn", "--output_dir", results, "--device", "cpu", *more),
    ]


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def golden_sentences():
    pairs = read(DISTANT / "query_pairs.json")
    return pairs, {name: crawled.read_sentences(DISTANT / "final", name, pairs[name]) for name in pairs}


def slow_activations(golden, text, neurons):
    """The inputs of the FFNs' output projections at the mask, from hooks in transformers' own model."""
    tokenizer, model = golden
    inputs = tokenizer(text, return_tensors="pt")
    position = inputs["input_ids"][0].tolist().index(tokenizer.mask_token_id)
    inputs_by_layer = []
    hooks = [
        layer.output.dense.register_forward_pre_hook(lambda module, args: inputs_by_layer.append(args[0][0, position]))
        for layer in model.bert.encoder.layer
    ]
    with torch.no_grad():
        model(**inputs)
    for hook in hooks:
        hook.remove()
    return [inputs_by_layer[layer][index].item() for layer, index in neurons]


# ---- masking ----


@pytest.mark.parametrize(
    "subject, answer, text, masked",
    [
        ("Kotaba", "Jehe", "Jehe is in Kotaba, and Jehe is large.", "[MASK] is in Kotaba, and Jehe is large."),
        ("Nissan Stagea", "Nissan", "The Nissan Stagea is by Nissan.", "The Nissan Stagea is by [MASK]."),
        ("Nissan Stagea", "Nissan", "The Nissan Stagea.", None),
        ("Guatemala", "Guatemala City", "Guatemala City in Guatemala", "[MASK] in Guatemala"),
        ("Monaco", "Monaco", "Monaco is the capital of Monaco.", None),
        ("Omani rial", "Oman", "The Omani people of Oman", "The Omani people of [MASK]"),
        ("Adobe", "HTML", "Adobe's HTML5, HTML_x and XHTML", None),
        ("Kent", "BBC", "Kent on BBC-radio", "Kent on [MASK]-radio"),
        ("f(x", "a)b", "f(x is a)b.", "f(x is [MASK]."),
        ("x.y", "C++", "x.y is in C++, xxy too", "x.y is in [MASK], xxy too"),
        ("[A]*", "*NSYNC", "[A]* sang in *NSYNC", "[A]* sang in [MASK]"),
        ('"Weird" Al', "O'Hara", '"Weird" Al met O\'Hara.', '"Weird" Al met [MASK].'),
        ("A\\d", "$5 (US)", "A\\d costs $5 (US)", "A\\d costs [MASK]"),
        ("Bogot", "Bogotá", "Bogotá, not Bogot", "[MASK], not Bogot"),
        ("Élan", "São", "Élan in São Paulo", "Élan in [MASK] Paulo"),
        ("東京", "日本", "東京は日本の首都", "東京は[MASK]の首都"),
        ("東京", "Japan", "東京はJapanの首都", "東京は[MASK]の首都"),
        ("北京", "京", "北京在京", "北京在[MASK]"),
    ],
)
def test_the_first_object_that_is_a_word_outside_the_subject_is_masked(subject, answer, text, masked):
    assert crawled.mask_object(text, subject, answer) == masked


def test_th_sentences_are_masked_as_the_published_program_did():
    pairs, sentences = golden_sentences()
    compared = 0
    for name, drawn in read(DRAWS).items():
        relation = name.removeprefix("base_")
        for sentences_of_fact, pair, entry in zip(sentences[relation], pairs[relation], drawn, strict=True):
            if isinstance(entry, list):
                assert crawled.mask_objects(sentences_of_fact, pair).th == entry[0]
                compared += 1
    assert compared == 193


def test_the_random_word_is_drawn_from_the_first_fifty_without_the_subjects():
    rng = random.Random(1)
    words = [f"w{number}," for number in range(60)]
    words[20:22] = ["(Ann+", "Lee's"]
    masked = Counter()
    for _ in range(3000):
        parts = crawled.mask_word(" ".join(words), rng, subject="Ann+ Lee").split(" ")
        position = parts.index("[MASK]")
        assert parts == [*words[:position], "[MASK]", *words[position + 1 :]]
        masked[position] += 1
    assert set(masked) == set(range(50)) - {20, 21}
    assert max(masked.values()) < 2 * 3000 / 48  # all are drawn about equally often
    # Without a subject any word may be masked; a sentence with no other words than the subject is left out.
    assert {crawled.mask_word("Ann+ Lee", rng) for _ in range(20)} == {"[MASK] Lee", "Ann+ [MASK]"}
    assert crawled.mask_word("Ann+ Lee.", rng, subject="Ann+ Lee") is None
    assert {crawled.mask_word("ab 京都", rng) for _ in range(30)} == {"[MASK] 京都", "ab [MASK]都", "ab 京[MASK]"}


def test_a_sentence_is_left_out_after_four_draws_of_the_subject():
    """If half of the words are the subject's, that is a sixteenth of the sentences."""
    rng = random.Random(2)
    masked = [crawled.mask_word("Ann sings", rng, subject="Ann") for _ in range(4000)]
    assert set(masked) == {"Ann [MASK]", None}
    assert masked.count(None) / 4000 == pytest.approx(1 / 16, abs=0.012)


def test_sentences_that_cannot_be_masked_are_counted():
    sentences = {
        "th_bags": ["Jehe, Kotaba.", "Kotaba", " ", "Jehe [MASK] Kotaba", "In Kotaba lies Jehe."],
        "h_bags": ["Kotaba", "", "Kotaba rests."],
    }
    pool = crawled.pool({"P36": [sentences]})
    assert pool == ["Jehe, Kotaba.", "Kotaba", "In Kotaba lies Jehe.", "Kotaba", "Kotaba rests."]
    masked = crawled.mask_fact(sentences, ["Kotaba", "Jehe"], runs.rng(42), pool)
    assert masked.th == ["[MASK], Kotaba.", "In Kotaba lies [MASK]."] and masked.h == ["Kotaba [MASK]"]
    assert len(masked.rd) == 2 and all(text.count("[MASK]") == 1 for text in masked.rd)
    assert masked.left_out == {
        "th: no object to mask outside the subject": 3,
        "h: no word to mask outside the subject": 2,
    }


# ---- stage 4 ----


@pytest.fixture(scope="module")
def published_draws(tmp_path_factory):
    """Results of stage 4 on the masked sentences that the published program drew."""
    results = tmp_path_factory.mktemp("published_draws")
    run("4_check_weights_distant.py", *crawled_flags(results, "--draws", DRAWS))
    return results / "distant"


@pytest.fixture(scope="module")
def distant(tmp_path_factory):
    """Results of stage 4 with its own draws."""
    results = tmp_path_factory.mktemp("distant")
    run("4_check_weights_distant.py", *crawled_flags(results))
    return results / "distant"


@pytest.mark.parametrize("prefix", ARMS)
def test_stage_4_repeats_the_published_measurement(published_draws, prefix):
    name = f"{prefix}kn_weights@distant_data.json"
    ours, theirs = read(published_draws / name), read(PUBLISHED / "distant" / name)
    assert set(ours) == set(theirs) == set(RELATIONS)
    for relation in RELATIONS:
        assert len(ours[relation]) == len(theirs[relation]) == 40
        for our_fact, their_fact in zip(ours[relation], theirs[relation], strict=True):
            if isinstance(their_fact, str):
                assert our_fact == their_fact
            else:
                np.testing.assert_allclose(our_fact, their_fact, atol=1e-5, rtol=0)


@pytest.mark.parametrize("prefix, arm", ARMS.items())
def test_the_summary_is_what_the_figure_averages(published_draws, prefix, arm):
    theirs = read(PUBLISHED / "distant" / f"{prefix}kn_weights@distant_data.json")
    for relation in RELATIONS:
        summary = read(published_draws / "summary.json")[relation][arm]
        measured = [fact for fact in theirs[relation] if not isinstance(fact, str)]
        assert summary["facts"] == len(measured)
        for status in ("no_exmp", "no_kn"):
            assert summary[status] == theirs[relation].count(status)
        for number, kind in enumerate(("th", "h", "rd")):
            pooled = [value for fact in measured for value in fact[number]]
            assert summary[kind]["mean"] == pytest.approx(np.mean(pooled), abs=1e-5)
            low, high = summary[kind]["interval"]
            assert low < summary[kind]["mean"] < high


def test_stage_4_measures_what_transformers_computes(distant, golden):
    pairs, sentences = golden_sentences()
    pool = [text for name in pairs for fact in sentences[name] for kind in ("th_bags", "h_bags") for text in fact[kind]]
    neurons = {prefix: read(PUBLISHED / "kn" / f"{prefix}kn_bag-P103.json") for prefix in ARMS}
    for fact, line in list(enumerate(lines(distant / "weights-P103.jsonl")))[::7]:
        rng = runs.rng(42, "stage 4", "P103", fact)
        masked = crawled.mask_fact(sentences["P103"][fact], pairs["P103"][fact], rng, pool)
        assert len(masked.rd) == len(masked.th)
        for prefix, arm in ARMS.items():
            if not masked.th:
                assert line[arm] == "no_exmp"
            elif not neurons[prefix][fact]:
                assert line[arm] == "no_kn"
            else:
                expected = [
                    np.mean([slow_activations(golden, text, neurons[prefix][fact]) for text in kind], 0)
                    for kind in (masked.th, masked.h, masked.rd)
                ]
                np.testing.assert_allclose(line[arm], expected, atol=1e-5, rtol=0)


def test_a_facts_numbers_do_not_depend_on_other_relations_debug_or_batches(distant, tmp_path):
    few = ("--pt_relation", "P101", "--debug", "6", "--max_tokens", "40")
    run("4_check_weights_distant.py", *crawled_flags(tmp_path, *few))
    whole = lines(distant / "weights-P101.jsonl")
    few_lines = lines(tmp_path / "distant" / "weights-P101.jsonl")
    assert len(few_lines) == 6 and not list(tmp_path.glob("**/weights-P36*"))
    for line, expected in zip(few_lines, whole, strict=False):
        for arm in ARMS.values():
            if isinstance(expected[arm], str):
                assert line[arm] == expected[arm]
            else:
                np.testing.assert_allclose(line[arm], expected[arm], atol=1e-6, rtol=0)


def test_running_stage_4_again_changes_nothing_and_other_settings_are_refused(distant):
    before = {path.name: path.read_bytes() for path in distant.iterdir()}
    run("4_check_weights_distant.py", *crawled_flags(distant.parent))
    other = run("4_check_weights_distant.py", *crawled_flags(distant.parent, "--seed", "1"), check=False)
    assert other.returncode == 1 and "was made with SEED=42, this run has 1" in other.stderr
    assert {path.name: path.read_bytes() for path in distant.iterdir()} == before


@pytest.fixture
def shuffled(tmp_path):
    """A folder with the neurons of P101, those of one fact in reverse order; that fact's number and neurons."""
    shutil.copytree(PUBLISHED / "kn", tmp_path / "shuffled")
    path = tmp_path / "shuffled" / "kn_bag-P101.json"
    bags = read(path)
    fact = next(fact for fact, bag in enumerate(bags) if len({layer for layer, _ in bag}) > 1)
    bags[fact] = bags[fact][::-1]
    path.write_text(json.dumps(bags))
    return path.parent, fact, bags[fact]


def test_a_facts_numbers_are_sorted_by_layer(shuffled, distant, tmp_path):
    kn_dir, fact, bag = shuffled
    run("4_check_weights_distant.py", *crawled_flags(tmp_path, "--kn_dir", kn_dir, "--pt_relation", "P101"))
    ours, whole = (read(folder / "kn_weights@distant_data.json")["P101"] for folder in (tmp_path / "distant", distant))
    assert ours[:fact] == whole[:fact] and ours[fact + 1 :] == whole[fact + 1 :]
    published = read(PUBLISHED / "kn" / "kn_bag-P101.json")[fact]  # sorted by layer
    by_layer = [neuron for layer in range(5) for neuron in bag if neuron[0] == layer]
    assert by_layer != bag
    for values, whole_values in zip(ours[fact], whole[fact], strict=True):
        value_of = dict(zip(map(tuple, by_layer), values, strict=True))
        assert value_of == dict(zip(map(tuple, published), whole_values, strict=True))
    line = lines(tmp_path / "distant" / "weights-P101.jsonl")[fact]
    assert line["knowledge neurons"] == ours[fact]


def test_an_old_result_in_the_order_of_the_bags_is_kept_only_if_those_are_sorted_by_layer(shuffled, tmp_path):
    kn_dir, *_ = shuffled
    flags = crawled_flags(tmp_path, "--kn_dir", kn_dir, "--pt_relation", "P101", "P103")
    run("4_check_weights_distant.py", *flags)
    path = tmp_path / "distant" / "weights.args.json"
    record = read(path)
    assert record["P101"]["settings"].pop("order") == "by layer" and "order" not in record["P103"]["settings"]
    path.write_text(json.dumps(record))  # as an earlier version wrote it
    before = {path.name: path.read_bytes() for path in path.parent.iterdir()}
    done = run("4_check_weights_distant.py", *flags, check=False)
    assert done.returncode == 1 and "weights-P101.jsonl" in done.stderr and "by layer" in done.stderr
    assert {path.name: path.read_bytes() for path in path.parent.iterdir()} == before
    run("4_check_weights_distant.py", *crawled_flags(tmp_path, "--kn_dir", kn_dir, "--pt_relation", "P103"))


# ---- stage 5 ----


@pytest.fixture(scope="module")
def triggers(tmp_path_factory):
    results = tmp_path_factory.mktemp("triggers")
    run("5_find_trigger_examples.py", *crawled_flags(results))
    return results / "trigger_examples_th"


def test_stage_5_finds_the_published_examples(triggers):
    theirs = {path.name: path.read_text().splitlines() for path in (PUBLISHED / "trigger_examples_th").iterdir()}
    assert {path.name for path in triggers.glob("*.txt")} == set(theirs)
    for name, expected in theirs.items():
        ours = (triggers / name).read_text().splitlines()
        heading = expected.index("Top-10 Trigger examples:")
        count = len(expected) - heading - 1
        assert ours[:heading] == expected[:heading]
        assert ours[heading] == "Top-20 trigger examples:"
        assert ours[heading + count + 1] == "Bottom-20 trigger examples:"
        top, bottom = ours[heading + 1 : heading + 1 + count], ours[heading + count + 2 :]
        assert bottom == top[::-1]
        for line, published in zip(top, expected[heading + 1 :], strict=True):
            (value, text), (their_value, their_text) = line.split("\t"), published.split("\t")
            assert text == their_text and float(value) == pytest.approx(float(their_value), abs=1e-5)


def test_stage_5_writes_its_numbers_as_json_too(triggers, golden):
    facts = read(triggers / "P101.json")
    assert [f"P101-{fact['fact']}.txt" for fact in facts] == sorted(
        (path.name for path in triggers.glob("P101-*.txt")), key=lambda name: int(name[5:-4])
    )
    second = next(fact for fact in facts if fact["fact"] == 1)
    assert second["triplet"] == ["Rije Tapo", "P101", "surgery"]
    assert second["neurons"] == read(PUBLISHED / "kn" / "kn_bag-P101.json")[1]
    pairs, sentences = golden_sentences()
    sums = [
        sum(slow_activations(golden, text, second["neurons"]))
        for text in crawled.mask_objects(sentences["P101"][1], pairs["P101"][1]).th
    ]
    assert [value for value, _ in second["most"]] == pytest.approx(sorted(sums, reverse=True), abs=1e-5)


def test_each_neurons_sentences_are_the_outermost_of_its_relation(triggers, golden):
    pairs, sentences = golden_sentences()
    bags = read(PUBLISHED / "kn" / "kn_bag-P101.json")
    in_use = sorted({tuple(neuron) for bag in bags for neuron in bag})
    read_at = {}  # by text
    facts = {}
    for fact, bag in enumerate(bags):
        for text in crawled.mask_objects(sentences["P101"][fact], pairs["P101"][fact]).th if bag else []:
            read_at[text] = slow_activations(golden, text, in_use)
            facts.setdefault(text, fact)
    found = read(triggers / "neurons-P101.json")
    assert [tuple(entry["neuron"]) for entry in found] == in_use
    for number, entry in enumerate(found):
        values = sorted(activations[number] for activations in read_at.values())
        for end, expected in (("most", values[::-1][:5]), ("least", values[:5])):
            shown = entry[end]
            assert [sentence["activation"] for sentence in shown] == pytest.approx(expected, abs=1e-5)
            for sentence in shown:
                assert sentence["activation"] == pytest.approx(read_at[sentence["text"]][number], abs=1e-5)
                assert sentence["fact"] == facts[sentence["text"]]


def test_a_sentence_of_several_facts_counts_once():
    texts = [["a [MASK] x", "b [MASK]"], ["a [MASK] x", "c [MASK]"], ["a [MASK] x"], ["d [MASK]", "a [MASK] y"]]
    activations = np.array([[5.0], [1.0], [5.0], [2.0], [5.0], [0.0], [4.0]])
    sources = [Source(fact, number) for fact, own in enumerate(texts) for number in range(len(own))]
    flat = [text for own in texts for text in own]
    neuron = Neuron(3, 7)
    units = [
        *neuron_sentences.ends([neuron], activations[:4], sources[:4], flat[:4]),
        *neuron_sentences.ends([neuron], activations[4:], sources[4:], flat[4:]),
    ]
    (whole,) = neuron_sentences.merged(units, texts, causal=False)
    assert [(entry["activation"], entry["fact"]) for entry in whole["most"]] == [(5, 0), (4, 3), (2, 1), (1, 0), (0, 3)]
    assert [entry["text"] for entry in whole["least"]] == [entry["text"] for entry in whole["most"]][::-1]
    (causal,) = neuron_sentences.merged(units, texts, causal=True)  # what follows the mask was not read
    assert [entry["text"] for entry in causal["most"]] == ["a [MASK]", "c [MASK]", "b [MASK]", "d [MASK]"]


def test_neurons_are_added_to_results_of_earlier_versions(triggers, tmp_path):
    folder = tmp_path / "trigger_examples_th"
    shutil.copytree(triggers, folder)
    new = list(folder.glob("neurons-*"))
    content = {path: path.read_bytes() for path in new}
    assert len(content) == 6
    for path in new:
        path.unlink()
    record = read(folder / "examples.args.json")
    (folder / "examples.args.json").write_text(json.dumps({name: record[name] for name in RELATIONS}))
    before = (folder / "P101.jsonl").stat().st_mtime_ns
    run("5_find_trigger_examples.py", *crawled_flags(tmp_path))
    assert (folder / "P101.jsonl").stat().st_mtime_ns == before
    assert {path: path.read_bytes() for path in new} == content


# ---- malformed data ----


@pytest.fixture
def awkward(tmp_path):
    """The golden world with other sentences about the first facts of P36."""
    folder = tmp_path / "awkward"
    (folder / "final").mkdir(parents=True)
    for path in DISTANT.glob("final/*.json"):
        (folder / "final" / path.name).write_text(path.read_text())
    (folder / "query_pairs.json").write_text((DISTANT / "query_pairs.json").read_text())
    path = folder / "final" / "final_distant_allbags_P36_new.json"
    sentences = read(path)
    others = [text for fact in sentences[6:16] for text in fact["th_bags"]]
    sentences[0]["th_bags"] = [f"{text} Jehe" for text in others[:25]]  # more than stage 5 shows
    sentences[1]["th_bags"] = ["Wineje alone", "Pofish Wineje"]
    sentences[2]["h_bags"] = []
    sentences[3]["th_bags"].append(f"{'the ' * 90}Nelu of Barimi")
    path.write_text(json.dumps(sentences))
    return folder


def test_sentences_that_cannot_be_measured_are_counted_and_left_out(awkward, tmp_path, distant):
    flags = ("--pt_relation", "P36", "--max_seq_length", "90")
    run("4_check_weights_distant.py", *crawled_flags(tmp_path, *flags, distant=awkward))
    measured = lines(tmp_path / "distant" / "weights-P36.jsonl")
    for fact in (1, 2):
        assert measured[fact]["knowledge neurons"] == measured[fact]["baseline"] == "no_exmp"
    whole = lines(distant / "weights-P36.jsonl")
    np.testing.assert_allclose(measured[3]["baseline"][0], whole[3]["baseline"][0], atol=1e-6, rtol=0)
    left_out = read(tmp_path / "distant" / "weights.args.json")["P36"]["left out"]
    assert left_out["th: no object to mask outside the subject"] == 2
    assert left_out["th: [MASK] stands beyond the first 90 word pieces"] == 1


def test_the_twenty_highest_and_the_twenty_lowest_sentences_are_shown(awkward, tmp_path):
    run("5_find_trigger_examples.py", *crawled_flags(tmp_path, "--pt_relation", "P36", "--debug", "4", distant=awkward))
    folder = tmp_path / "trigger_examples_th"
    examples = lines(folder / "P36.jsonl")[0]["examples"]
    values = [value for value, _ in examples]
    assert len(values) == 25 and values == sorted(values, reverse=True)
    shown = read(folder / "P36.json")[0]
    assert shown["most"] == examples[:20] and shown["least"] == examples[:4:-1]
    text = (folder / "P36-0.txt").read_text()
    assert text.count("[CLS]") == 40 and text.endswith(f"{examples[5][0]}\t{examples[5][1]}\n")
    # Fact 1 has no sentence with the object, so no file; fact 2 only lacks h sentences, which stage 5 does not need.
    assert not (folder / "P36-1.txt").exists() and (folder / "P36-2.txt").exists()


@pytest.mark.parametrize(
    "damage, message",
    [
        (lambda facts: facts[:-1], "has 39 facts, the pairs are 40"),
        (lambda facts: {"facts": facts}, "expected a list with the sentences of each fact"),
        (lambda facts: [{"th_bags": []}, *facts[1:]], "fact 0: expected"),
        (lambda facts: [*facts[:7], {"th_bags": [], "h_bags": [None]}, *facts[8:]], "fact 7: expected"),
    ],
)
def test_sentences_that_do_not_fit_the_facts_are_named(awkward, damage, message):
    path = awkward / "final" / "final_distant_allbags_P36_new.json"
    path.write_text(json.dumps(damage(read(path))))
    with pytest.raises(InputError) as error:
        crawled.read_sentences(awkward / "final", "P36", read(DISTANT / "query_pairs.json")["P36"])
    assert str(path) in str(error.value) and message in str(error.value)


@pytest.mark.parametrize(
    "damage, message",
    [
        (lambda pairs: pairs.pop("P103"), "has no relation P103"),
        (lambda pairs: pairs["P36"].pop(), "relation P36: has 39 pairs, the data have 40 facts"),
        (lambda pairs: pairs["P36"].append(["a", "b"]), "relation P36: has 41 pairs, the data have 40 facts"),
        (lambda pairs: pairs["P36"].reverse(), "relation P36, pair 0: the object is"),
    ],
)
def test_pairs_that_do_not_fit_the_facts_are_named(awkward, golden_bags, damage, message):
    path = awkward / "query_pairs.json"
    pairs = read(path)
    damage(pairs)
    path.write_text(json.dumps(pairs))
    with pytest.raises(InputError, match=message):
        crawled.read_pairs(path, golden_bags, debug=-1)


def test_wrong_arguments_end_with_one_line_and_no_result(tmp_path, awkward):
    (awkward / "final" / "final_distant_allbags_P103_new.json").unlink()
    (tmp_path / "draws.json").write_text(json.dumps(read(DRAWS) | {"base_P101": [[["a [MASK]"], ["b"]]] * 40}))
    calls = [
        (crawled_flags(tmp_path / "out", distant=awkward), "final_distant_allbags_P103_new.json: no such file"),
        (crawled_flags(tmp_path / "out", "--kn_dir", tmp_path), "run stage 2 (2_run_kn.sh) first"),
        (
            crawled_flags(tmp_path / "out", "--draws", tmp_path / "draws.json", "--pt_relation", "P101"),
            'draws.json, "base_P101", fact 0: expected a list of 3',
        ),
    ]
    for flags, message in calls:
        done = run("4_check_weights_distant.py", *flags, check=False)
        assert done.returncode == 1 and message in done.stderr and "Traceback" not in done.stderr
        assert len(done.stderr.strip().splitlines()) == 1
    assert not list(tmp_path.glob("out/**/*.json*"))
