"""Answers of several pieces: how they are encoded, and how engine and probe treat them, against slow loops."""

import numpy as np
import pytest
import torch
from transformers import PreTrainedTokenizerFast

import tokenizing
from families import CAUSAL, FAMILIES, with_inputs
from kn.methods.attribution import Engine
from kn.methods.probing import Probe
from kn.methods.quadrature import Rule
from kn.methods.scaling import Scaling
from kn.model import loading
from kn.model.prompts import NOT_LAST, NOT_ONE_MASK, NOTHING_BEFORE, UNKNOWN, Encoder, Prompt
from test_families import changed_at, logits_at, neurons_at, slow_attributions

ENGLISH, CHINESE = ("The capital of France is [MASK].", "Parisia"), ("法国的首都是[MASK]。", "巴黎城")


def encoded(tokenizer, text, answer, causal, longest=64):
    ((prompt,),) = Encoder(tokenizer, longest, causal).facts([[[text, answer, "P36(capital)"]]])
    return prompt


@pytest.mark.parametrize("build", [tokenizing.word_pieces, tokenizing.bytes_masked])
@pytest.mark.parametrize("text, answer", [ENGLISH, CHINESE])
def test_a_masked_model_gets_a_mask_for_each_piece(build, text, answer):
    tokenizer = build()
    prompt = encoded(tokenizer, text, answer, causal=False)
    assert len(prompt.answers) > 1 and not prompt.skipped
    filled = list(prompt.ids)
    for position, piece in zip(prompt.positions, prompt.answers, strict=True):
        assert filled[position] == tokenizer.mask_token_id
        filled[position] = piece
    first = prompt.positions[0]
    assert list(prompt.positions) == list(range(first, first + len(prompt.answers)))
    assert filled == tokenizer(text.replace("[MASK]", answer))["input_ids"]
    assert Encoder(tokenizer, 64).text(prompt.answers) == answer


@pytest.mark.parametrize("build", [tokenizing.bytes_causal, tokenizing.marked_words, tokenizing.word_pieces])
@pytest.mark.parametrize("text, answer", [ENGLISH, CHINESE])
def test_a_causal_model_predicts_each_piece_at_the_token_before_it(build, text, answer):
    """The ids are the sentence up to the answer, with the tokenizer's special tokens before it."""
    tokenizer = build()
    prompt = encoded(tokenizer, text, answer, causal=True)
    assert len(prompt.answers) > 1 and not prompt.skipped
    whole = tokenizer(text.replace("[MASK]", answer).rstrip(".。"))["input_ids"]
    if build is tokenizing.word_pieces:  # BERT's tokenizer appends [SEP]
        assert whole[-1] == tokenizer.sep_token_id
        whole = whole[:-1]
    assert [*prompt.ids, prompt.answers[-1]] == whole
    assert list(prompt.positions) == list(range(len(whole) - len(prompt.answers) - 1, len(whole) - 1))
    assert tuple(whole[position + 1] for position in prompt.positions) == prompt.answers
    assert Encoder(tokenizer, 64, causal=True).text(prompt.answers) == answer


def test_prompts_that_cannot_be_scored_have_a_reason():
    tokenizer = tokenizing.bytes_causal()

    def reason(text, answer="Paris", longest=64, tokenizer=tokenizer, causal=True):
        return encoded(tokenizer, text, answer, causal, longest).skipped

    assert reason("[MASK] is the capital of France.") == NOT_LAST
    assert reason("[MASK].") == NOTHING_BEFORE
    assert reason('France has a capital ("[MASK]").') is reason("法国的首都是[MASK]。") is None
    assert reason("The capital of France is [MASK].", longest=6) == "[MASK] stands beyond the first 6 word pieces"
    pieces = tokenizing.word_pieces()
    assert reason("France is [MASK].", "☃", tokenizer=pieces, causal=False) == UNKNOWN
    # Two of three masks remain.
    assert (
        reason("[MASK]", "巴黎城", longest=4, tokenizer=pieces, causal=False)
        == "[MASK] stands beyond the first 4 word pieces"
    )
    assert reason("[MASK]", "巴黎城", longest=5, tokenizer=pieces, causal=False) is None


