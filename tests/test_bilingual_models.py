"""The small bilingual models: their tokenizers, and that they know the sample world's facts in both languages."""

import re

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForMaskedLM, AutoTokenizer

from conftest import ROOT
from kn.data import mlama
from kn.data.facts import MASK

SAMPLE = ROOT / "data" / "sample"
FACTS = 8  # of each relation


@pytest.fixture(scope="module")
def prompts():
    """A few facts of each relation, by language."""
    world = mlama.read(SAMPLE / "mlama", ["en", "zh"])
    return {
        language: [bag[0] for of_relation in world.bags(language).values() for bag in of_relation[:FACTS]]
        for language in ("en", "zh")
    }


def load(name, kind):
    folder = SAMPLE / name
    assert sum(path.stat().st_size for path in folder.iterdir()) <= 8_000_000
    return AutoTokenizer.from_pretrained(folder), kind.from_pretrained(folder).eval()


def pieces(tokenizer, text):
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def shares(rows):
    return torch.tensor(rows).double().mean(0).tolist()


@torch.no_grad()
def test_bert(prompts):
    tokenizer, model = load("bilingual-bert", AutoModelForMaskedLM)
    assert tokenizer.mask_token == MASK
    text = "阿尔伯特·爱因斯坦的母语是[MASK][MASK]。"
    assert tokenizer.tokenize(text) == re.findall(r"\[MASK\]|.", text)
    several = [len(pieces(tokenizer, answer)) > 1 for _, answer, _ in prompts["zh"]]
    assert all(several)
    for of_language in prompts.values():
        rows = []
        for prompt, answer, _ in of_language:
            wanted = pieces(tokenizer, answer)
            assert tokenizer.unk_token_id not in wanted
            ids = tokenizer(prompt.replace(MASK, MASK * len(wanted)), return_tensors="pt")["input_ids"]
            found = model(ids).logits[ids == tokenizer.mask_token_id].softmax(-1)
            rows.append([found.argmax(-1).tolist() == wanted, found[range(len(wanted)), wanted].mean().item()])
        right, probability = shares(rows)
        assert right >= 0.75
        assert 0.3 <= probability <= 0.9


@torch.no_grad()
def test_gpt2(prompts):
    tokenizer, model = load("bilingual-gpt2", AutoModelForCausalLM)
    for language, of_language in prompts.items():
        rows, several = [], []
        for prompt, answer, _ in of_language:
            before, after = prompt.split(MASK)
            if after.strip(" .。"):
                continue  # the answer is not last
            before, answer = before.rstrip(), " " * (language == "en") + answer
            start, wanted = pieces(tokenizer, before), pieces(tokenizer, answer)
            assert tokenizer.decode(start + wanted) == before + answer
            if language == "zh":
                assert pieces(tokenizer, before + answer) == start + wanted
            found = model(torch.tensor([start + wanted])).logits[0, len(start) - 1 : -1].softmax(-1)
            rows.append([found.argmax(-1).tolist() == wanted, found[range(len(wanted)), wanted].mean().item()])
            several.append(len(wanted) > 1)
        right, probability = shares(rows)
        assert right >= 0.75
        assert 0.3 <= probability <= 0.9
        assert language == "en" or all(several)
        assert len(rows) < len(of_language)  # one relation of each language has its answer elsewhere
