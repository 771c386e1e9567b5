"""AMIG's attributions: against slow loops over transformers' own model, completeness, and which words are replaced."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.polynomial import legendre

import two_languages
from conftest import encode_prompts
from kn.methods.attribution import Engine
from kn.methods.locator import Locator, words
from kn.methods.presets import PRESETS, with_points
from kn.model import loading
from kn.model.prompts import Encoder
from kn.store.files import InputError
from two_languages import ReferenceModel

GAUSS = [(1 + legendre.leggauss(40)[0]) / 2, legendre.leggauss(40)[1] / 2]
# Of each preset: where the first point of a sum is, whether the factor is the difference, and whether each layer is
# normalised. The integral has no first point.
DEFINED = {
    "dai": (0, False, False),
    "amig": (None, True, False),
    "amig-paper": (1, False, True),
    "amig-code": (0, False, False),
}
# Texts of different lengths, with answers of one piece and of several, and the words of each query.
FACTS = {
    ("en", "P36", 0): ["The", "capital", "of", "France", "is"],
    ("en", "P37", 2): ["People", "of", "Japan", "speak"],
    ("zh", "P36", 1): ["意", "大", "利", "的", "首", "都", "是"],
    ("zh", "P37", 1): ["意", "大", "利", "的", "人", "说"],
}


@pytest.fixture(scope="module", params=["bert", "gpt2"])
def asked(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    two_languages.write_model(request.param, folder)
    return ReferenceModel(request.param, folder)


def blank(asked):
    return asked.tokenizer.mask_token_id if asked.family == "bert" else asked.tokenizer.eos_token_id


def pieces_of_words(asked, fact):
    """The tokens of each word, found another way: one word after the other, or byte by byte. A space before a word is a
    part of it; words that share all their tokens are one.
    """
    groups = []
    if asked.family == "bert":
        place = 1
        for word in FACTS[fact]:
            count = len(asked.tokenizer.tokenize(word))
            groups.append(list(range(place, place + count)))
            place += count
        return groups
    tokens = asked.encode(*fact).tokens  # each has a letter for each of its bytes
    of_bytes = [place for place, token in enumerate(tokens) for _ in token]
    done = 0
    for number, word in enumerate(FACTS[fact]):
        spaced = f" {word}" if fact[0] == "en" and number else word
        group = sorted(set(of_bytes[done : done + len(spaced.encode())]))
        done += len(spaced.encode())
        if group not in groups:
            groups.append(group)
    return groups


def sentences(asked, fact, encoded, of_pieces=False):
    """The baseline sentences' ids."""
    if of_pieces:
        query = len(encoded.ids) if asked.family == "bert" else len(encoded.ids) - len(encoded.answers) + 1
        groups = [[place] for place in range(query)]
    else:
        groups = pieces_of_words(asked, fact)
    return [[blank(asked) if place in group else token for place, token in enumerate(encoded.ids)] for group in groups]


def slow(asked, preset, fact, count=20):
    """A preset's attributions of a fact, layers x neurons, straight from the definition."""
    first, difference, by_layer = DEFINED[preset]
    points, weights = GAUSS if first is None else ((np.arange(count) + first) / count, np.full(count, 1 / count))
    encoded = asked.encode(*fact)
    total = 0
    for position, piece in zip(encoded.positions, encoded.answers, strict=True):
        end = asked.activations(encoded.ids, position)
        if preset == "dai":
            starts = [torch.zeros_like(end)]
        else:
            ids = sentences(asked, fact, encoded, of_pieces=preset == "amig-code")
            starts = [asked.activations(sentence, position) for sentence in ids]
        if preset == "amig-code":
            starts = [torch.stack(starts).mean(0)]
        for start in starts:
            factor = end - start if difference else end
            for layer in range(len(end)):
                neurons = start[layer] + torch.tensor(points)[:, None] * (end - start)[layer]
                values = asked.probability(encoded.ids, position, piece, layer, neurons.requires_grad_())
                summed = torch.tensor(weights) @ torch.autograd.grad(values.sum(), neurons)[0]
                spread = torch.zeros_like(end)
                spread[layer] = factor[layer] * summed
                total = total + spread / len(encoded.answers)
    return total / total.sum(1, keepdim=True) if by_layer else total


