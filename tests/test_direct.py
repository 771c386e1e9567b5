"""Scores without a path against slow loops over transformers' own models."""

import pytest
import torch
from torch import nn

from families import CAUSAL, FAMILIES, prompts, with_inputs
from kn.methods.direct import Direct, _increase, mean_activations
from kn.methods.presets import ACTIVATION, INCREASE, NORM
from kn.model import loading

# A norm with a mean and one without, attention beside the FFN, a norm after the FFN, capped logits; and masked models.
NAMES = ("gpt2", "gptj", "llama", "gemma2", "bert", "electra", "distilbert")
FINAL = {"gpt2": "transformer.ln_f", "gptj": "transformer.ln_f", "llama": "model.norm", "gemma2": "model.norm"}
HEADS = {
    "bert": lambda model, x: model.cls(x),
    "electra": lambda model, x: model.generator_lm_head(model.generator_predictions(x)),
    "distilbert": lambda model, x: model.vocab_projector(
        model.vocab_layer_norm(model.activation(model.vocab_transform(x)))
    ),
}
LAST_NORM = {"bert": "output.LayerNorm", "electra": "output.LayerNorm", "distilbert": "output_layer_norm"}


class Slow:
    """One prompt, one layer, one neuron at a time."""

    def __init__(self, name):
        self.name, self.tiny = name, FAMILIES[name]
        self.model = self.tiny.model(name, torch.float64).requires_grad_(False)
        self.layers = self.model.get_submodule(self.tiny.layers)
        self.projections = self.tiny.projections(self.model)

    def run(self, prompt):
        """Per layer the neurons, what is written by the FFN, and what comes out, all at the position that predicts."""
        (at,) = prompt.positions
        kept = {"out": []}
        hooks = [
            layer.register_forward_hook(
                lambda m, i, out: kept["out"].append((out[0] if isinstance(out, tuple) else out)[0, at])
            )
            for layer in self.layers
        ]
        kept["neurons"], kept["written"] = [], []
        for projection in self.projections:
            hooks.append(projection.register_forward_hook(lambda m, i, out: kept["neurons"].append(i[0][0, at])))
        for layer, projection in zip(self.layers, self.projections, strict=True):
            last = getattr(layer, "post_feedforward_layernorm", projection)
            hooks.append(last.register_forward_hook(lambda m, i, out: kept["written"].append(out[0, at])))
        self.model(torch.tensor([prompt.ids]))
        for hook in hooks:
            hook.remove()
        return kept

    def vectors(self, layer):
        weight = self.projections[layer].weight
        return weight if self.name == "gpt2" else weight.T  # neurons x d_model

    def increases(self, prompt):
        kept, (answer,) = self.run(prompt), prompt.answers
        scores = []
        for layer in range(len(self.layers)):
            if self.name in CAUSAL:
                read, base = self.causal(kept, layer), kept["out"][layer] - kept["written"][layer]
            else:
                read, base = self.masked(layer), self.attended(prompt, layer)
            before = read(base)[answer]
            added = self.added(kept, layer)
            scores.append(torch.stack([read(base + vector)[answer] - before for vector in added]))
        return torch.stack(scores)

    def added(self, kept, layer):
        vectors = kept["neurons"][layer][:, None] * self.vectors(layer)
        if self.name != "gemma2":
            return vectors
        norm = self.layers[layer].post_feedforward_layernorm
        ffn = kept["neurons"][layer] @ self.vectors(layer)
        return vectors * (1 + norm.weight) / (ffn.pow(2).mean() + norm.eps).sqrt()

    def causal(self, kept, layer):
        norm, last = self.model.get_submodule(FINAL[self.name]), kept["out"][-1]

        def read(x):
            if isinstance(norm, nn.LayerNorm):
                x = (x - x.mean()) / (last.var(unbiased=False) + norm.eps).sqrt() * norm.weight + norm.bias
            else:
                weight = norm.weight + 1 if self.name == "gemma2" else norm.weight
                epsilon = norm.eps if self.name == "gemma2" else norm.variance_epsilon
                x = x / (last.pow(2).mean() + epsilon).sqrt() * weight
            logits = self.model.lm_head(x)
            cap = getattr(self.model.config, "final_logit_softcapping", None)
            return (cap * torch.tanh(logits / cap) if cap else logits).log_softmax(-1)

        return read

    def masked(self, layer):
        norm = self.layers[layer].get_submodule(LAST_NORM[self.name])
        return lambda x: HEADS[self.name](self.model, norm(x)).log_softmax(-1)

    def attended(self, prompt, layer):
        """What the FFN adds to: what its last norm gets, less what the FFN wrote."""
        (at,) = prompt.positions
        kept, modules = [], [self.layers[layer].get_submodule(LAST_NORM[self.name]), self.projections[layer]]
        hooks = [
            modules[0].register_forward_hook(lambda m, i, out: kept.append(i[0][0, at])),
            modules[1].register_forward_hook(lambda m, i, out: kept.append(out[0, at])),
        ]
        self.model(torch.tensor([prompt.ids]))
        for hook in hooks:
            hook.remove()
        written, total = kept
        return total - written


