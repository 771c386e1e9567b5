"""How the cost of stage 1 grows with the number of facts, and with tokens, layers and width.

    PYTHONPATH=src .venv/bin/python benchmarks/scaling.py --out figures/scaling       about 2 minutes on two cores

Uses BERTs with random weights, 6 layers of width 256 and 4 times as many neurons, and prompts of 12 tokens, 9 per fact.
One of these is varied at a time. When facts vary, all their prompts are attributed together; otherwise one batch is, as
large as the engine makes it. All measurements are repeated in turn, and the lowest time is reported, because other work
on the machine only adds to it. "arithmetic" is the time if it grew like the number of operations in the matrix
products, starting from the setting that all lines share. Writes a figure and its numbers: .png, .pdf and .csv.
"""

from kn.store.start import guard

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import matplotlib.pyplot as plt
import torch
from transformers import BertConfig, BertForMaskedLM

from kn.methods.attribution import Engine
from kn.methods.certificate import Certificate
from kn.methods.quadrature import paid
from kn.model import devices, loading
from kn.model.prompts import Prompt
from kn.report import drawing
from kn.stage import flags
from kn.store import runs
from measuring import operations, timed

PROMPTS, POINTS, VOCABULARY = 9, 20, 8192


class Setting(NamedTuple):
    facts: int | None = None  # None: one batch of prompts
    tokens: int = 12
    layers: int = 6
    width: int = 256


LINES = {
    "facts": (1, 4, 16, 64),
    "tokens": (8, 12, 16, 32, 64, 128),
    "layers": (3, 6, 12, 18),
    "width": (128, 256, 512, 768),
}


@dataclass
class Measured:
    engine: Engine
    prompts: list[Prompt]
    operations: float  # per prompt
    seconds: list[float]  # per prompt, for each repeat


def main() -> None:
    parser = flags.parser(__doc__)
    parser.add_argument("--out", default="figures/scaling", help="the figure's path without its ending")
    parser.add_argument("--device", type=flags.device, default="auto", help="auto, cpu, cuda or cuda:N")
    parser.add_argument("--dtype", choices=loading.DTYPES, default="float32", help="the type of the models' weights")
    parser.add_argument("--repeats", type=flags.positive, default=3, help="how often to repeat each measurement")
    parser.add_argument("--max_tokens", type=flags.positive, help="tokens per batch (default: as in stage 1)")
    parser.add_argument("--seed", type=int, default=42, help="for the random weights and prompts")
    args = parser.parse_args()
    device = devices.choose(args.device)
    torch.manual_seed(args.seed)
    torch.backends.cuda.matmul.allow_tf32 = args.dtype == "tf32"
    print(f"{runs.provenance(device)}\n")

    points = {(name, value): Setting()._replace(**{name: value}) for name, values in LINES.items() for value in values}
    dtype = loading.DTYPES[args.dtype]
    measured = {setting: prepare(setting, dtype, args.max_tokens, device) for setting in {Setting(), *points.values()}}
    certificate = Certificate()
    for _ in range(args.repeats):
        for case in measured.values():
            total, batches = timed(lambda case=case: list(case.engine.attribute(case.prompts)), device)
            case.seconds.append(total / len(case.prompts))
            certificate = sum((batch.certificate for batch in batches), certificate)

    common = measured[Setting()]
    rows = []
    for (name, value), setting in points.items():
        case = measured[setting]
        expected = min(common.seconds) * case.operations / common.operations
        rows.append([name, value, len(case.prompts), min(case.seconds), max(case.seconds), expected])
    header = ["varied", "value", "prompts", "seconds per prompt", "highest", "arithmetic"]
    print(f"{'':8}{'':>6}{'prompts':>9}{'ms per prompt':>15}{'highest':>10}{'arithmetic':>12}{'ratio':>8}")
    for name, value, prompts, lowest, highest, arithmetic in rows:
        times = f"{1000 * lowest:15.2f}{1000 * highest:10.2f}{1000 * arithmetic:12.2f}"
        print(f"{name:8}{value:6}{prompts:9}{times}{lowest / arithmetic:8.2f}")
    print(f"steps of the integration: {certificate.accepted}")
    print(f"figure: {draw(rows, header, Path(args.out))}")


def prepare(setting: Setting, dtype: torch.dtype, max_tokens: int | None, device: torch.device) -> Measured:
    config = BertConfig(
        vocab_size=VOCABULARY,
        num_hidden_layers=setting.layers,
        hidden_size=setting.width,
        intermediate_size=4 * setting.width,
        num_attention_heads=setting.width // 64,
    )
    model = BertForMaskedLM(config).to(device, dtype).eval().requires_grad_(False)
    engine = Engine(loading.adapt(model), "riemann", POINTS, max_tokens)
    rule = engine.ladder[0]
    batch_size = engine.batches.rows(setting.tokens, paid(rule))
    count = setting.facts * PROMPTS if setting.facts else batch_size
    ids = torch.randint(VOCABULARY, (count, setting.tokens)).tolist()
    position = setting.tokens // 2
    prompts = [Prompt(prompt_ids, [position], [answer]) for answer, prompt_ids in enumerate(ids)]
    list(engine.attribute(prompts[: batch_size // 4]))  # warm up
    return Measured(engine, prompts, operations(engine.adapter, setting.tokens, rule), [])


def draw(rows: list[list], header: list[str], path: Path) -> Path:
    figure, panels = plt.subplots(1, len(LINES), figsize=(3 * len(LINES), 2.8), layout="constrained")
    for axes, name in zip(panels, LINES, strict=True):
        line = [row for row in rows if row[0] == name]
        values, seconds, arithmetic = [row[1] for row in line], [row[3] for row in line], [row[5] for row in line]
        axes.plot(values, seconds, "o", color="#0b5394", label="measured")
        axes.plot(values, arithmetic, "--", color="#e69f00", label="arithmetic")
        axes.set(xscale="log", yscale="log", xlabel=name)
        axes.set_xticks(values, [str(value) for value in values])
        axes.minorticks_off()
        low, high = min(*seconds, *arithmetic), max(*seconds, *arithmetic)
        axes.set_ylim(min(low / 1.5, high / 12), max(high * 1.5, low * 12))  # so that a flat line looks flat
    panels[0].set_ylabel("seconds per prompt")
    panels[0].legend(frameon=False)
    return drawing.save(figure, path, header, rows)


if __name__ == "__main__":
    guard(main)