def attributed(locator, prompts):
    found = {}
    for batch in locator.attribute(prompts):
        found |= dict(zip(batch.prompts, batch.answer, strict=True))
    return [found[place] for place in range(len(prompts))]


def distance(ours, theirs):
    return ((ours - theirs).norm() / theirs.norm()).item()


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_are_what_slow_loops_find(asked, preset):
    expected = [slow(asked, preset, fact) for fact in FACTS]
    prompts = [asked.encode(*fact) for fact in FACTS]
    assert max(len(encoded.answers) for encoded in prompts) > 1
    locator = Locator(PRESETS[preset], asked.adapter, asked.encoder)
    for ours, theirs in zip(attributed(locator, prompts), expected, strict=True):
        assert distance(ours, theirs) <= 1e-3
    locator.engine.ladder = [replace(locator.engine.ladder[-1], between=None)]  # all the points, as they are
    for ours, theirs in zip(attributed(locator, prompts), expected, strict=True):
        assert distance(ours, theirs) <= 1e-5


@pytest.mark.parametrize("preset", ["dai", "amig-paper", "amig-code"])
def test_other_numbers_of_points(asked, preset):
    fact = next(iter(FACTS))
    locator = Locator(with_points(preset, 7), asked.adapter, asked.encoder)
    locator.engine.ladder = locator.engine.ladder[-1:]
    (ours,) = attributed(locator, [asked.encode(*fact)])
    assert distance(ours, slow(asked, preset, fact, 7)) <= 1e-5
    assert distance(ours, slow(asked, preset, fact)) > 1e-4
    assert with_points("amig", 7) == PRESETS["amig"]  # an integral


def test_sums_of_layers_may_be_negative_and_turn_the_signs(asked):
    """What is said of amig-paper where it is chosen."""
    sums, firsts = [], []
    for fact in FACTS:
        locator = Locator(replace(PRESETS["amig-paper"], by_layer=False), asked.adapter, asked.encoder)
        (plain,) = attributed(locator, [asked.encode(*fact)])
        (divided,) = attributed(Locator(PRESETS["amig-paper"], asked.adapter, asked.encoder), [asked.encode(*fact)])
        sums += plain.sum(-1).tolist()
        firsts += plain.gather(1, divided.argmax(-1, keepdim=True))[:, 0].tolist()
    assert any(total < 0 for total in sums)
    assert all((total < 0) == (first < 0) for total, first in zip(sums, firsts, strict=True))


def test_every_baseline_accounts_for_what_the_answer_loses(asked):
    """Completeness: a layer's attributions sum up to F(w) - F(w')."""
    engine = Engine(asked.adapter, "gauss", 20)
    engine.ladder = engine.ladder[-1:]
    for fact in FACTS:
        encoded = asked.encode(*fact)
        ids = sentences(asked, fact, encoded)
        ours = {}
        for batch in engine.attribute([encoded.prompt] * len(ids), baselines=[[sentence] for sentence in ids]):
            ours |= dict(zip(batch.prompts, batch.answer.sum(-1), strict=True))
        for number, sentence in enumerate(ids):
            changes = []
            for position, piece in zip(encoded.positions, encoded.answers, strict=True):
                start = asked.activations(sentence, position)
                plain = asked.probability(encoded.ids, position, piece)
                changes.append(
                    [
                        plain - asked.probability(encoded.ids, position, piece, layer, start[layer])
                        for layer in range(asked.adapter.n_layers)
                    ]
                )
            assert torch.allclose(ours[number], torch.tensor(changes).double().mean(0), atol=1e-7)


