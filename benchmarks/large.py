"""What it costs to attribute one prompt in large causal models: by formula, and measured on a slice of each.

    PYTHONPATH=src .venv/bin/python benchmarks/large.py                     a few minutes on two cores, below 6 GB
    PYTHONPATH=src .venv/bin/python benchmarks/large.py --layers 0          whole models, on a GPU

The shapes are those of GPT-2-XL, GPT-J-6B, Llama-2-7B and Llama-3-8B, with random weights. By formula: the size of the
weights, the operations in the matrix products for one prompt, the memory that a prompt takes in a batch, and how many
prompts fit on a device with `--memory`. Measured: seconds per prompt with the first `--layers` layers, embeddings and
head (here one matrix of at most 32,000 words, to save memory), scaled to the whole model by the operations.

    whole model       runs the whole model at all 20 points of each layer, and back to that layer
    captum            its integrated gradients, which compute the same sum, if it is installed (`pip install captum`)
    one step          what EasyEdit's settings for Llama do (`steps: 1`): per layer only the gradient at 0, of the input
                      of the activation function. This is another quantity, not a fast way to compute the sum
    literal, riemann  the engine: with all 20 points, and the same sum from as many points as it needs
"""

from kn.store.start import guard

import gc
from collections.abc import Callable

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig

from kn.methods.attribution import Engine
from kn.methods.quadrature import ladder, paid
from kn.model import devices, loading
from kn.model.prompts import Prompt
from kn.stage import flags
from kn.store import runs
from measuring import peak_memory, reset_peak_memory, timed

try:
    from captum.attr import IntegratedGradients
except ImportError:  # captum is optional
    IntegratedGradients = None

LLAMA = {"hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32}
SHAPES = {
    "gpt2-xl": ("gpt2", {"n_embd": 1600, "n_layer": 48, "n_head": 25}),
    "gpt-j-6b": ("gptj", {"n_embd": 4096, "n_layer": 28, "n_head": 16, "rotary_dim": 64, "vocab_size": 50400}),
    "llama-2-7b": ("llama", LLAMA | {"intermediate_size": 11008, "vocab_size": 32000}),
    "llama-3-8b": ("llama", LLAMA | {"intermediate_size": 14336, "vocab_size": 128256, "num_key_value_heads": 8}),
}
# By family: the layers, and in a layer the FFN, its output projection, and the module before the activation function.
PARTS = {
    "gpt2": ("transformer.h", "mlp", "mlp.c_proj", "mlp.c_fc"),
    "gptj": ("transformer.h", "mlp", "mlp.fc_out", "mlp.fc_in"),
    "llama": ("model.layers", "mlp", "mlp.down_proj", "mlp.gate_proj"),
}
POINTS = 20
FIRST = paid(ladder("riemann", POINTS)[0])  # points of the engine's first rung
# What the backward pass stores for one token in one layer, as multiples of d_model and d_ffn: about what slices took.
WIDTHS, NEURONS = 12, 6
SLICE_WORDS = 32000  # the largest vocabulary of a slice


def main() -> None:
    parser = flags.parser(__doc__)
    parser.add_argument("--device", type=flags.device, default="auto", help="auto, cpu, cuda or cuda:N")
    parser.add_argument("--dtype", choices=loading.DTYPES, default="bfloat16", help="the type of the weights")
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=list(SHAPES), help="the models")
    parser.add_argument("--layers", type=int, default=2, help="number of layers in the slice; 0: the whole model")
    parser.add_argument("--prompts", type=flags.positive, default=32, help="number of prompts for the engine")
    parser.add_argument("--tokens", type=flags.positive, default=12, help="tokens per prompt")
    parser.add_argument(
        "--memory", type=flags.positive, default=80, help="the memory of the device in the formula, in GB"
    )
    parser.add_argument("--seed", type=int, default=42, help="for the random weights and prompts")
    args = parser.parse_args()
    device, dtype = devices.choose(args.device), loading.DTYPES[args.dtype]
    print(f"{runs.provenance(device)}\n")
    print(f"By formula, {args.dtype}, prompts of {args.tokens} tokens; riemann with its first {FIRST} points\n")
    print(f"{'':12}{'weights':>10}{'Tflop: whole model':>20}{'one step':>10}{'literal':>9}{'riemann':>9}", end="")
    print(f"{'MB per prompt':>15}{f'prompts in {args.memory} GB':>19}")
    for name in args.shapes:
        print(f"{name:12}{by_formula(Size(config_of(name)), args.tokens, args.memory, dtype)}")
    if not IntegratedGradients:
        print("\ncaptum is not installed, so it is left out")
    for name in args.shapes:
        measure(name, args.layers, args.prompts, args.tokens, args.seed, device, dtype)


