"""What is attributed, along which path and where: every choice against slow loops over transformers' own models."""

import re

import pytest
import torch
from numpy.polynomial import legendre

from conftest import ROOT
from families import CAUSAL, FAMILIES, prompts, with_inputs
from kn.methods.attribution import Engine
from kn.methods.certificate import Certificate
from kn.methods.quantities import QUANTITIES
from kn.model import loading
from kn.model.prompts import Prompt
from kn.store.files import InputError

NAMES = ("bert", "gpt2")  # both compute in float64 throughout
OTHERS = [[12], [41], [18], [58]]
NODES, WEIGHTS = (1 + legendre.leggauss(20)[0]) / 2, legendre.leggauss(20)[1] / 2


@pytest.fixture(scope="module", params=NAMES)
def tiny(request):
    model = FAMILIES[request.param].model(request.param, torch.float64).requires_grad_(False)
    return Asked(model, FAMILIES[request.param].projections(model), request.param in CAUSAL)


class Asked:
    def __init__(self, model, projections, causal):
        self.model, self.projections, self.causal = model, projections, causal
        self.adapter, self.prompts = loading.adapt(model), prompts(causal)

    def attributed(self, rule, points=20, asked=None, what="probability", summed=False, **more):
        asked, scores, total = asked or self.prompts, {}, Certificate()
        for batch in Engine(self.adapter, rule, points, what=what, summed=summed).attribute(asked, **more):
            scores |= dict(zip(batch.prompts, batch.answer, strict=True))
            total += batch.certificate
        assert not total.failed
        return torch.stack([scores[number] for number in range(len(asked))])

    def neurons(self, ids):
        """Layers x tokens x d_ffn."""
        kept = []
        with_inputs(self.projections, lambda _, x: kept.append(x[0]) or x, lambda: self.model(torch.tensor([ids])))
        return torch.stack(kept)

    def slow(self, prompt, quantity, begin=None, at=None, points=NODES, weights=WEIGHTS):
        """Layers x d_ffn, from the definition. `begin` are the activations where the path begins, layers x tokens x
        d_ffn; `at` are the positions of the neurons.
        """
        end = self.neurons(prompt.ids)
        begin = torch.zeros_like(end) if begin is None else begin
        scores = torch.zeros(len(end), end.shape[2], dtype=end.dtype)
        for position in prompt.positions:
            places = [position] if at is None else at
            for layer in range(len(end)):
                for point, weight in zip(points, weights, strict=True):
                    moved = begin[layer, places] + point * (end[layer, places] - begin[layer, places])
                    moved.requires_grad_()

                    def change(number, x, moved=moved, layer=layer, places=places):
                        return x.index_put((torch.tensor([0]), torch.tensor(places)), moved) if number == layer else x

                    ids = torch.tensor([prompt.ids])
                    logits = with_inputs(self.projections, change, lambda ids=ids: self.model(ids).logits)
                    piece = prompt.positions.index(position)
                    (gradient,) = torch.autograd.grad(quantity(logits[0, position], piece), moved)
                    scores[layer] += weight * (gradient * (end[layer, places] - begin[layer, places])).sum(0)
        return scores


def quantities(prompt, others):
    return {
        "probability": lambda logits, piece: logits.softmax(-1)[prompt.answers[piece]],
        "log-probability": lambda logits, piece: logits.softmax(-1)[prompt.answers[piece]].log(),
        "logit": lambda logits, piece: logits[prompt.answers[piece]],
        "difference": lambda logits, piece: logits[prompt.answers[piece]] - logits[others[piece]],
    }


def close(ours, slow, tolerance=1e-2):
    """The tolerance of the certificate; 1e-9 where nothing is certified."""
    return (ours - slow).norm() <= tolerance * slow.norm() and slow.norm() > 0


@pytest.mark.parametrize("what", QUANTITIES)
def test_quantities_agree_with_slow_loops(tiny, what):
    others = OTHERS if what == "difference" else None
    exact = tiny.attributed("literal", 3, what=what, others=others)
    integral = tiny.attributed("gauss", what=what, others=others)
    for number in (0, 1):
        prompt = tiny.prompts[number]
        quantity = quantities(prompt, OTHERS[number])[what]
        assert close(exact[number], tiny.slow(prompt, quantity, points=[0, 1 / 3, 2 / 3], weights=[1 / 3] * 3), 1e-9)
        if number:
            assert close(integral[number], tiny.slow(prompt, quantity))


def test_scores_of_pieces_are_averaged_or_summed(tiny):
    first = tiny.prompts[0]
    positions = [len(first.ids) - 2, len(first.ids) - 1] if tiny.causal else [2, 4]
    prompt = Prompt(first.ids, positions, [7, 8])
    mean, total = (tiny.attributed("literal", 2, [prompt], "log-probability", summed)[0] for summed in (False, True))
    slow = tiny.slow(prompt, quantities(prompt, None)["log-probability"], points=[0, 0.5], weights=[0.5, 0.5])
    assert close(total, slow, 1e-9) and close(mean, slow / 2, 1e-9)


def test_without_a_path_the_score_is_the_gradient_times_the_activation(tiny):
    ours = tiny.attributed("right", 1)
    for number, prompt in enumerate(tiny.prompts[:2]):
        assert close(
            ours[number], tiny.slow(prompt, quantities(prompt, None)["probability"], None, None, [1], [1]), 1e-9
        )


