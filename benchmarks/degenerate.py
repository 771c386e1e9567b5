"""How fast stage 11 searches for degenerate pairs, compared with running the model once for each suppression.

    PYTHONPATH=src .venv/bin/python benchmarks/degenerate.py

Uses a BERT of base size with random weights, and prompts of 8 to 16 random tokens with 20 random neurons each, in
`--lowest_layer` or above. One by one, 20 neurons, 190 pairs and the plain run make 211 runs of the whole model per
fact. Prompts are not padded. The losses of both ways are compared.
"""

from kn.store.start import guard

import random
from collections.abc import Callable

import numpy as np
import torch
from transformers import BertConfig, BertForMaskedLM

from kn.experiments import degenerate
from kn.methods.probing import Probe
from kn.model import devices, loading
from kn.model.prompts import Prompt
from kn.neurons.sets import NeuronSet
from kn.stage import flags
from kn.store import runs
from measuring import timed

NEURONS, LENGTHS = 20, range(8, 17)


def main() -> None:
    parser = flags.parser(__doc__)
    parser.add_argument("--device", type=flags.device, default="auto", help="auto, cpu, cuda or cuda:N")
    parser.add_argument("--facts", type=flags.positive, default=8, help="number of facts for stage 11")
    parser.add_argument("--one_by_one", type=flags.positive, default=2, help="number of facts for the other way")
    parser.add_argument("--lowest_layer", type=int, default=0, help="the lowest layer with neurons")
    parser.add_argument("--max_tokens", type=flags.positive, help="tokens per batch (default: as in the stages)")
    parser.add_argument("--seed", type=int, default=42, help="for the random weights, prompts and neurons")
    args = parser.parse_args()
    device = devices.choose(args.device)
    torch.manual_seed(args.seed)
    model = BertForMaskedLM(BertConfig()).to(device).eval().requires_grad_(False)
    rng = random.Random(args.seed)
    n_layers, d_ffn = model.config.num_hidden_layers, model.config.intermediate_size
    prompts, facts = [], []
    for _ in range(args.facts):
        ids = [rng.randrange(1000, model.config.vocab_size) for _ in range(rng.choice(LENGTHS))]
        prompts.append(Prompt(ids, [rng.randrange(1, len(ids) - 1)], [rng.randrange(1000, model.config.vocab_size)]))
        layers = [rng.randrange(args.lowest_layer, n_layers) for _ in range(NEURONS)]
        facts.append(NeuronSet(zip(layers, rng.sample(range(d_ffn), NEURONS), strict=True)))
    suppressed = [degenerate.suppressions(neurons) for neurons in facts]

    probe = Probe(loading.adapt(model), args.max_tokens)
    degenerate.suppressing(probe, prompts[:1])(suppressed[:1])  # warm up
    few = slice(min(args.one_by_one, args.facts))
    slow, expected = timed(lambda: one_by_one(model, prompts[few], suppressed[few]), device)
    fast, losses = timed(lambda: degenerate.suppressing(probe, prompts)(suppressed), device)
    difference = max(np.abs(ours - theirs).max() for ours, theirs in zip(losses, expected, strict=False))
    slow, fast = slow / len(expected), fast / args.facts
    print(runs.provenance(device))
    print(f"one by one {slow:.3f} s per fact, stage 11 {fast:.3f} s, {slow / fast:.1f} times faster")
    print(f"largest difference {difference:.1e}")


@torch.no_grad()
def one_by_one(
    model: BertForMaskedLM, prompts: list[Prompt], suppressed: list[list[degenerate.Suppressed]]
) -> list[np.ndarray]:
    """Per fact, the losses with each set of its neurons suppressed."""

    def probability(prompt: Prompt, neurons: degenerate.Suppressed) -> float:
        ids, (position,), (answer,) = prompt

        def suppress(indices: list[int]) -> Callable:
            def hook(module, inputs, output):
                output[0, position, indices] = 0

            return hook

        hooks = []
        for number, module in enumerate(model.bert.encoder.layer):
            if indices := [index for layer, index in neurons if layer == number]:
                hooks.append(module.intermediate.register_forward_hook(suppress(indices)))
        logits = model(torch.tensor([ids], device=model.device)).logits[0, position]
        for hook in hooks:
            hook.remove()
        return logits.softmax(-1)[answer].item()

    losses = []
    for prompt, neuron_sets in zip(prompts, suppressed, strict=True):
        plain = probability(prompt, [])
        losses.append(np.array([1 - probability(prompt, neurons) / plain for neurons in neuron_sets]))
    return losses


if __name__ == "__main__":
    guard(main)