def config_of(name: str, layers: int = 0) -> PreTrainedConfig:
    """The configuration of the whole model, or of a slice with this many layers."""
    family, shape = SHAPES[name]
    config = AutoConfig.for_model(family, **shape)
    if layers:
        config.num_hidden_layers = layers
        config.tie_word_embeddings = True
        config.vocab_size = min(config.vocab_size, SLICE_WORDS)
    return config


# ---- by formula ----


class Size:
    """What a model of this shape needs. Operations are those of matrix products, two per weight that is used."""

    def __init__(self, config: PreTrainedConfig):
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config)
        layers, ffn, down, _ = PARTS[config.model_type]
        layer = model.get_submodule(layers)[0]
        self.weights = sum(weight.numel() for weight in model.parameters())
        self.layer, self.ffn = matrices(layer), matrices(layer.get_submodule(ffn))
        self.d_ffn = max(layer.get_submodule(down).weight.shape)
        self.n_layers, self.d_model, self.words = config.num_hidden_layers, config.hidden_size, config.vocab_size
        heads = config.num_attention_heads
        self.keys = self.d_model * getattr(config, "num_key_value_heads", heads) // heads
        self.head = self.words * self.d_model
        self.above = self.n_layers * (self.n_layers - 1) // 2 * self.layer  # the layers above each layer, added up

    def whole_model(self, tokens: int, points: int = POINTS) -> float:
        """Operations if the whole model runs per layer: plain, then all points, and back from the last token."""
        forward = tokens * self.n_layers * self.layer + self.head
        back = tokens * self.above + self.n_layers * self.head
        return 2 * ((1 + points) * self.n_layers * forward + points * back)

    def engine(self, tokens: int, points: int) -> float:
        """Operations of the engine: one plain run, then per layer the points of one token, in higher layers only."""
        plain = tokens * (self.n_layers * self.layer - self.ffn) + 2 * (self.n_layers * self.layer + self.head)
        all_points = 2 * points * (self.above + self.n_layers * self.head)
        return 2 * (plain + all_points + self.n_layers * self.d_model * self.d_ffn)

    def prompt(self, tokens: int, points: int, bytes_each: int) -> float:
        """The bytes that a prompt takes in a batch.

        They hold what the plain run keeps, what the backward pass needs from the plain run and from the points of the
        lowest layer, the logits of these points, and the scores.
        """
        left = 2 * tokens * self.keys + 2 * self.d_model + self.d_ffn
        way_back = (1 + points) * (WIDTHS * self.d_model + NEURONS * self.d_ffn)
        return self.n_layers * (left + way_back) * bytes_each + 4 * (
            3 * points * self.words + 3 * self.n_layers * self.d_ffn
        )


def matrices(module: nn.Module) -> int:
    return sum(weight.numel() for weight in module.parameters() if weight.ndim > 1)


def by_formula(size: Size, tokens: int, memory: int, dtype: torch.dtype) -> str:
    weights = size.weights * dtype.itemsize
    prompt = size.prompt(tokens, FIRST, dtype.itemsize)
    operations = [
        f"{size.whole_model(tokens) / 1e12:20.1f}",
        f"{size.whole_model(tokens, 1) / 1e12:10.2f}",
        f"{size.engine(tokens, POINTS) / 1e12:9.2f}",
        f"{size.engine(tokens, FIRST) / 1e12:9.2f}",
    ]
    room = max(0.0, memory * 1e9 - weights)
    return f"{weights / 1e9:8.1f}GB{''.join(operations)}{prompt / 1e6:15.1f}{room / prompt:19,.0f}"


# ---- measured ----


