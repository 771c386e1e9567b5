"""AMIG's attributions against slow loops over transformers' own model; completeness; which words are replaced."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.polynomial import legendre

import two_languages
from conftest import encode_prompts
from kn.methods.attribution import Engine
from kn.methods.direct import mean_activations
from kn.methods.locator import Locator, subject_end, words
from kn.methods.presets import PRESETS, with_points
from kn.model import loading
from kn.model.prompts import Encoder
from kn.store.files import InputError
from two_languages import ReferenceModel

GAUSS = [(1 + legendre.leggauss(40)[0]) / 2, legendre.leggauss(40)[1] / 2]
# Per preset: the first point of its sum (none for an integral), whether the gradients are multiplied by the difference
# from the baseline, and whether each layer is normalised.
DEFINITIONS = {
    "dai": (0, False, False),
    "amig": (None, True, False),
    "amig-paper": (1, False, True),
    "amig-code": (0, False, False),
    "easyedit": (0, False, False),  # its only point
    "atp": (1, False, False),
}
FROM_ZERO = ("dai", "easyedit", "atp")
# Facts with texts of different lengths and answers of one or several pieces, and the words of their queries.
FACTS = {
    ("en", "P36", 0): ["The", "capital", "of", "France", "is"],
    ("en", "P37", 2): ["People", "of", "Japan", "speak"],
    ("zh", "P36", 1): ["意", "大", "利", "的", "首", "都", "是"],
    ("zh", "P37", 1): ["意", "大", "利", "的", "人", "说"],
}


@pytest.fixture(scope="module", params=["bert", "gpt2"])
def model(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    two_languages.write_model(request.param, folder)
    return ReferenceModel(request.param, folder)


def replacement_token(model):
    return model.tokenizer.mask_token_id if model.family == "bert" else model.tokenizer.eos_token_id


def pieces_of_words(model, fact):
    """The positions of each word's tokens, computed in another way: word by word, or byte by byte.

    A space belongs to the word after it; words that share all their tokens count as one.
    """
    groups = []
    if model.family == "bert":
        start = 1
        for word in FACTS[fact]:
            end = start + len(model.tokenizer.tokenize(word))
            groups.append(list(range(start, end)))
            start = end
        return groups
    tokens = model.encode(*fact).tokens  # one letter per byte
    position_of_byte = [position for position, token in enumerate(tokens) for _ in token]
    start = 0
    for number, word in enumerate(FACTS[fact]):
        spaced = f" {word}" if fact[0] == "en" and number else word
        end = start + len(spaced.encode())
        group = sorted(set(position_of_byte[start:end]))
        start = end
        if group not in groups:
            groups.append(group)
    return groups


def baseline_sentences(model, fact, encoded, per_piece=False):
    """The ids of the baseline baseline_sentences: the query with one word (or one piece) replaced."""
    if per_piece:
        query = len(encoded.ids) if model.family == "bert" else len(encoded.ids) - len(encoded.answers) + 1
        groups = [[position] for position in range(query)]
    else:
        groups = pieces_of_words(model, fact)
    baselines = []
    for group in groups:
        ids = list(encoded.ids)
        for position in group:
            ids[position] = replacement_token(model)
        baselines.append(ids)
    return baselines


def slow_attributions(model, preset, fact, count=None):
    """A preset's attributions of a fact, layers x neurons, straight from the definition."""
    first, difference, by_layer = DEFINITIONS[preset]
    count = count or PRESETS[preset].points
    points, weights = GAUSS if first is None else ((np.arange(count) + first) / count, np.full(count, 1 / count))
    encoded = model.encode(*fact)
    total = 0
    for position, piece in zip(encoded.positions, encoded.answers, strict=True):
        end = model.activations(encoded.ids, position)
        if preset in FROM_ZERO:
            starts = [torch.zeros_like(end)]
        else:
            ids = baseline_sentences(model, fact, encoded, per_piece=preset == "amig-code")
            starts = [model.activations(sentence, position) for sentence in ids]
        if preset == "amig-code":
            starts = [torch.stack(starts).mean(0)]
        for start in starts:
            factor = end - start if difference else end
            for layer in range(len(end)):
                neurons = start[layer] + torch.tensor(points)[:, None] * (end - start)[layer]
                values = model.probability(encoded.ids, position, piece, layer, neurons.requires_grad_())
                summed = torch.tensor(weights) @ torch.autograd.grad(values.sum(), neurons)[0]
                attributions = torch.zeros_like(end)
                attributions[layer] = factor[layer] * summed
                total = total + attributions / len(encoded.answers)
    return total / total.sum(1, keepdim=True) if by_layer else total


