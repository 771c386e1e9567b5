"""How stage 1's cost grows: with the number of facts, and with tokens, layers and width.

    PYTHONPATH=src .venv/bin/python benchmarks/scaling.py --out figures/scaling       about 2 minutes on two cores

BERTs with random weights, 6 layers of width 256 and 4 times as many neurons, prompts of 12 tokens, 9 a fact; one of
these is varied at a time. Facts are attributed all together; of the rest a batch is measured, as large as the engine
makes it. Measurements are repeated, one of each in turn, and the lowest is told: whatever else a machine does only adds
to it. "arithmetic" is what the seconds would be if they grew as the number of operations in the matrix products does,
from the common point of all lines on. Writes a figure and its numbers: .png, .pdf and .csv.
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
from kn.report import figures
from kn.stage import flags
from kn.store import runs
from measuring import operations, timed

PROMPTS, POINTS, VOCABULARY = 9, 20, 8192


class Setting(NamedTuple):
    facts: int | None = None  # none: as many prompts as make a batch
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
    prompts: list[tuple[list[int], int, int]]
    arithmetic: float  # operations a prompt
    seconds: list[float]  # a prompt


def main() -> None:
    parser = flags.parser(__doc__)
    parser.add_argument("--out", default="figures/scaling", help="the figure, without its ending")
    parser.add_argument("--device", type=flags.device, default="auto", help="auto, cpu, cuda or cuda:N")
    parser.add_argument("--dtype", choices=loading.DTYPES, default="float32", help="of the models")
    parser.add_argument("--repeats", type=flags.positive, default=3, help="of every measurement")
    parser.add_argument("--max_tokens", type=flags.positive, help="tokens a batch; none: as stage 1")
    parser.add_argument("--seed", type=int, default=42, help="of weights and prompts")
    args = parser.parse_args()
    device = devices.choose(args.device)
    torch.manual_seed(args.seed)
    torch.backends.cuda.matmul.allow_tf32 = args.dtype == "tf32"
    print(f"{runs.provenance(device)}\n")

    points = {(name, value): Setting()._replace(**{name: value}) for name, of in LINES.items() for value in of}
    measured = {setting: prepare(setting, args, device) for setting in {Setting(), *points.values()}}
    certificate = Certificate()
    for _ in range(args.repeats):
        for of in measured.values():
            took, found = timed(lambda of=of: list(of.engine.attribute(of.prompts)), device)
            of.seconds.append(took / len(of.prompts))
            certificate = sum((batch.certificate for batch in found), certificate)

    common = measured[Setting()]
    rows = []
    for (name, value), setting in points.items():
        of = measured[setting]
        expected = min(common.seconds) * of.arithmetic / common.arithmetic
        rows.append([name, value, len(of.prompts), min(of.seconds), max(of.seconds), expected])
    header = ["varied", "value", "prompts", "seconds a prompt", "highest", "arithmetic"]
    print(f"{'':8}{'':>6}{'prompts':>9}{'ms a prompt':>13}{'highest':>10}{'arithmetic':>12}{'ratio':>8}")
    for name, value, prompts, *seconds in rows:
        told = "".join(f"{1000 * each:{width}.2f}" for each, width in zip(seconds, (13, 10, 12), strict=True))
        print(f"{name:8}{value:6}{prompts:9}{told}{seconds[0] / seconds[-1]:8.2f}")
    print(f"steps of the integration: {certificate.accepted}")
    print(f"figure: {draw(rows, header, Path(args.out))}")


def prepare(setting: Setting, args, device: torch.device) -> Measured:
    config = BertConfig(
        vocab_size=VOCABULARY,
        num_hidden_layers=setting.layers,
        hidden_size=setting.width,
        intermediate_size=4 * setting.width,
        num_attention_heads=setting.width // 64,
    )
    model = BertForMaskedLM(config).to(device, loading.DTYPES[args.dtype]).eval().requires_grad_(False)
    engine = Engine(loading.adapt(model), "riemann", POINTS, args.max_tokens)
    rule = engine.ladder[0]
    a_batch = engine.batches.rows(setting.tokens, paid(rule))
    count = setting.facts * PROMPTS if setting.facts else a_batch
    ids = torch.randint(VOCABULARY, (count, setting.tokens)).tolist()
    position = setting.tokens // 2
    prompts = [(of_prompt, position, answer) for answer, of_prompt in enumerate(ids)]
    list(engine.attribute(prompts[: a_batch // 4]))  # warm up
    return Measured(engine, prompts, operations(engine.adapter, setting.tokens, rule), [])


def draw(rows: list[list], header: list[str], path: Path) -> Path:
    figure, panels = plt.subplots(1, len(LINES), figsize=(3 * len(LINES), 2.8))
    for axes, name in zip(panels, LINES, strict=True):
        _, values, _, seconds, _, arithmetic = zip(*(row for row in rows if row[0] == name), strict=True)
        axes.plot(values, seconds, "o", color="#0b5394", label="measured")
        axes.plot(values, arithmetic, "--", color="#e69f00", label="arithmetic")
        axes.set(xscale="log", yscale="log", xlabel=name)
        axes.set_xticks(values, [str(value) for value in values])
        axes.minorticks_off()
        low, high = min(*seconds, *arithmetic), max(*seconds, *arithmetic)
        axes.set_ylim(min(low / 1.5, high / 12), max(high * 1.5, low * 12))  # what is flat should look flat
    panels[0].set_ylabel("seconds a prompt")
    panels[0].legend(frameon=False)
    return figures.save(figure, path, header, rows)


if __name__ == "__main__":
    guard(main)
