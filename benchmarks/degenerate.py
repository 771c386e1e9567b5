"""How fast stage 11 searches a fact for degenerate pairs, against one run of the model for each suppression.

    PYTHONPATH=src .venv/bin/python benchmarks/degenerate.py

A BERT of base size with random weights and prompts of 8 to 16 random tokens; of each 20 random neurons, from
`--lowest_layer` on. One by one, 20 neurons and 190 pairs are 211 runs of the whole model with the one without any; the
prompt is not padded. Both ways' losses are compared.
"""

from kn.store.start import guard

import random

import numpy as np
import torch
from transformers import BertConfig, BertForMaskedLM

from kn.experiments import degenerate
from kn.methods.probing import Probe
from kn.model import devices, loading
from kn.stage import flags
from kn.store import runs
from measuring import timed

NEURONS, LENGTHS = 20, range(8, 17)


def main() -> None:
    parser = flags.parser(__doc__)
    parser.add_argument("--device", type=flags.device, default="auto", help="auto, cpu, cuda or cuda:N")
    parser.add_argument("--facts", type=flags.positive, default=8, help="for our way")
    parser.add_argument("--one_by_one", type=flags.positive, default=2, help="facts for the other way")
    parser.add_argument("--lowest_layer", type=int, default=0, help="neurons lie there or above")
    parser.add_argument("--max_tokens", type=flags.positive, help="tokens a batch; none: as the stages")
    parser.add_argument("--seed", type=int, default=42, help="of weights, prompts and neurons")
    args = parser.parse_args()
    device = devices.choose(args.device)
    torch.manual_seed(args.seed)
    model = BertForMaskedLM(BertConfig()).to(device).eval().requires_grad_(False)
    rng = random.Random(args.seed)
    layers, width = model.config.num_hidden_layers, model.config.intermediate_size
    prompts, facts = [], []
    for _ in range(args.facts):
        ids = [rng.randrange(1000, model.config.vocab_size) for _ in range(rng.choice(LENGTHS))]
        prompts.append((ids, rng.randrange(1, len(ids) - 1), rng.randrange(1000, model.config.vocab_size)))
        facts.append([[rng.randrange(args.lowest_layer, layers), rng.randrange(width)] for _ in range(NEURONS)])
    asked = [degenerate.suppressions(neurons) for neurons in facts]

    probe = Probe(loading.adapt(model), args.max_tokens)
    degenerate.suppressing(probe, prompts[:1])(asked[:1])  # warms up
    few = slice(min(args.one_by_one, args.facts))
    slow, expected = timed(lambda: one_by_one(model, prompts[few], asked[few]), device)
    fast, found = timed(lambda: degenerate.suppressing(probe, prompts)(asked), device)
    off = max(np.abs(losses - others).max() for losses, others in zip(found, expected, strict=False))
    slow, fast = slow / len(expected), fast / args.facts
    print(runs.provenance(device))
    print(f"one by one {slow:.3f} s a fact, stage 11 {fast:.3f} s, {slow / fast:.1f} times faster; off by {off:.1e}")


@torch.no_grad()
def one_by_one(model: BertForMaskedLM, prompts: list, asked: list) -> list[np.ndarray]:
    def probability(prompt: tuple, neurons: list) -> float:
        ids, position, answer = prompt

        def suppress(of_layer: list[int]):
            def hook(module, inputs, output):
                output[0, position, of_layer] = 0

            return hook

        hooks = []
        for number, layer in enumerate(model.bert.encoder.layer):
            if of_layer := [index for at, index in neurons if at == number]:
                hooks.append(layer.intermediate.register_forward_hook(suppress(of_layer)))
        logits = model(torch.tensor([ids], device=model.device)).logits[0, position]
        for hook in hooks:
            hook.remove()
        return logits.softmax(-1)[answer].item()

    found = []
    for prompt, of_fact in zip(prompts, asked, strict=True):
        plain = probability(prompt, [])
        found.append(np.array([1 - probability(prompt, neurons) / plain for neurons in of_fact]))
    return found


if __name__ == "__main__":
    guard(main)
