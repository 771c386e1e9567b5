"""How fast stage 1's engine is, compared with the published way of computing and with the machine's peak.

    PYTHONPATH=src .venv/bin/python benchmarks/attribution.py       about 5 minutes on two cores

Uses a BERT of base size with random weights and prompts of 8 to 16 tokens, all in one run. The published way is the
obvious loop: one prompt at a time, padded to 128 tokens, the whole model for every layer, a batch of 20 points. "share
of peak" is the number of operations per second in the engine's matrix products, divided by that of the fastest product
measured on this machine in the same type. If captum is installed (`.venv/bin/pip install captum`), its integrated
gradients of the same neurons are timed as well, layer by layer and without padding.
"""

from kn.store.start import guard

import torch
from transformers import BertConfig, BertForMaskedLM

from kn.methods.attribution import Engine
from kn.methods.certificate import Certificate, in_words
from kn.model import devices, loading
from kn.model.encoders import PostNormEncoder
from kn.model.prompts import Prompt
from kn.stage import flags
from kn.store import runs
from measuring import operations, peak_memory, reset_peak_memory, timed

try:
    from captum.attr import IntegratedGradients
except ImportError:  # captum is optional
    IntegratedGradients = None

PADDED, POINTS = 128, 20
LENGTHS = range(8, 17)