def test_a_path_may_begin_at_given_activations(tiny):
    prompt = tiny.prompts[0]
    mean = torch.stack([tiny.neurons(other.ids).mean(1) for other in tiny.prompts]).mean(0)
    begin = mean[:, None].expand(-1, len(prompt.ids), -1)
    ours = tiny.attributed("literal", 3, baselines=mean)
    slow = tiny.slow(prompt, quantities(prompt, None)["probability"], begin, None, [0, 1 / 3, 2 / 3], [1 / 3] * 3)
    assert close(ours[0], slow, 1e-9)
    nothing = tiny.attributed("literal", 3, asked=[prompt], baselines=tiny.neurons(prompt.ids)[:, prompt.positions[0]])
    assert nothing.abs().max() < 1e-12  # a path that begins where it ends


def test_a_path_may_begin_at_another_prompts_activations(tiny):
    """The other prompts have other lengths and positions."""
    asked = tiny.prompts[:2]
    others = [[tiny.prompts[1], tiny.prompts[3]], [tiny.prompts[2]]]
    ours = tiny.attributed("literal", 2, asked, baselines=others)
    for prompt, prompt_others, scores in zip(asked, others, ours, strict=True):
        slow = 0
        for other in prompt_others:
            begin = tiny.neurons(other.ids)[:, other.positions[0]][:, None].expand(-1, len(prompt.ids), -1)
            slow += tiny.slow(prompt, quantities(prompt, None)["probability"], begin, None, [0, 0.5], [0.5, 0.5])
        assert close(scores, slow, 1e-9)


def test_neurons_at_other_positions_agree_with_slow_loops(tiny):
    """One position before the answer, others in each prompt; and all positions together."""
    asked = tiny.prompts[:3]
    for at in ([[1], [3], [1]], [list(range(len(prompt.ids))) for prompt in asked]):
        exact = tiny.attributed("literal", 2, asked, "logit", at=at)
        integral = tiny.attributed("gauss", 20, asked, at=at)
        for number in (0, 1):
            prompt = asked[number]
            measured = quantities(prompt, None)
            slow = tiny.slow(prompt, measured["logit"], None, at[number], [0, 0.5], [0.5, 0.5])
            assert close(exact[number], slow, 1e-9)
            if number and len(at[number]) > 1:
                assert close(integral[number], tiny.slow(prompt, measured["probability"], None, at[number]))


def test_the_read_out_position_may_be_named(tiny):
    named = tiny.attributed("gauss", at=[prompt.positions for prompt in tiny.prompts])
    assert close(named, tiny.attributed("gauss"), 1e-9)


def test_paths_from_baselines_at_all_positions(tiny):
    prompt = tiny.prompts[0]
    sentence = [5, *prompt.ids[1:3], 6, *prompt.ids[4:]]
    at = list(range(len(prompt.ids)))
    ours = tiny.attributed("literal", 2, [prompt], baselines=[[sentence]], at=[at])
    quantity = quantities(prompt, None)["probability"]
    assert close(ours[0], tiny.slow(prompt, quantity, tiny.neurons(sentence), at, [0, 0.5], [0.5, 0.5]), 1e-9)


@pytest.mark.parametrize("what", ["log-probability", "logit"])
def test_the_certificate_refines_other_quantities_where_few_points_do_not_suffice(what):
    """A model whose outputs change abruptly: the integral is still that of many points, and completeness holds."""
    tiny = FAMILIES["bert"]
    model = tiny.sharp("bert", "gelu", 2.0)
    asked = prompts(causal=False)
    adapter = loading.adapt(model)
    (first, *_) = Engine(adapter, "gauss", 20, what=what).attribute(asked)
    assert set(first.certificate.accepted) > {"gauss-3", "gauss-9"} and not first.certificate.failed
    assert first.completeness.max() < 5e-3


@pytest.mark.parametrize(
    "more, line",
    [
        ({"what": "surprise"}, "there is no quantity 'surprise': expected one of probability, log-probability"),
        ({"what": "difference"}, "0 other answers for 4 prompts"),
        ({"others": OTHERS}, "which only the difference of two answers needs"),
        ({"what": "difference", "others": [[1, 2]] * 4}, "prompt 0: expected another answer of 1 pieces, found 2"),
        ({"at": [[0]]}, "positions for 1 of 4 prompts"),
        ({"at": [[99]] * 4}, r"prompt 0: expected positions from 0 to 8, one at least, found \[99\]"),
        ({"baselines": torch.zeros(2, 2)}, r"expected activations of 3 layers x 40 neurons, found \[2, 2\]"),
        ({"baselines": [[Prompt([4, 5], [0, 1], [6, 7])]] * 4}, "prompt 0: baseline 0: expected 1 positions"),
        ({"baselines": [[Prompt([4, 5], [0], [6])]] * 4, "at": [[0]] * 4}, "prompt 0: expected baselines of its 9"),
    ],
)
def test_wrong_choices_are_refused_with_one_line(tiny, more, line):
    with pytest.raises(InputError, match=line) as error:
        tiny.attributed("gauss", **more)
    assert "\n" not in str(error.value)


def test_the_documented_example_runs(monkeypatch):
    monkeypatch.chdir(ROOT)
    (code,) = re.findall(r"^```python\n(.*?)^```", (ROOT / "docs/methods.md").read_text(), re.M | re.S)
    names: dict = {}
    exec(code, names)
    assert names["why_not_london"].completeness.max() < 1e-2
    assert 0 < names["at_the_subject"].answer.abs().max() < names["why_not_london"].answer.abs().max()
