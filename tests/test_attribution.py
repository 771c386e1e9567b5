"""The engine against the published program's attributions, against a slow loop, and with other batches."""

from collections import Counter

import numpy as np
import pytest
import torch

from conftest import GOLDEN, RELATIONS, encode_prompts
from kn.methods.attribution import Engine, strongest
from kn.model import loading
from kn.model.prompts import Prompt
from kn.store.files import InputError


@pytest.fixture(scope="module")
def published():
    return np.load(GOLDEN / "results" / "dense_ig_first_8_facts.npz")


def attributed(engine, prompts, target="answer"):
    """Attributions of the answer or the prediction: prompts x layers x neurons, in the order of the prompts."""
    scores = {}
    for batch in engine.attribute(prompts, answer=target != "prediction", prediction=target == "prediction"):
        scores |= dict(zip(batch.prompts, getattr(batch, target), strict=True))
    assert sorted(scores) == list(range(len(prompts)))
    return torch.stack([scores[number] for number in range(len(prompts))])


def distances(ours, theirs):
    """The relative L2 distance per prompt."""
    ours, theirs = (torch.as_tensor(np.asarray(x, dtype=np.float64)).flatten(1) for x in (ours, theirs))
    return ((ours - theirs).norm(dim=1) / theirs.norm(dim=1)).numpy()


def strong(scores, share=0.2):
    """Which neurons have at least this share of their prompt's highest score."""
    scores = np.asarray(scores)
    return scores >= share * scores.max((1, 2), keepdims=True)


@pytest.mark.parametrize("relation", RELATIONS)
@pytest.mark.parametrize("rule, tolerance", [("literal", 1e-4), ("riemann", 1e-3)])
def test_attributions_equal_the_published_programs(golden, golden_bags, published, rule, tolerance, relation):
    tokenizer, model = golden
    prompts = encode_prompts(tokenizer, golden_bags[relation][:8])
    ours = attributed(Engine(loading.adapt(model), rule, 20, 2048), prompts)
    assert distances(ours, published[relation]).max() <= tolerance
    assert (strong(ours) == strong(published[relation])).all()


def slow_attributions(model, prompt, points, weights, target=None):
    """One prompt, one layer at a time, straight from the definition: autograd through the whole transformers model."""
    ids, (position,), (answer,) = prompt
    ids = torch.tensor([ids])
    target = answer if target is None else target
    layers = []
    for layer in model.bert.encoder.layer:
        kept = {}
        hook = layer.intermediate.register_forward_hook(lambda m, i, out, kept=kept: kept.update(w=out[0, position]))
        model(ids)
        hook.remove()
        total = torch.zeros_like(kept["w"])
        for point, weight in zip(points, weights, strict=True):
            scaled = (point * kept["w"]).detach().requires_grad_()

            def replace(module, inputs, output, scaled=scaled):
                output = output.clone()
                output[0, position] = scaled
                return output

            hook = layer.intermediate.register_forward_hook(replace)
            probability = model(ids).logits[0, position].softmax(-1)[target]
            hook.remove()
            total += weight * torch.autograd.grad(probability, scaled)[0]
        layers.append(kept["w"] * total)
    return torch.stack(layers)


@pytest.mark.parametrize("relation", RELATIONS)
def test_attributions_equal_a_slow_loop_in_float64(golden64, golden_bags, relation):
    tokenizer, model = golden64
    prompts = encode_prompts(tokenizer, golden_bags[relation][3:5])
    ours = attributed(Engine(loading.adapt(model), "literal", 20, 2048), prompts)
    slow = torch.stack([slow_attributions(model, p, np.arange(20) / 20, np.full(20, 1 / 20)) for p in prompts])
    assert distances(ours, slow).max() <= 1e-5  # 1e-13 when this was written


def test_the_predicted_tokens_attributions_are_those_of_that_token(golden64, golden_bags):
    tokenizer, model = golden64
    ids, positions, _ = encode_prompts(tokenizer, golden_bags["P36"][:1])[0]
    wrong = Prompt(ids, positions, [tokenizer.convert_tokens_to_ids("the")])
    engine = Engine(loading.adapt(model), "literal", 20, 2048)
    (batch,) = engine.attribute([wrong], answer=True, prediction=True)
    predicted = model(torch.tensor([ids])).logits[0, positions[0]].argmax().item()
    assert batch.predicted == [(predicted,)] and predicted != wrong.answers[0]
    points, weights = np.arange(20) / 20, np.full(20, 1 / 20)
    assert distances(batch.prediction, slow_attributions(model, wrong, points, weights, predicted)[None]).max() <= 1e-5
    assert distances(batch.answer, slow_attributions(model, wrong, points, weights)[None]).max() <= 1e-5


def test_activations_and_probabilities_are_the_models(golden, golden_bags):
    tokenizer, model = golden
    prompts = encode_prompts(tokenizer, golden_bags["P101"][:2])
    for batch in Engine(loading.adapt(model), "riemann", 20, 2048).attribute(prompts, answer=False):
        assert batch.answer is None and batch.prediction is None
        for row, number in enumerate(batch.prompts):
            ids, (position,), _ = prompts[number]
            kept = []
            hooks = [
                layer.intermediate.register_forward_hook(
                    lambda m, i, out, kept=kept, position=position: kept.append(out[0, position])
                )
                for layer in model.bert.encoder.layer
            ]
            logits = model(torch.tensor([ids])).logits[0, position]
            for hook in hooks:
                hook.remove()
            assert torch.allclose(batch.activations[row], torch.stack(kept), atol=1e-5)
            assert torch.allclose(batch.probabilities[row], logits.softmax(-1), atol=1e-5)