@pytest.mark.parametrize("named", [True, False])
def test_an_answer_with_a_piece_unknown_to_a_unigram_tokenizer_is_skipped(named):
    tokenizer = tokenizing.unigrams()
    if not named:  # like one loaded from a folder without tokenizer_config.json
        tokenizer = PreTrainedTokenizerFast(tokenizer_object=tokenizer.backend_tokenizer, mask_token="<mask>")
    for answer in ("☃", "Par☃is", "☃ Paris"):
        assert "<unk>" in tokenizer.convert_ids_to_tokens(tokenizer(answer)["input_ids"])
        prompt = encoded(tokenizer, "The capital of France is [MASK].", answer, causal=False)
        assert prompt.skipped == UNKNOWN and not prompt.answers
        assert Encoder(tokenizer, 64).unknown(answer) == UNKNOWN
    prompt = encoded(tokenizer, "The capital of France is [MASK].", "Paris", causal=False)
    assert not prompt.skipped and prompt.tokens[prompt.positions[0]] == "<mask>"


def test_an_unknown_piece_is_noticed_even_if_the_files_do_not_name_the_unknown_token():
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=tokenizing.marked_words().backend_tokenizer, bos_token="<s>")
    assert tokenizer.unk_token is None
    assert encoded(tokenizer, "The capital of France is [MASK].", "Par☃is", causal=True).skipped == UNKNOWN
    assert encoded(tokenizer, "The capital of France is [MASK].", "Paris", causal=True).skipped is None


@pytest.mark.parametrize(
    "build, causal",
    [
        (tokenizing.word_pieces, False),
        (tokenizing.bytes_masked, False),
        (tokenizing.unigrams, False),
        (tokenizing.bytes_causal, True),
    ],
)
def test_a_text_without_exactly_one_mask_is_skipped_with_the_reason(build, causal):
    encoder = Encoder(build(), 64, causal)
    wrong = ["the capital of France", "the [MASK] of France is [MASK]", ""]
    if encoder.tokenizer.mask_token == "<mask>":
        wrong += [f"the {encoder.tokenizer.mask_token} of France is [MASK]", f"in {encoder.tokenizer.mask_token}"]
    bags = encoder.facts([[[text, "Paris", "P36(capital)"]] for text in wrong])
    for prompt in [*encoder.sentences(wrong), *(prompt for bag in bags for prompt in bag)]:
        assert prompt.skipped == NOT_ONE_MASK and not prompt.positions
    (prompt,) = encoder.sentences(["the capital of France is [MASK]"])
    assert not prompt.skipped and len(prompt.positions) == 1


def test_a_crawled_sentence_is_read_at_one_position():
    text = "In 1999 the [MASK] of France moved."
    for build, causal in ((tokenizing.word_pieces, False), (tokenizing.bytes_causal, True)):
        tokenizer = build()
        (prompt,) = Encoder(tokenizer, 64, causal).sentences([text])
        (position,) = prompt.positions
        if causal:
            assert prompt.ids == tokenizer("In 1999 the")["input_ids"] and position == len(prompt.ids) - 1
        else:
            assert prompt.ids[position] == tokenizer.mask_token_id


# ---- engine and probe ----


@pytest.fixture(scope="module", params=["bert", "gpt2", "mistral"])
def name(request):
    return request.param


@pytest.fixture(scope="module")
def model(name):
    return FAMILIES[name].model(name, torch.float64).requires_grad_(False)


@pytest.fixture(scope="module")
def several(name):
    """Answers of one to three pieces; all prompts but one have the same length."""
    rng = torch.Generator().manual_seed(5)
    ids = torch.randint(3, 60, (4, 9), generator=rng).tolist()
    last = 8 if name in CAUSAL else 7
    return [
        Prompt(ids[0], (last - 2, last - 1, last), (11, 40, 17)),
        Prompt(ids[1], (last,), (59,)),
        Prompt(ids[2], (last - 1, last), (12, 12)),
        Prompt([*ids[3], 33], (last, last + 1), (20, 44)),
    ]


def split(prompt):
    """One prompt per piece of the answer."""
    ids, positions, answers = prompt
    return [Prompt(ids, [position], [answer]) for position, answer in zip(positions, answers, strict=True)]