def measure(
    name: str, layers: int, n_prompts: int, tokens: int, seed: int, device: torch.device, dtype: torch.dtype
) -> None:
    gc.collect()
    config = config_of(name, layers)
    whole, slice_ = Size(config_of(name)), Size(config)
    torch.manual_seed(seed)
    with torch.device(device):
        model = AutoModelForCausalLM.from_config(config, dtype=dtype).eval().requires_grad_(False)
    ids = torch.randint(config.vocab_size, (n_prompts, tokens + 1))
    prompts = [Prompt(row[:-1].tolist(), [tokens - 1], [int(row[-1])]) for row in ids]
    print(f"\n{name}, {config.num_hidden_layers} of {whole.n_layers} layers")
    print(f"{'':12}{'s per prompt':>14}{'whole model':>14}{'times faster':>14}{'Tflop/s':>9}{'memory':>9}", flush=True)

    def print_row(way: str, seconds: float, operations: Callable[[Size], float]) -> float:
        """Print a line, and return the seconds scaled to the whole model."""
        scaled = seconds * operations(whole) / operations(slice_)
        times = f"{slow / scaled:14.1f}" if slow else f"{1:14.1f}"
        rate = operations(slice_) / seconds / 1e12
        print(f"{way:12}{seconds:14.3f}{scaled:14.2f}{times}{rate:9.2f}{peak_memory(device):7.1f}GB", flush=True)
        return scaled

    slow, expected = 0.0, None
    ways = {"whole model": all_points, "captum": by_captum, "one step": one_step}
    if not IntegratedGradients:
        del ways["captum"]
    for way, work in ways.items():
        points = 1 if work is one_step else POINTS
        reset_peak_memory(device)
        one = ids[:1, :-1].to(device), int(ids[0, -1])
        work(model, *one, layers=1)  # warm up
        seconds, scores = timed(lambda work=work, one=one: work(model, *one), device)
        scaled = print_row(way, seconds, lambda size, points=points: size.whole_model(tokens, points))
        if expected is None:
            slow, expected = scaled, scores
        elif work is by_captum:
            print(f"{'':12}distance from the whole model's: {distance(scores, expected):.1e}")
    adapter = loading.adapt(model)
    for rule, points in (("literal", POINTS), ("riemann", FIRST)):
        engine = Engine(adapter, rule, POINTS)
        reset_peak_memory(device)
        list(engine.attribute(prompts[:2]))  # warm up
        seconds, batches = timed(lambda engine=engine: list(engine.attribute(prompts)), device)
        print_row(rule, seconds / len(prompts), lambda size, points=points: size.engine(tokens, points))
        ours = next(batch.answer[batch.prompts.index(0)] for batch in batches if 0 in batch.prompts)
        print(f"{'':12}distance from the whole model's: {distance(ours, expected):.1e}")


def distance(scores: Tensor, expected: Tensor) -> float:
    return ((scores.float() - expected.float()).norm() / expected.float().norm()).item()


def last_token(
    model: nn.Module, ids: Tensor, answer: int, module: nn.Module, of_input: bool
) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """The input or output of a module at the last token, and the answer's probability as a function of it."""

    def run(rows: Tensor, change: Callable[[Tensor], Tensor]) -> Tensor:
        if of_input:
            hook = module.register_forward_pre_hook(lambda m, inputs: (change(inputs[0]),))
        else:
            hook = module.register_forward_hook(lambda m, inputs, output: change(output))
        hidden = model.base_model(rows, use_cache=False).last_hidden_state[:, -1]
        hook.remove()
        return model.get_output_embeddings()(hidden)  # with `logits_to_keep=1`, PyTorch copies the head for each row

    kept = []

    def keep(x: Tensor) -> Tensor:
        kept.append(x[:, -1])
        return x

    with torch.no_grad():
        run(ids, keep)

    def probability(neurons: Tensor) -> Tensor:
        logits = run(ids.expand(len(neurons), -1), lambda x: torch.cat((x[:, :-1], neurons[:, None]), 1))
        return logits.float().softmax(-1)[:, answer]

    return kept[0], probability


def ffn_modules(model: nn.Module, layers: int | None) -> list[tuple[nn.Module, nn.Module]]:
    """Per layer, the output projection and the module before the activation function."""
    path, _, down, before = PARTS[model.config.model_type]
    return [(layer.get_submodule(down), layer.get_submodule(before)) for layer in model.get_submodule(path)[:layers]]


def all_points(model: nn.Module, ids: Tensor, answer: int, layers: int | None = None) -> Tensor:
    scores = []
    points = torch.arange(POINTS, device=ids.device)[:, None] / POINTS
    for down, _ in ffn_modules(model, layers):
        neurons, probability = last_token(model, ids, answer, down, of_input=True)
        scaled = (points.to(neurons) * neurons).requires_grad_()
        (gradient,) = torch.autograd.grad(probability(scaled).sum(), scaled)
        scores.append(neurons[0] * gradient.mean(0))
    return torch.stack(scores)


def by_captum(model: nn.Module, ids: Tensor, answer: int, layers: int | None = None) -> Tensor:
    scores = []
    for down, _ in ffn_modules(model, layers):
        neurons, probability = last_token(model, ids, answer, down, of_input=True)
        layer_scores = IntegratedGradients(probability).attribute(neurons, n_steps=POINTS, method="riemann_left")
        scores.append(layer_scores[0])
    return torch.stack(scores)


def one_step(model: nn.Module, ids: Tensor, answer: int, layers: int | None = None) -> Tensor:
    scores = []
    for _, before in ffn_modules(model, layers):
        neurons, probability = last_token(model, ids, answer, before, of_input=False)
        at_zero = torch.zeros_like(neurons).requires_grad_()
        (gradient,) = torch.autograd.grad(probability(at_zero).sum(), at_zero)
        scores.append((neurons * gradient)[0])
    return torch.stack(scores)


if __name__ == "__main__":
    guard(main)