def attributed(locator, prompts):
    scores = {}
    for batch in locator.attribute(prompts):
        scores |= dict(zip(batch.prompts, batch.answer, strict=True))
    return [scores[number] for number in range(len(prompts))]


def distance(ours, theirs):
    return ((ours - theirs).norm() / theirs.norm()).item()


@pytest.mark.parametrize("preset", DEFINITIONS)
def test_presets_agree_with_slow_loops(model, preset):
    expected = [slow_attributions(model, preset, fact) for fact in FACTS]
    prompts = [model.encode(*fact) for fact in FACTS]
    assert max(len(encoded.answers) for encoded in prompts) > 1
    locator = Locator(PRESETS[preset], model.adapter, model.encoder)
    for ours, theirs in zip(attributed(locator, prompts), expected, strict=True):
        assert distance(ours, theirs) <= 1e-3
    locator.engine.ladder = [replace(locator.engine.ladder[-1], between=None)]  # evaluate all points
    for ours, theirs in zip(attributed(locator, prompts), expected, strict=True):
        assert distance(ours, theirs) <= 1e-5


@pytest.mark.parametrize("preset", ["dai", "amig-paper", "amig-code"])
def test_the_number_of_points_can_be_changed_for_sums(model, preset):
    fact = next(iter(FACTS))
    locator = Locator(with_points(preset, 7), model.adapter, model.encoder)
    locator.engine.ladder = locator.engine.ladder[-1:]
    (ours,) = attributed(locator, [model.encode(*fact)])
    assert distance(ours, slow_attributions(model, preset, fact, 7)) <= 1e-5
    assert distance(ours, slow_attributions(model, preset, fact)) > 1e-4
    for fixed in ("amig", "easyedit", "atp"):  # an integral has no number of points, and one point is not a sum
        assert with_points(fixed, 7) == PRESETS[fixed]


def test_amig_paper_reverses_signs_where_a_layers_sum_is_negative(model):
    """Stage 9 warns of this when the preset is used."""
    sums, firsts = [], []
    for fact in FACTS:
        locator = Locator(replace(PRESETS["amig-paper"], by_layer=False), model.adapter, model.encoder)
        (plain,) = attributed(locator, [model.encode(*fact)])
        (divided,) = attributed(Locator(PRESETS["amig-paper"], model.adapter, model.encoder), [model.encode(*fact)])
        sums += plain.sum(-1).tolist()
        firsts += plain.gather(1, divided.argmax(-1, keepdim=True))[:, 0].tolist()
    assert any(total < 0 for total in sums)
    assert all((total < 0) == (first < 0) for total, first in zip(sums, firsts, strict=True))


def test_attributions_from_any_baseline_are_complete(model):
    """A layer's attributions sum to F(w) - F(w')."""
    engine = Engine(model.adapter, "gauss", 20)
    engine.ladder = engine.ladder[-1:]
    for fact in FACTS:
        encoded = model.encode(*fact)
        ids = baseline_sentences(model, fact, encoded)
        ours = {}
        for batch in engine.attribute([encoded.prompt] * len(ids), baselines=[[sentence] for sentence in ids]):
            ours |= dict(zip(batch.prompts, batch.answer.sum(-1), strict=True))
        for number, sentence in enumerate(ids):
            changes = []
            for position, piece in zip(encoded.positions, encoded.answers, strict=True):
                start = model.activations(sentence, position)
                plain = model.probability(encoded.ids, position, piece)
                changes.append(
                    [
                        plain - model.probability(encoded.ids, position, piece, layer, start[layer])
                        for layer in range(model.adapter.n_layers)
                    ]
                )
            assert torch.allclose(ours[number], torch.tensor(changes).double().mean(0), atol=1e-7)


def test_the_attributions_of_the_baselines_add_up_and_do_not_depend_on_the_batch(model):
    prompts = [model.encode(*fact) for fact in FACTS]
    together = attributed(Locator(PRESETS["amig"], model.adapter, model.encoder), prompts)
    one_at_a_time = Locator(PRESETS["amig"], model.adapter, model.encoder, max_tokens=1)
    for encoded, expected, fact in zip(prompts, together, FACTS, strict=True):
        (alone,) = attributed(one_at_a_time, [encoded])
        assert distance(alone, expected) <= 1e-9
        engine = Engine(model.adapter, "gauss", 20)
        ids = baseline_sentences(model, fact, encoded)
        several = engine.attribute([encoded.prompt] * len(ids), baselines=[[sentence] for sentence in ids])
        assert distance(sum(batch.answer.sum(0) for batch in several), expected) <= 1e-3


def test_the_preset_dai_gives_the_attributions_of_stage_1(golden, golden_bags):
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
    assert all(torch.equal(ours[number], scores) for number, scores in stage_1.items())