def test_gauss_adds_up_to_the_change_in_probability(golden, golden_bags):
    """Completeness: a layer's attributions add up to the probability minus that with the layer's neurons at 0."""
    tokenizer, model = golden
    prompts = [p for relation in RELATIONS for p in encode_prompts(tokenizer, golden_bags[relation][8:12])]
    ours = attributed(Engine(loading.adapt(model), "gauss", 20, 2048), prompts)
    for (ids, (position,), (answer,)), scores in zip(prompts, ours, strict=True):
        full = model(torch.tensor([ids])).logits[0, position].softmax(-1)[answer]
        for layer, layer_scores in zip(model.bert.encoder.layer, scores, strict=True):

            def set_to_zero(module, inputs, output, position=position):
                output = output.clone()
                output[0, position] = 0
                return output

            hook = layer.intermediate.register_forward_hook(set_to_zero)
            without = model(torch.tensor([ids])).logits[0, position].softmax(-1)[answer]
            hook.remove()
            assert layer_scores.sum().item() == pytest.approx((full - without).item(), abs=1e-4)


def test_results_do_not_depend_on_the_batch(golden, golden_bags):
    tokenizer, model = golden
    prompts = [p for relation in RELATIONS for p in encode_prompts(tokenizer, golden_bags[relation][:6])]
    adapter = loading.adapt(model)
    together = attributed(Engine(adapter, "riemann", 20, 4096), prompts)
    alone = attributed(Engine(adapter, "riemann", 20, 1), prompts)
    backwards = attributed(Engine(adapter, "riemann", 20, 300), prompts[::-1]).flip(0)
    assert distances(alone, together).max() <= 1e-5
    assert distances(backwards, together).max() <= 1e-5


def test_attributions_of_some_layers_equal_those_of_all(golden64, golden_bags):
    tokenizer, model = golden64
    prompts = encode_prompts(tokenizer, golden_bags["P36"][:2])
    engine = Engine(loading.adapt(model), "literal", 20)
    all_layers = attributed(engine, prompts)
    for batch in engine.attribute(prompts, layers={1, 4}):
        assert (batch.answer[:, [0, 2, 3]] == 0).all()
        assert batch.answer[:, [1, 4]] == pytest.approx(all_layers[batch.prompts][:, [1, 4]], abs=1e-12)
        assert batch.certificate.accepted == {"literal-20": 2 * len(batch.prompts)}


def test_more_points_are_evaluated_where_few_are_not_enough(golden, golden_bags):
    tokenizer, model = golden
    prompts = encode_prompts(tokenizer, golden_bags["P36"])
    engine = Engine(loading.adapt(model), "riemann", 20, 2048)
    accepted = sum((Counter(batch.certificate.accepted) for batch in engine.attribute(prompts)), Counter())
    assert accepted.total() == len(prompts) * engine.adapter.n_layers
    assert accepted["riemann-3"] > accepted["riemann-5"] > accepted["riemann-17"] > 0


@pytest.mark.parametrize("dtype, tolerance", [("bfloat16", 0.2), ("float16", 0.02)])
def test_attributions_in_half_precision_are_close(golden, golden_bags, dtype, tolerance):
    tokenizer, model = golden
    prompts = encode_prompts(tokenizer, golden_bags["P101"][:4])
    full = attributed(Engine(loading.adapt(model), "riemann", 20, 2048), prompts)
    _, half = loading.load(str(GOLDEN / "model"), None, dtype, torch.device("cpu"))
    assert (
        np.median(distances(attributed(Engine(loading.adapt(half), "riemann", 20, 2048), prompts), full)) <= tolerance
    )


def test_batches_are_halved_when_memory_runs_out(golden, golden_bags, monkeypatch):
    tokenizer, model = golden
    prompts = encode_prompts(tokenizer, golden_bags["P36"][:6])
    adapter = loading.adapt(model)
    expected = attributed(Engine(adapter, "riemann", 20, 2048), prompts)
    run_on, largest_batch = adapter.run_on, 7

    def scarce(plain, starts, rows, ffn):
        if len(ffn) > 2 * largest_batch:  # the first rung evaluates 2 nodes
            raise torch.OutOfMemoryError
        return run_on(plain, starts, rows, ffn)

    monkeypatch.setattr(adapter, "run_on", scarce)
    engine = Engine(adapter, "riemann", 20, 2048)
    assert distances(attributed(engine, prompts), expected).max() <= 1e-5
    assert engine.batches.limit < 2048
    largest_batch = 0
    with pytest.raises(InputError, match="out of memory with a single prompt"):
        attributed(engine, prompts)


def test_triplets_are_the_neurons_with_a_share_of_the_prompts_highest_score():
    scores = torch.zeros(3, 2, 4)
    scores[0, 1, 3], scores[0, 0, 2], scores[0, 0, 1] = 1.0, 0.1, 0.05
    scores[1, 1, 0], scores[1, 0, 0] = 8.0, -9.0
    scores[2, 0, 0] = 2.0
    assert strongest(scores, 0.1).listed() == [[(0, 2, pytest.approx(0.1)), (1, 3, 1.0)], [(1, 0, 8.0)], [(0, 0, 2.0)]]
