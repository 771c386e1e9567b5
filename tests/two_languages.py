"""A tiny world in two languages in mLAMA's layout, tiny random models for it, and slow measurements on these."""

import hashlib
import json

import torch
from transformers import AutoModelForCausalLM, AutoModelForMaskedLM, BertConfig, GPT2Config

import tokenizing
from families import with_inputs
from kn.model import loading
from kn.model.prompts import Encoder

KINDS = {"bert": AutoModelForMaskedLM, "gpt2": AutoModelForCausalLM}
TEMPLATES = {
    "en": {"P36": "The capital of [X] is [Y] .", "P37": "People of [X] speak [Y] .", "P30": "[Y] is of [X] ."},
    "zh": {"P36": "[X]的首都是[Y]。", "P37": "[X]的人说[Y]。", "P30": "[Y]有[X]。"},
}
COUNTRIES = {"en": ["France", "Italy", "Japan", "Germany"], "zh": ["法国", "意大利", "日本", "德国"]}
OBJECTS = {
    "en": {"P36": ["Paris", "Rome", "Tokyo", "Berlin"], "P37": ["french", "italian", "japanese", "german"]},
    "zh": {"P36": ["巴黎", "罗马", "东京", "柏林"], "P37": ["法", "意大利", "日", "德"]},
}
for objects in OBJECTS.values():
    objects["P30"] = ["in"] * 4


def facts(language, relation):
    entries = []
    for index, subject in enumerate(COUNTRIES[language]):
        if language == "zh" and relation == "P37" and index == 3:
            continue  # a fact that only one language has
        fact = {"uuid": f"{relation} {index}", "lineid": index, "sub_uri": f"S{index}", "obj_uri": f"O{index}"}
        entries.append(fact | {"sub_label": subject, "obj_label": OBJECTS[language][relation][index]})
    return entries


def prompt(language, relation, index):
    """The text and the answer of a fact."""
    fact = facts(language, relation)[index]
    return TEMPLATES[language][relation].replace("[X]", fact["sub_label"]).replace("[Y]", "[MASK]"), fact["obj_label"]


def write_facts(folder):
    for language, templates in TEMPLATES.items():
        (folder / language).mkdir(parents=True)
        lines = {f"{relation}.jsonl": facts(language, relation) for relation in templates}
        lines["templates.jsonl"] = [{"relation": name, "template": template} for name, template in templates.items()]
        for name, entries in lines.items():
            (folder / language / name).write_text("\n".join(map(json.dumps, entries)))


def write_model(family, folder):
    torch.manual_seed(0)
    if family == "bert":
        tokenizer = tokenizing.word_pieces()
        shape = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 40}
        config = BertConfig(vocab_size=len(tokenizer), max_position_embeddings=40, **shape)
    else:
        tokenizer = tokenizing.bytes_causal()
        config = GPT2Config(vocab_size=len(tokenizer), n_embd=32, n_layer=3, n_head=4, n_inner=40, n_positions=60)
    model = KINDS[family].from_config(config)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn(weight.shape) * 0.3)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def change_result(folder, name, relation, change):
    """Change the first line of a result, and its checksum in the record, so that only the line's content is wrong."""
    path, record = folder / f"{name}-{relation}.jsonl", folder / f"{name}.args.json"
    first, *others = path.read_text().splitlines()
    first = json.loads(first)
    change(first)
    path.write_text("\n".join([json.dumps(first), *others, ""]))
    records = json.loads(record.read_text())
    records[relation]["sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
    record.write_text(json.dumps(records))
    return path


class ReferenceModel:
    """A model from such a folder: the program's adapter and encoder, and transformers' own model, in float64."""

    def __init__(self, family, folder):
        self.family = family
        self.tokenizer, model = loading.load(str(folder), None, "float64", torch.device("cpu"))
        self.adapter = loading.adapt(model)
        self.encoder = Encoder(self.tokenizer, 40, self.adapter.causal)
        self.own = KINDS[family].from_pretrained(folder, dtype=torch.float64).eval().requires_grad_(False)
        body = self.own.bert.encoder.layer if family == "bert" else self.own.transformer.h
        self.downs = [layer.output.dense if family == "bert" else layer.mlp.c_proj for layer in body]

    def encode(self, language, relation, index):
        text, answer = prompt(language, relation, index)
        ((encoded,),) = self.encoder.facts([[[text, answer, relation]]])
        return encoded

    def activations(self, ids, position):
        """Of all neurons at a position: layers x neurons."""
        kept = []
        with torch.no_grad():
            with_inputs(
                self.downs, lambda _, x: kept.append(x[0, position]) or x, lambda: self.own(torch.tensor([ids]))
            )
        return torch.stack(kept)

    def probability(self, ids, position, piece, layer=None, neurons=None, change=None):
        """The probability of a piece at `position`.

        Optionally one layer's neurons are replaced there by `neurons`, which may be a batch (one probability per row);
        or `change` is applied to each layer's neurons.
        """

        def replaced(number, x):
            if number == layer or change:
                x = x.clone()
                x[:, position] = neurons if number == layer else change(number, x[:, position])
            return x

        rows = 1 if neurons is None or neurons.ndim == 1 else len(neurons)
        logits = with_inputs(self.downs, replaced, lambda: self.own(torch.tensor([ids] * rows)).logits)
        probabilities = logits[:, position].softmax(-1)[:, piece]
        return probabilities if neurons is not None and neurons.ndim == 2 else probabilities[0]
