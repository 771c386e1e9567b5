"""How fast the engine is on a causal model, compared with running the whole sequence for every point.

    PYTHONPATH=src .venv/bin/python benchmarks/causal.py       about 2 minutes on two cores

Uses a GPT-2 of base size with random weights and prompts of 20 tokens, which are read at the last token, all in one
run. The other way runs transformers' own model: once on a batch of prompts, then per layer on the whole sequence at
all points of all prompts of the batch. It computes gradients down to that layer only, and logits of the last token
only. Its batch has `--whole_batch` rows; the default was fastest. `literal` evaluates the same points.
"""

from kn.store.start import guard

import torch
from transformers import GPT2Config, GPT2LMHeadModel

from kn.methods.attribution import Engine
from kn.model import devices, loading
from kn.model.prompts import Prompt
from kn.stage import flags
from kn.store import runs
from measuring import peak_memory, reset_peak_memory, timed

POINTS = 20


def main() -> None:
    parser = flags.parser(__doc__)
    parser.add_argument("--device", type=flags.device, default="auto", help="auto, cpu, cuda or cuda:N")
    parser.add_argument("--prompts", type=flags.positive, default=200, help="number of prompts for the engine")
    parser.add_argument("--whole_prompts", type=flags.positive, default=2, help="number of prompts for the other way")
    parser.add_argument("--whole_batch", type=flags.positive, default=20, help="rows per batch of the other way")
    parser.add_argument("--tokens", type=flags.positive, default=20, help="tokens per prompt")
    parser.add_argument("--seed", type=int, default=42, help="for the random weights and prompts")
    args = parser.parse_args()
    device = devices.choose(args.device)
    torch.manual_seed(args.seed)
    model = GPT2LMHeadModel(GPT2Config()).to(device).eval().requires_grad_(False)
    ids = torch.randint(50257, (args.prompts, args.tokens + 1))
    prompts = [Prompt(row[:-1].tolist(), [args.tokens - 1], [int(row[-1])]) for row in ids]
    print(f"{runs.provenance(device)}\n")

    few = ids[: args.whole_prompts].to(device)
    seconds, theirs = timed(lambda: whole(model, few, args.whole_batch), device)
    seconds /= len(few)
    print(f"{'':32}{'s per prompt':>14}{'prompts/s':>12}{'times faster':>14}{'memory':>10}")
    print(f"{'whole sequence, every point':32}{seconds:14.4f}{1 / seconds:12.2f}{1:14.1f}")
    adapter = loading.adapt(model)
    for rule in ("literal", "riemann", "gauss"):
        engine = Engine(adapter, rule, POINTS)
        reset_peak_memory(device)
        list(engine.attribute(prompts[:20]))  # warm up
        total, batches = timed(lambda engine=engine: list(engine.attribute(prompts)), device)
        per_prompt = total / len(prompts)
        times = seconds / per_prompt
        memory = peak_memory(device)
        print(f"{rule:32}{per_prompt:14.4f}{1 / per_prompt:12.2f}{times:14.1f}{memory:8.1f}GB", flush=True)
        if rule == "literal":
            scores_by_prompt: dict[int, torch.Tensor] = {}
            for batch in batches:
                scores_by_prompt.update(zip(batch.prompts, batch.answer, strict=True))
            ours = torch.stack([scores_by_prompt[index] for index in range(len(few))])
            print(f"{'':32}distance between the two: {((ours - theirs).norm() / theirs.norm()).item():.1e}")


def whole(model: GPT2LMHeadModel, prompts: torch.Tensor, batch: int) -> torch.Tensor:
    """The attributions for each prompt's last token, prompts x layers x neurons."""
    scores = []
    for group in prompts.split(max(1, batch // POINTS)):
        ids, answers = group[:, :-1], group[:, -1]
        layers = []
        for block in model.transformer.h:
            kept = {}
            hook = block.mlp.c_proj.register_forward_pre_hook(lambda m, i, kept=kept: kept.update(w=i[0][:, -1]))
            with torch.no_grad():
                model(ids, logits_to_keep=1, use_cache=False)
            hook.remove()
            points = torch.arange(POINTS, device=ids.device) / POINTS
            scaled = (points[:, None] * kept["w"][:, None]).flatten(0, 1).requires_grad_()

            def replace(module, inputs, scaled=scaled):
                return (torch.cat((inputs[0][:, :-1], scaled[:, None]), 1),)

            hook = block.mlp.c_proj.register_forward_pre_hook(replace)
            logits = model(ids.repeat_interleave(POINTS, 0), logits_to_keep=1, use_cache=False).logits[:, -1]
            hook.remove()
            probability = logits.softmax(-1).gather(1, answers.repeat_interleave(POINTS)[:, None])
            (gradient,) = torch.autograd.grad(probability.sum(), scaled)
            layers.append(kept["w"] * gradient.unflatten(0, (len(ids), POINTS)).mean(1))
        scores.append(torch.stack(layers, 1))
    return torch.cat(scores)


if __name__ == "__main__":
    guard(main)
