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
    ((found,),) = Encoder(tokenizer, longest, causal).facts([[[text, answer, "P36(capital)"]]])
    return found


@pytest.mark.parametrize("build", [tokenizing.word_pieces, tokenizing.bytes_masked])
@pytest.mark.parametrize("text, answer", [ENGLISH, CHINESE])
def test_a_masked_model_gets_a_mask_for_each_piece(build, text, answer):
    tokenizer = build()
    found = encoded(tokenizer, text, answer, causal=False)
    assert len(found.answers) > 1 and not found.skipped
    filled = list(found.ids)
    for position, piece in zip(found.positions, found.answers, strict=True):
        assert filled[position] == tokenizer.mask_token_id
        filled[position] = piece
    assert list(found.positions) == list(range(found.positions[0], found.positions[0] + len(found.answers)))
    assert filled == tokenizer(text.replace("[MASK]", answer))["input_ids"]
    assert Encoder(tokenizer, 64).text(found.answers) == answer


@pytest.mark.parametrize("build", [tokenizing.bytes_causal, tokenizing.marked_words, tokenizing.word_pieces])
@pytest.mark.parametrize("text, answer", [ENGLISH, CHINESE])
def test_a_causal_model_reads_each_piece_where_the_one_before_stands(build, text, answer):
    """Together they are the sentence up to its end, after what the tokenizer puts before it."""
    tokenizer = build()
    found = encoded(tokenizer, text, answer, causal=True)
    assert len(found.answers) > 1 and not found.skipped
    whole = tokenizer(text.replace("[MASK]", answer).rstrip(".。"))["input_ids"]
    if build is tokenizing.word_pieces:  # it closes what it reads
        assert whole[-1] == tokenizer.sep_token_id
        whole = whole[:-1]
    assert [*found.ids, found.answers[-1]] == whole
    assert list(found.positions) == list(range(len(whole) - len(found.answers) - 1, len(whole) - 1))
    assert tuple(whole[position + 1] for position in found.positions) == found.answers
    assert Encoder(tokenizer, 64, causal=True).text(found.answers) == answer


def test_what_cannot_be_scored_says_why():
    tokenizer = tokenizing.bytes_causal()

    def why(text, answer="Paris", longest=64, tokenizer=tokenizer, causal=True):
        return encoded(tokenizer, text, answer, causal, longest).skipped

    assert why("[MASK] is the capital of France.") == NOT_LAST
    assert why("[MASK].") == NOTHING_BEFORE
    assert why('France has a capital ("[MASK]").') is why("法国的首都是[MASK]。") is None
    assert why("The capital of France is [MASK].", longest=6) == "[MASK] stands beyond the first 6 word pieces"
    pieces = tokenizing.word_pieces()
    assert why("France is [MASK].", "☃", tokenizer=pieces, causal=False) == UNKNOWN
    # Two of three masks remain.
    assert (
        why("[MASK]", "巴黎城", longest=4, tokenizer=pieces, causal=False)
        == "[MASK] stands beyond the first 4 word pieces"
    )
    assert why("[MASK]", "巴黎城", longest=5, tokenizer=pieces, causal=False) is None


@pytest.mark.parametrize("named", [True, False])
def test_an_answer_that_a_tokenizer_of_unigrams_does_not_know_is_unknown(named):
    tokenizer = tokenizing.unigrams()
    if not named:  # as in a folder without tokenizer_config.json
        tokenizer = PreTrainedTokenizerFast(tokenizer_object=tokenizer.backend_tokenizer, mask_token="<mask>")
    for answer in ("☃", "Par☃is", "☃ Paris"):
        assert "<unk>" in tokenizer.convert_ids_to_tokens(tokenizer(answer)["input_ids"])
        found = encoded(tokenizer, "The capital of France is [MASK].", answer, causal=False)
        assert found.skipped == UNKNOWN and not found.answers
        assert Encoder(tokenizer, 64).unknown(answer) == UNKNOWN
    found = encoded(tokenizer, "The capital of France is [MASK].", "Paris", causal=False)
    assert not found.skipped and found.tokens[found.positions[0]] == "<mask>"


def test_an_unknown_piece_is_noticed_though_the_files_do_not_name_it():
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
def test_a_text_with_more_or_fewer_masks_than_one_says_so(build, causal):
    encoder = Encoder(build(), 64, causal)
    wrong = ["the capital of France", "the [MASK] of France is [MASK]", ""]
    if encoder.tokenizer.mask_token == "<mask>":
        wrong += [f"the {encoder.tokenizer.mask_token} of France is [MASK]", f"in {encoder.tokenizer.mask_token}"]
    asked = [[[text, "Paris", "P36(capital)"]] for text in wrong]
    for found in [*encoder.sentences(wrong), *(found for bag in encoder.facts(asked) for found in bag)]:
        assert found.skipped == NOT_ONE_MASK and not found.positions
    (found,) = encoder.sentences(["the capital of France is [MASK]"])
    assert not found.skipped and len(found.positions) == 1