@pytest.mark.parametrize("max_tokens", [None, 1])
def test_attributions_are_the_mean_over_pieces(name, model, several, max_tokens):
    attributed = set()
    for batch in Engine(loading.adapt(model), "literal", 5, max_tokens).attribute(several):
        for row, number in enumerate(batch.prompts):
            pieces = split(several[number])
            slow = [slow_attributions(name, model, piece, np.arange(5) / 5, np.full(5, 1 / 5)) for piece in pieces]
            expected = torch.stack(slow).mean(0)
            assert (batch.answer[row] - expected).norm() <= 1e-5 * expected.norm()
            logits = [logits_at(model, piece) for piece in pieces]
            assert batch.predicted[row] == tuple(row_of_logits.argmax().item() for row_of_logits in logits)
            own = torch.stack([neurons_at(name, model, piece) for piece in pieces]).mean(0)
            assert torch.allclose(batch.activations[row], own, atol=1e-6)
            distribution = torch.stack([row_of_logits.softmax(-1) for row_of_logits in logits]).mean(0)
            assert torch.allclose(batch.probabilities[row], distribution, atol=1e-6)
            attributed.add(number)
    assert attributed == {0, 1, 2, 3}


def test_the_integral_sums_to_the_change_of_the_score(name, model, several, monkeypatch):
    """The score is the mean of the pieces' probabilities; for each, the layer's neurons at its position go to 0."""
    nodes, weights = np.polynomial.legendre.leggauss(200)  # the probabilities of these models are far from smooth
    many = Rule("many", (nodes + 1) / 2, weights / 2)
    monkeypatch.setattr("kn.methods.attribution.ladder", lambda rule, points: [many])
    engine = Engine(loading.adapt(model), "gauss", 20)
    for batch in engine.attribute(several):
        for scores, number in zip(batch.answer, batch.prompts, strict=True):
            for layer, layer_scores in enumerate(scores):
                changes = []
                for piece in split(several[number]):
                    emptied = with_inputs(
                        FAMILIES[name].projections(model),
                        changed_at(piece, lambda n, x, layer=layer: torch.zeros_like(x) if n == layer else x),
                        lambda piece=piece: logits_at(model, piece).softmax(-1)[piece.answers[0]],
                    )
                    changes.append(logits_at(model, piece).softmax(-1)[piece.answers[0]] - emptied)
                assert layer_scores.sum().item() == pytest.approx(torch.stack(changes).mean().item(), abs=1e-5)


def test_a_probe_reads_the_mean_probability_the_worst_rank_and_whether_all_pieces_are_right(model, several):
    probe = Probe(loading.adapt(model), 200)
    scalings = [Scaling([[2, 33], [0, 5]], 0.0), Scaling([[1, 4]], 2.0)]
    neurons = [[2, 33], [1, 39]]
    readings = probe.read(several)
    # test_families compares each piece alone with transformers.
    for number, prompt in enumerate(several):
        by_piece = probe.read(split(prompt))
        assert readings.probabilities[number] == pytest.approx(by_piece.probabilities.mean(), abs=1e-12)
        assert readings.ranks[number] == by_piece.ranks.max() and readings.right[number] == by_piece.right.all()
        assert readings.predicted[number] == tuple(token for (token,) in by_piece.predicted)
        scaled = probe.scaled(split(prompt), [scalings] * len(prompt.answers))
        (together,) = probe.scaled([prompt], [scalings])
        assert together == pytest.approx(np.mean(scaled, 0), abs=1e-12)
        activations = probe.activations(split(prompt), [neurons] * len(prompt.answers))
        (together,) = probe.activations([prompt], [neurons])
        assert together == pytest.approx(np.mean(activations, 0), abs=1e-12)
    predicted = [prompt._replace(answers=tokens) for prompt, tokens in zip(several, readings.predicted, strict=True)]
    half = several[0]._replace(answers=(*readings.predicted[0][:2], (readings.predicted[0][2] + 1) % 60))
    assert probe.read([*predicted, half]).right.tolist() == [True] * 4 + [False]
    assert not probe.read([*predicted, half]).ranks[:4].any()