@pytest.mark.parametrize("name", NAMES)
def test_log_probability_increases_agree_with_slow_loops(name, monkeypatch):
    monkeypatch.setattr("kn.methods.direct.LOGITS", 60 * 7)  # several blocks of neurons
    slow, asked = Slow(name), prompts(name in CAUSAL)[:2]
    scored = {}
    for batch in Direct(loading.adapt(slow.model), INCREASE).attribute(asked):
        scored |= dict(zip(batch.prompts, batch.answer, strict=True))
    for number, prompt in enumerate(asked):
        expected = slow.increases(prompt)
        # Some norms of transformers compute in float32 whatever the model's type.
        assert (scored[number] - expected).norm() <= 1e-5 * expected.norm() and expected.abs().max() > 1e-2


@pytest.mark.parametrize("name", ["gpt2", "bert"])
def test_activations_and_norms_are_the_models(name):
    slow, asked = Slow(name), prompts(name in CAUSAL)
    adapter = loading.adapt(slow.model)
    expected = [torch.stack(slow.run(prompt)["neurons"]) for prompt in asked]
    lengths = torch.stack([slow.vectors(layer).norm(dim=1) for layer in range(3)])
    for rule, factor in ((ACTIVATION, 1), (NORM, lengths)):
        for batch in Direct(adapter, rule).attribute(asked):
            for row, number in enumerate(batch.prompts):
                truth = expected[number] if rule == ACTIVATION else expected[number].abs() * factor
                assert torch.allclose(batch.answer[row], truth, atol=1e-9)
                logits = slow.model(torch.tensor([asked[number].ids])).logits[0, asked[number].positions[0]]
                assert batch.own[row] == pytest.approx(logits.softmax(-1)[asked[number].answers[0]].item(), rel=1e-9)
    assert torch.allclose(mean_activations(adapter, asked), torch.stack(expected).mean(0), atol=1e-9)


def test_a_neuron_that_writes_nothing_has_no_increase_and_layers_can_be_chosen():
    slow, asked = Slow("gpt2"), prompts(causal=True)
    slow.projections[1].weight[7] = 0
    for batch in Direct(loading.adapt(slow.model), INCREASE).attribute(asked, layers=[1]):
        assert (batch.answer[:, [0, 2]] == 0).all() and batch.answer[:, 1, 7].abs().max() < 1e-12
        assert (batch.answer[:, 1].abs() > 1e-6).sum() > 30


def test_the_increase_of_the_last_layer_orders_neurons_as_removing_them_does():
    """In the last layer, what is read early lacks only the other neurons, so the neurons that matter are the same."""
    slow = Slow("llama")
    (asked,) = prompts(causal=True)[:1]
    (batch,) = Direct(loading.adapt(slow.model), INCREASE).attribute([asked])
    ids, (at,), (answer,) = torch.tensor([asked.ids]), asked.positions, asked.answers
    losses = []
    for neuron in range(40):

        def without(number, x, neuron=neuron):
            return x.index_fill(-1, torch.tensor([neuron]), 0) if number == 2 else x

        logits = with_inputs(slow.projections, without, lambda: slow.model(ids).logits[0, at])
        losses.append(slow.model(ids).logits[0, at].log_softmax(-1)[answer] - logits.log_softmax(-1)[answer])
    together = torch.corrcoef(torch.stack([batch.answer[0, 2], torch.stack(losses)]))
    assert together[0, 1] > 0.5


@pytest.mark.parametrize("size", [1e-3, 1, 30, 300])
def test_increases_are_exact_whether_changes_are_small_or_large(size):
    rng = torch.Generator().manual_seed(1)
    before, changes = 3 * torch.randn(500, generator=rng), size * torch.randn(6, 500, generator=rng)
    changes[0] = -size  # all logits alike: nothing changes
    ours = _increase(changes, before, before.softmax(-1), torch.tensor(7))
    exact = (before.double() + changes.double()).log_softmax(-1)[:, 7] - before.double().log_softmax(-1)[7]
    assert (ours - exact).abs().max() <= 2e-6 * max(size, 1) and exact[1:].abs().min() > size / 1e3
