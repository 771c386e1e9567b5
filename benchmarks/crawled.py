"""How fast stages 4 and 5 read crawled sentences, against the published way.

    PYTHONPATH=src .venv/bin/python benchmarks/crawled.py       about half a minute on two cores

A BERT of base size with random weights, or `--bert_model`; th sentences of crawled data, spread evenly over all facts;
all in one run. The published way is the obvious loop: one sentence at a time, padded to 512 tokens, the whole model
(its layers over all 512, its head at the mask alone), once for each sentence. Ours is what the stages do, from text
to activations. Both give the activations of 5 random neurons a sentence, which are compared.
"""

import random
from pathlib import Path

import torch
from transformers import AutoTokenizer, BertConfig, BertForMaskedLM

from kn import crawled, facts, flags, models, runs
from kn.files import InputError
from kn.probing import Probe
from kn.prompts import Encoder
from measuring import timed

PADDED = 512
NEURONS = 5


def main() -> None:
    parser = flags.parser(__doc__)
    crawled.add_flags(parser)
    parser.set_defaults(
        distant_data_dir="data/sample/BingDistantTREx/final",
        query_pairs_path="data/sample/BingDistantTREx/query_pairs.json",
    )
    parser.add_argument("--bert_model", help="a folder or a name on the hub; none: random weights of base size")
    parser.add_argument(
        "--tokenizer", default="data/sample/model", help="without --bert_model: what cuts the sentences"
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    parser.add_argument("--dtype", choices=models.DTYPES, default="float32", help="of the model")
    parser.add_argument("--sentences", type=flags.positive, default=400, help="for our way")
    parser.add_argument("--published_sentences", type=flags.positive, default=8, help="for the published way")
    parser.add_argument("--max_tokens", type=flags.positive, help="tokens a batch; none: as the stages")
    parser.add_argument("--seed", type=int, default=42, help="of weights and neurons")
    chosen = parser.parse_args()
    device = flags.device(chosen.device)
    print(f"{runs.provenance(device)}\n")

    texts = evenly(masked(chosen.distant_data_dir, chosen.query_pairs_path), chosen.sentences)
    tokenizer, model = load(chosen, device)
    encoder, probe = Encoder(tokenizer, PADDED), Probe(models.adapt(model), chosen.max_tokens)
    layers, width = model.config.num_hidden_layers, model.config.intermediate_size
    chance = random.Random(chosen.seed)
    neurons = [[[chance.randrange(layers), chance.randrange(width)] for _ in range(NEURONS)] for _ in texts]

    def ours() -> list:
        prompts = [encoded.prompt for encoded in encoder.sentences(texts)]
        return probe.activations(prompts, neurons)

    lengths = sorted(len(encoded.ids) for encoded in encoder.sentences(texts))
    places = evenly(list(range(len(texts))), chosen.published_sentences)
    published(model, tokenizer, texts[0], neurons[0])  # warm up
    probe.activations([encoded.prompt for encoded in encoder.sentences(texts[:16])], neurons[:16])
    # Half of the published way before ours and half after it: a machine may be busier at one time than at another.
    half = len(places) // 2
    before, first = timed(lambda: [published(model, tokenizer, texts[p], neurons[p]) for p in places[:half]], device)
    fast, found = timed(ours, device)
    after, second = timed(lambda: [published(model, tokenizer, texts[p], neurons[p]) for p in places[half:]], device)
    slow, expected = before + after, first + second
    off = max(abs(found[p] - e.double().cpu().numpy()).max() for p, e in zip(places, expected, strict=True))

    print(
        f"{len(texts)} sentences of {lengths[0]} to {lengths[-1]} tokens, half of them up to {lengths[len(texts) // 2]}"
    )
    print(f"{'':16}{'sentences/s':>12}{'times faster':>14}")
    print(f"{'published way':16}{len(places) / slow:12.2f}{1:14.1f}   ({len(places)} sentences)")
    print(f"{'ours':16}{len(texts) / fast:12.2f}{len(texts) / fast / (len(places) / slow):14.1f}   (all)")
    print(f"largest difference of an activation: {off:.1e}")


def masked(folder: str, pairs_path: str) -> list[str]:
    """The th sentences of all relations, masked."""
    return [
        text
        for relation, pairs in facts.read_pairs(pairs_path).items()
        for sentences, pair in zip(crawled.read_sentences(folder, relation, pairs), pairs, strict=True)
        for text in crawled.mask_objects(sentences, pair).th
    ]


def evenly(values: list, count: int) -> list:
    if len(values) < count:
        raise InputError(f"there are {len(values)} sentences, {count} were asked for")
    return [values[(2 * number + 1) * len(values) // (2 * count)] for number in range(count)]


def load(chosen, device: torch.device):
    if chosen.bert_model:
        return models.load(chosen.bert_model, None, chosen.dtype, device)
    if not Path(chosen.tokenizer).is_dir():
        raise InputError(f"--tokenizer {chosen.tokenizer}: no such folder")
    tokenizer = AutoTokenizer.from_pretrained(chosen.tokenizer)
    torch.manual_seed(chosen.seed)
    model = BertForMaskedLM(BertConfig(vocab_size=max(28996, len(tokenizer))))
    return tokenizer, model.to(device, models.DTYPES[chosen.dtype]).eval().requires_grad_(False)


@torch.no_grad()
def published(model: BertForMaskedLM, tokenizer, text: str, neurons: list) -> torch.Tensor:
    """The activations of the neurons at one sentence's mask."""
    inputs = tokenizer(text, padding="max_length", max_length=PADDED, truncation=True, return_tensors="pt")
    inputs = inputs.to(model.device)
    position = inputs["input_ids"][0].tolist().index(tokenizer.mask_token_id)
    kept = []
    hooks = [
        layer.intermediate.register_forward_hook(lambda module, given, out: kept.append(out[0, position]))
        for layer in model.bert.encoder.layer
    ]
    model.cls(model.bert(**inputs).last_hidden_state[:, position])
    for hook in hooks:
        hook.remove()
    return torch.stack([kept[layer][index] for layer, index in neurons])


if __name__ == "__main__":
    runs.guard(main)
