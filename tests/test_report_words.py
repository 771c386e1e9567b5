"""What the report says in words and how it writes numbers: captions, escaping, intervals that no stage computes."""

from itertools import combinations
from statistics import mean

import numpy as np
import pytest

from kn.neurons.sets import NeuronSet
from kn.report import captions, markdown, resampling
from kn.report.numerals import decimals_for, shown
from kn.report.read_back import Reported


@pytest.mark.parametrize(
    ("values", "decimals"),
    [([27738, 34], 0), ([9.35, 34], 1), ([-29.03, 0.2], 1), ([4.134], 2), ([0.485, 0.02], 3), ([1450.25], 0), ([], 0)],
)
def test_numbers_have_three_digits_and_whole_ones_no_decimals(values, decimals):
    assert decimals_for(values) == decimals


@pytest.mark.parametrize(
    ("value", "decimals", "sign", "text"),
    [(-1234.5, 1, False, "\N{MINUS SIGN}1,234.5"), (2, 0, True, "+2"), (-0.04, 1, True, "0.0"), (0.04, 1, True, "0.0")],
)
def test_minus_is_a_minus_sign_and_zero_has_none(value, decimals, sign, text):
    assert shown(value, decimals, sign) == text


@pytest.mark.parametrize(
    "raw, escaped",
    [
        ("a`b` *c* ~d~", r"a\`b\` \*c\* \~d\~"),
        ("![a](http://x/y) | <b>", r"!\[a\](http:\//x/y) \| &lt;b&gt;"),
        ("two\nlines \\[a]", r"two lines \\\[a\]"),
        ("_a_ bert_model __b__", r"\_a\_ bert_model \_\_b\_\_"),
    ],
)
def test_text_in_markdown_stays_text(raw, escaped):
    assert markdown.text(raw) == escaped


def test_captions_say_what_the_numbers_say():
    shares = {"knowledge neurons": [0.0, 0.0, 0.0, 5.0, 10.0, 10.0, 15.0, 60.0], "baseline": [None] * 8}
    assert captions.layers(shares) == (
        "Knowledge neurons: layer 7 has the largest share, 60 %; the last quarter (layers 6 to 7) has 75 %. "
        "Baseline: no neurons."
    )
    changes = {"P1": Reported(-40, -60, -20), "P2": Reported(-3.25, -7, 1), "P3": Reported(2, -1, 5)}
    by_arm = {"knowledge neurons": changes, "random neurons": {"P1": Reported(0.5), "P2": Reported(-0.25)}}
    caption = captions.modified(by_arm, "Suppressing", True, {"P1": "P1 capital", "P3": "P3 x"}.get)
    assert caption.replace("\N{MINUS SIGN}", "-") == (
        "Suppressing them lowers the answer's probability in 2 of 3 relations, with the whole interval below zero in "
        "1. The changes are from -40 % (P1 capital) to +2.0 % (P3 x). Random neurons: -0.2 % to +0.5 %."
    )
    averages = {"edits": 20, "success_updated": 0.25, "inner_ppl_inc_ratio": 0.5}
    pairs = [
        {"lambda1": 1, "lambda2": strength, "averages": {"knowledge neurons": averages | {"success_updated": success}}}
        for strength, success in ((2, 0.05), (8, 0.25))
    ]
    pairs[1]["averages"]["random neurons"] = averages | {"success_updated": 0.0}
    assert captions.update(pairs, "success_updated", "lead to the new answer") == (
        "With strengths 1 and 8, the best of 2 pairs, 25 % of 20 edits lead to the new answer; the relation's "
        "perplexity changes by +50 %. Random neurons: 0.0 %."
    )
    none = {"edits": 0, "success_updated": None, "inner_ppl_inc_ratio": None}
    assert (
        captions.update([{"lambda1": 1, "lambda2": 8, "averages": {"knowledge neurons": none}}], "success_updated", "")
        == ""
    )


def test_intervals_of_shared_neurons_are_those_of_drawing_facts_again():
    """Beside a loop over all pairs of facts drawn."""
    relations = {
        "P1": [[(0, 1), (0, 2)], [(0, 2)], [], [(0, 2), (1, 3)]],
        "P2": [[(1, 3)], [(0, 1), (1, 3)]],
        "P3": [[(2, 2), (0, 2)], [(2, 2)], [(2, 2)]],
    }
    draws, rng = 40, np.random.default_rng(7)
    times = {name: resampling.weights(rng, len(facts), draws) for name, facts in relations.items()}
    expected = {
        "neurons per fact": [],
        "shared by two facts of one relation": [],
        "shared by facts of two relations": [],
    }
    for draw in range(draws):
        drawn = {
            name: [(fact, set(facts[fact])) for fact in range(len(facts)) for _ in range(int(times[name][draw, fact]))]
            for name, facts in relations.items()
        }
        within = [
            len(mine & theirs)
            for facts in drawn.values()
            for (fact, mine), (other, theirs) in combinations(facts, 2)
            if fact != other
        ]
        between = [
            mean(mean(len(mine & theirs) for _, theirs in drawn[other]) for other in drawn if other != name)
            for name, facts in drawn.items()
            for _, mine in facts
        ]
        sizes = [len(members) for facts in drawn.values() for _, members in facts]
        for values, new in zip(expected.values(), (sizes, within, between), strict=True):
            values.append(mean(new) if new else np.nan)
    sets = {name: [NeuronSet(members) for members in facts] for name, facts in relations.items()}
    measured = resampling.intervals(sets, 7, draws)
    for name, values in expected.items():
        assert list(measured[name]) == pytest.approx(np.nanquantile(values, (0.025, 0.975)))