def test_a_crawled_sentence_is_read_at_one_place():
    text = "In 1999 the [MASK] of France moved."
    for build, causal in ((tokenizing.word_pieces, False), (tokenizing.bytes_causal, True)):
        tokenizer = build()
        (found,) = Encoder(tokenizer, 64, causal).sentences([text])
        (position,) = found.positions
        if causal:
            assert found.ids == tokenizer("In 1999 the")["input_ids"] and position == len(found.ids) - 1
        else:
            assert found.ids[position] == tokenizer.mask_token_id


# ---- engine and probe ----


@pytest.fixture(scope="module", params=["bert", "gpt2", "mistral"])
def name(request):
    return request.param


@pytest.fixture(scope="module")
def model(name):
    return FAMILIES[name].model(name, torch.float64).requires_grad_(False)


@pytest.fixture(scope="module")
def asked(name):
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


def alone(prompt):
    """Each piece as a prompt of its own."""
    ids, positions, answers = prompt
    return [Prompt(ids, [position], [answer]) for position, answer in zip(positions, answers, strict=True)]


@pytest.mark.parametrize("max_tokens", [None, 1])
def test_attributions_are_the_mean_over_pieces(name, model, asked, max_tokens):
    seen = set()
    for batch in Engine(loading.adapt(model), "literal", 5, max_tokens).attribute(asked):
        for row, place in enumerate(batch.prompts):
            pieces = alone(asked[place])
            slow = [slow_attributions(name, model, piece, np.arange(5) / 5, np.full(5, 1 / 5)) for piece in pieces]
            expected = torch.stack(slow).mean(0)
            assert (batch.answer[row] - expected).norm() <= 1e-5 * expected.norm()
            logits = [logits_at(model, piece) for piece in pieces]
            assert batch.predicted[row] == tuple(of_piece.argmax().item() for of_piece in logits)
            own = torch.stack([neurons_at(name, model, piece) for piece in pieces]).mean(0)
            assert torch.allclose(batch.activations[row], own, atol=1e-6)
            distribution = torch.stack([of_piece.softmax(-1) for of_piece in logits]).mean(0)
            assert torch.allclose(batch.probabilities[row], distribution, atol=1e-6)
            seen.add(place)
    assert seen == {0, 1, 2, 3}


def test_the_integral_adds_up_to_the_change_of_the_score(name, model, asked, monkeypatch):
    """The score is the mean of the pieces' probabilities; at 0 each has the layer's neurons at its position at 0."""
    nodes, weights = np.polynomial.legendre.leggauss(200)  # these models are wild
    many = Rule("many", (nodes + 1) / 2, weights / 2)
    monkeypatch.setattr("kn.methods.attribution.ladder", lambda rule, points: [many])
    engine = Engine(loading.adapt(model), "gauss", 20)
    for batch in engine.attribute(asked):
        for scores, place in zip(batch.answer, batch.prompts, strict=True):
            for layer, of_layer in enumerate(scores):
                changes = []
                for piece in alone(asked[place]):
                    emptied = with_inputs(
                        FAMILIES[name].projections(model),
                        changed_at(piece, lambda n, x, layer=layer: torch.zeros_like(x) if n == layer else x),
                        lambda piece=piece: logits_at(model, piece).softmax(-1)[piece.answers[0]],
                    )
                    changes.append(logits_at(model, piece).softmax(-1)[piece.answers[0]] - emptied)
                assert of_layer.sum().item() == pytest.approx(torch.stack(changes).mean().item(), abs=1e-5)


def test_a_probe_tells_the_mean_the_worst_rank_and_whether_all_are_right(model, asked):
    probe = Probe(loading.adapt(model), 200)
    scalings = [Scaling([[2, 33], [0, 5]], 0.0), Scaling([[1, 4]], 2.0)]
    neurons = [[2, 33], [1, 39]]
    found = probe.read(asked)
    # test_families compares each piece alone with transformers.
    for place, prompt in enumerate(asked):
        of_pieces = probe.read(alone(prompt))
        assert found.probabilities[place] == pytest.approx(of_pieces.probabilities.mean(), abs=1e-12)
        assert found.ranks[place] == of_pieces.ranks.max() and found.right[place] == of_pieces.right.all()
        assert found.predicted[place] == tuple(token for (token,) in of_pieces.predicted)
        scaled = probe.scaled(alone(prompt), [scalings] * len(prompt.answers))
        (together,) = probe.scaled([prompt], [scalings])
        assert together == pytest.approx(np.mean(scaled, 0), abs=1e-12)
        activations = probe.activations(alone(prompt), [neurons] * len(prompt.answers))
        (together,) = probe.activations([prompt], [neurons])
        assert together == pytest.approx(np.mean(activations, 0), abs=1e-12)
    predicted = [prompt._replace(answers=tokens) for prompt, tokens in zip(asked, found.predicted, strict=True)]
    half = asked[0]._replace(answers=(*found.predicted[0][:2], (found.predicted[0][2] + 1) % 60))
    assert probe.read([*predicted, half]).right.tolist() == [True] * 4 + [False]
    assert not probe.read([*predicted, half]).ranks[:4].any()