def test_the_answers_probability_is_returned(model):
    prompts = [model.encode(*fact) for fact in FACTS]
    for batch in Locator(PRESETS["amig"], model.adapter, model.encoder).attribute(prompts):
        for number, own in zip(batch.prompts, batch.own, strict=True):
            encoded = prompts[number]
            pieces = zip(encoded.positions, encoded.answers, strict=True)
            probabilities = [model.probability(encoded.ids, *piece) for piece in pieces]
            assert own.item() == pytest.approx(torch.stack(probabilities).mean().item(), rel=1e-9)


# ---- words ----


def test_only_the_querys_words_are_replaced(model):
    for fact in FACTS:
        encoded = model.encode(*fact)
        groups = words(encoded, model.encoder)
        assert groups == pieces_of_words(model, fact)
        replaced = {position for group in groups for position in group}
        assert not replaced & {*encoded.positions[1:]}
        if model.family == "bert":
            assert not replaced & {0, *encoded.positions, len(encoded.ids) - 1}


def test_words_of_a_prompt_that_is_cut_to_the_longest_input(model):
    if model.family == "gpt2":
        pytest.skip("a causal model's longer prompts can't be read out")
    short = Encoder(model.tokenizer, 9)
    ((encoded,),) = short.facts([[["[MASK] is the capital of Italy, the city of Rome.", "Paris", "P36"]]])
    assert encoded.skipped is None and len(encoded.ids) == 9
    groups = words(encoded, short)
    assert all(0 < position < 8 and position not in encoded.positions for group in groups for position in group)


def test_a_query_without_words_is_skipped(model):
    locator = Locator(PRESETS["amig"], model.adapter, model.encoder)
    ((encoded,),) = model.encoder.facts([[["? , [MASK] .", "Paris", "P36"]]])
    assert encoded.skipped is None
    assert locator.skipped(encoded) == "the query has no word to replace"
    assert Locator(PRESETS["dai"], model.adapter, model.encoder).skipped(encoded) is None


def test_a_causal_model_without_an_end_of_text_token_is_refused(model):
    if model.family == "bert":
        pytest.skip("a masked model has a mask token")
    locator = Locator(PRESETS["amig"], model.adapter, model.encoder)
    encoded, model.tokenizer.eos_token = model.encode("en", "P36", 0), None
    try:
        with pytest.raises(InputError, match="no end-of-text token"):
            locator.baselines(encoded)
    finally:
        model.tokenizer.eos_token = model.tokenizer.bos_token


def test_presets_may_score_neurons_elsewhere_and_along_other_paths(model):
    fact = next(iter(FACTS))
    encoded, france = model.encode(*fact), pieces_of_words(model, fact)[3]
    assert subject_end(encoded, "France", model.encoder) == france[-1]
    literal = replace(PRESETS["dai"], rule="literal", points=3)

    def scored(preset, **more):
        (batch,) = Locator(preset, model.adapter, model.encoder).attribute([encoded], **more)
        return batch.answer

    engine = Engine(model.adapter, "literal", 3)
    for where, at in (("subject", [france[-1]]), ("all", list(range(len(encoded.ids))))):
        (expected,) = engine.attribute([encoded.prompt], at=[at])
        assert torch.equal(scored(replace(literal, where=where), subjects=["France"]), expected.answer)
    context = model.encode(*fact).prompt
    assert scored(replace(literal, start="prompt"), starts=[context]).abs().max() < 1e-12  # it begins where it ends
    mean = mean_activations(model.adapter, [encoded.prompt])
    if len(encoded.answers) == 1:
        assert scored(replace(literal, start="mean"), starts=mean).abs().max() < 1e-12
    others = [[token + 1 for token in encoded.answers]]
    there, back = (scored(replace(literal, what="difference"), others=pieces) for pieces in (others, [encoded.answers]))
    assert back.abs().max() < 1e-12 < there.abs().max()  # an answer differs from another, and not from itself


@pytest.mark.parametrize(
    "slots, more, line",
    [
        ({"start": "prompt"}, {}, "paths begin at a prompt: give `starts`"),
        ({"where": "subject"}, {}, "give the subjects of all 1 prompts"),
        ({"where": "subject"}, {"subjects": ["Mars"]}, "the subject 'Mars' is not in the prompt 'The capital of"),
    ],
)
def test_what_a_preset_needs_is_asked_for_with_one_line(model, slots, more, line):
    with pytest.raises(InputError, match=line):
        list(
            Locator(replace(PRESETS["dai"], **slots), model.adapter, model.encoder).attribute(
                [model.encode(*next(iter(FACTS)))], **more
            )
        )