def main() -> None:
    parser = flags.parser(__doc__)
    parser.add_argument("--device", type=flags.device, default="auto", help="auto, cpu, cuda or cuda:N")
    parser.add_argument("--prompts", type=flags.positive, default=180, help="number of prompts for the engine")
    parser.add_argument(
        "--published_prompts", type=flags.positive, default=1, help="number of prompts for the published way"
    )
    parser.add_argument("--max_tokens", type=flags.positive, help="tokens per batch (default: as in stage 1)")
    parser.add_argument("--seed", type=int, default=42, help="for the random weights and prompts")
    args = parser.parse_args()
    device = devices.choose(args.device)
    torch.manual_seed(args.seed)
    model = BertForMaskedLM(BertConfig(vocab_size=28996)).to(device).eval().requires_grad_(False)
    prompts = random_prompts(args.prompts)
    print(f"{runs.provenance(device)}\n")

    step = len(prompts) // args.published_prompts
    sample = prompts[step // 2 :: step]
    seconds, expected = timed(lambda: [published(model, prompt) for prompt in sample], device)
    seconds /= len(sample)
    print(f"{'':32}{'s per prompt':>14}{'prompts/s':>12}{'times faster':>14}{'share of peak':>15}{'memory':>10}")
    print(f"{'published way, float32':32}{seconds:14.4f}{1 / seconds:12.2f}{1:14.1f}")
    if IntegratedGradients:
        captum_seconds, scores = timed(lambda: [by_captum(model, prompt) for prompt in sample], device)
        captum_seconds /= len(sample)
        times = seconds / captum_seconds
        print(f"{'captum, float32':32}{captum_seconds:14.4f}{1 / captum_seconds:12.2f}{times:14.1f}")
        distance = (torch.stack(scores[0]) - torch.stack(expected[0])).norm() / torch.stack(expected[0]).norm()
        print(f"{'':32}distance between the two: {distance:.1e}")
    for dtype in ("float32", "tf32", "bfloat16") if device.type == "cuda" else ("float32", "bfloat16"):
        torch.backends.cuda.matmul.allow_tf32 = dtype == "tf32"
        adapter = loading.adapt(model.to(loading.DTYPES[dtype]))
        peak = fastest_product(adapter)
        for rule in ("literal", "riemann", "gauss"):
            engine = Engine(adapter, rule, POINTS, args.max_tokens)
            few = prompts[:: 6 if rule == "literal" else 1]
            reset_peak_memory(device)
            list(engine.attribute(few[:20]))  # warm up
            total, batches = timed(lambda engine=engine, few=few: list(engine.attribute(few)), device)
            per_prompt = total / len(few)
            share = sum(operations(adapter, len(ids), engine.ladder[0]) for ids, _, _ in few) / total / peak
            summary = sum((batch.certificate for batch in batches), Certificate()).summary()
            print(
                f"{rule + ', ' + dtype:32}{per_prompt:14.4f}{1 / per_prompt:12.2f}{seconds / per_prompt:14.1f}"
                f"{share:15.0%}{peak_memory(device):8.1f}GB  {in_words(summary)}",
                flush=True,
            )
        print(f"{'':32}fastest matrix product measured, {dtype}: {peak / 1e12:.2f} Tflop/s")


def random_prompts(count: int) -> list[Prompt]:
    prompts = []
    for number in range(count):
        length = LENGTHS[number % len(LENGTHS)]
        ids = torch.randint(1000, 28000, (length,))
        position = int(torch.randint(1, length - 1, ()))
        ids[position] = 103
        prompts.append(Prompt(ids.tolist(), [position], [int(torch.randint(1000, 28000, ()))]))
    return prompts


def published(model: BertForMaskedLM, prompt: Prompt) -> list[torch.Tensor]:
    """Attribute one prompt as the published program does: per layer, run the whole padded model at all points."""
    ids, (position,), (answer,) = prompt
    padded = torch.zeros(1, PADDED, dtype=torch.long, device=model.device)
    padded[0, : len(ids)] = torch.tensor(ids)
    mask = (torch.arange(PADDED, device=model.device) < len(ids)).long()[None]
    attributions = []
    for layer in model.bert.encoder.layer:
        kept = {}
        hook = layer.intermediate.register_forward_hook(lambda m, i, out, kept=kept: kept.update(w=out[0, position]))
        with torch.no_grad():
            model(padded, attention_mask=mask)
        hook.remove()
        scaled = (torch.arange(POINTS, device=model.device) / POINTS)[:, None] * kept["w"]
        scaled.requires_grad_()

        def replace(module, inputs, output, scaled=scaled):
            output = output.clone()
            output[:, position] = scaled
            return output

        hook = layer.intermediate.register_forward_hook(replace)
        logits = model(padded.expand(POINTS, -1), attention_mask=mask.expand(POINTS, -1)).logits
        hook.remove()
        probability = logits[:, position].softmax(-1)[:, answer]
        (gradient,) = torch.autograd.grad(probability.sum(), scaled)
        attributions.append(kept["w"] * gradient.sum(0) / POINTS)
    return attributions


def by_captum(model: BertForMaskedLM, prompt: Prompt) -> list[torch.Tensor]:
    """Compute the same sum with captum. Its integrated gradients treat the neurons at the mask as the input."""
    ids, (position,), (answer,) = prompt
    tokens = torch.tensor([ids], device=model.device)
    attributions = []
    for layer in model.bert.encoder.layer:

        def probability(neurons: torch.Tensor, layer=layer) -> torch.Tensor:
            def replace(module, inputs, output):
                output = output.clone()
                output[:, position] = neurons
                return output

            hook = layer.intermediate.register_forward_hook(replace)
            logits = model(tokens.expand(len(neurons), -1)).logits
            hook.remove()
            return logits[:, position].softmax(-1)[:, answer]

        kept = {}
        hook = layer.intermediate.register_forward_hook(lambda m, i, out, kept=kept: kept.update(w=out[:, position]))
        with torch.no_grad():
            model(tokens)
        hook.remove()
        scores = IntegratedGradients(probability).attribute(kept["w"], n_steps=POINTS, method="riemann_left")
        attributions.append(scores[0])
    return attributions


def fastest_product(adapter: PostNormEncoder) -> float:
    """The largest number of operations per second, over the sizes that matter here."""
    layer = adapter.blocks[0].up
    best = 0.0
    for rows in (512, 1024, 2048, 4096) if adapter.device.type == "cpu" else (4096, 16384, 65536):
        x = torch.randn(rows, adapter.d_model, device=adapter.device, dtype=layer.weight.dtype)
        for _ in range(4):
            seconds, _ = timed(lambda x=x: [layer(x) for _ in range(10)], adapter.device)
            best = max(best, 10 * 2 * rows * layer.weight.numel() / seconds)
    return best


if __name__ == "__main__":
    guard(main)