def test_paths_add_up_and_do_not_depend_on_the_batch(asked):
    prompts = [asked.encode(*fact) for fact in FACTS]
    together = attributed(Locator(PRESETS["amig"], asked.adapter, asked.encoder), prompts)
    few = Locator(PRESETS["amig"], asked.adapter, asked.encoder, max_tokens=1)
    for encoded, expected, fact in zip(prompts, together, FACTS, strict=True):
        (alone,) = attributed(few, [encoded])
        assert distance(alone, expected) <= 1e-9
        engine = Engine(asked.adapter, "gauss", 20)
        ids = sentences(asked, fact, encoded)
        several = engine.attribute([encoded.prompt] * len(ids), baselines=[[sentence] for sentence in ids])
        assert distance(sum(batch.answer.sum(0) for batch in several), expected) <= 1e-3


def test_dai_is_stage_1(golden, golden_bags):
    tokenizer, model = golden
    bags = [[bag[0]] for bag in golden_bags["P101"][:12]]
    adapter = loading.adapt(model)
    encoder = Encoder(tokenizer, 64)
    encoded = [prompt for (prompt,) in encoder.facts(bags) if len(prompt.answers) == 1]
    ours = attributed(Locator(PRESETS["dai"], adapter, encoder), encoded)
    known = [bag for bag in bags if tokenizer.convert_tokens_to_ids(bag[0][1]) != tokenizer.unk_token_id]
    stage_1 = {}
    for batch in Engine(adapter, "riemann", 20).attribute(encode_prompts(tokenizer, known)):
        stage_1 |= dict(zip(batch.prompts, batch.answer, strict=True))
    assert len(stage_1) == len(ours) > 5
    assert all(torch.equal(ours[place], scores) for place, scores in stage_1.items())


def test_the_answers_probability_is_told(asked):
    prompts = [asked.encode(*fact) for fact in FACTS]
    for batch in Locator(PRESETS["amig"], asked.adapter, asked.encoder).attribute(prompts):
        for place, own in zip(batch.prompts, batch.own, strict=True):
            encoded = prompts[place]
            pieces = zip(encoded.positions, encoded.answers, strict=True)
            of_pieces = [asked.probability(encoded.ids, *piece) for piece in pieces]
            assert own.item() == pytest.approx(torch.stack(of_pieces).mean().item(), rel=1e-9)


# ---- words ----


def test_words_are_those_of_the_query(asked):
    for fact in FACTS:
        encoded = asked.encode(*fact)
        found = words(encoded, asked.encoder)
        assert found == pieces_of_words(asked, fact)
        assert not {place for group in found for place in group} & {*encoded.positions[1:]}
        if asked.family == "bert":
            assert not {place for group in found for place in group} & {0, *encoded.positions, len(encoded.ids) - 1}


def test_a_prompt_cut_to_the_longest_input(asked):
    if asked.family == "gpt2":
        pytest.skip("a causal model's longer prompts can't be read out")
    short = Encoder(asked.tokenizer, 9)
    ((encoded,),) = short.facts([[["[MASK] is the capital of Italy, the city of Rome.", "Paris", "P36"]]])
    assert encoded.skipped is None and len(encoded.ids) == 9
    groups = words(encoded, short)
    assert all(0 < place < 8 and place not in encoded.positions for group in groups for place in group)


def test_a_query_without_words_is_skipped(asked):
    locator = Locator(PRESETS["amig"], asked.adapter, asked.encoder)
    ((encoded,),) = asked.encoder.facts([[["? , [MASK] .", "Paris", "P36"]]])
    assert encoded.skipped is None
    assert locator.skipped(encoded) == "the query has no word to replace"
    assert Locator(PRESETS["dai"], asked.adapter, asked.encoder).skipped(encoded) is None


def test_a_causal_model_without_an_end_of_text_token(asked):
    if asked.family == "bert":
        pytest.skip("a masked model has a mask token")
    locator = Locator(PRESETS["amig"], asked.adapter, asked.encoder)
    encoded, asked.tokenizer.eos_token = asked.encode("en", "P36", 0), None
    try:
        with pytest.raises(InputError, match="no end-of-text token"):
            locator.baselines(encoded)
    finally:
        asked.tokenizer.eos_token = asked.tokenizer.bos_token
