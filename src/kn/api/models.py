"""A model to ask from Python: loaded by name, or one that the caller has. Nothing of the caller's model is changed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn

from kn.data.facts import MASK
from kn.model import agreement, devices, loading
from kn.model.prompts import Encoded, Encoder
from kn.store.files import InputError
from kn.text import unspaced

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


class Model:
    """A model of transformers' with its tokenizer, seen as layers of neurons.

    Device and dtype are the model's own. Whatever is done with it leaves the model as it was: weights, training mode,
    gradients and hooks. What you do to it is noticed: new weights, another device.

        model = kn.Model(AutoModelForMaskedLM.from_pretrained(name), AutoTokenizer.from_pretrained(name))
    """

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase):
        self.model, self.tokenizer = model, tokenizer
        self.name = _name(model)
        _check(model, tokenizer, self.name)
        self.adapter = loading.adapt(model)
        self.adapter.spell = tokenizer.decode
        with evaluating(model):
            agreement.check(model, self.adapter, self.name, self.adapter.longest)
        self.encoder = Encoder(tokenizer, self.adapter.longest, self.adapter.causal)

    @property
    def n_layers(self) -> int:
        return self.adapter.n_layers

    @property
    def d_ffn(self) -> int:
        """How many neurons a layer has."""
        return self.adapter.d_ffn

    @property
    def device(self) -> torch.device:
        return self.adapter.device

    @property
    def dtype(self) -> torch.dtype:
        return self.adapter.words.weight.dtype

    def __repr__(self) -> str:
        kind = "causal" if self.adapter.causal else "masked"
        dtype = str(self.dtype).removeprefix("torch.")
        size = f"{self.n_layers} layers of {self.d_ffn} neurons"
        return f"<kn.Model {self.name}: {self.model.config.model_type}, {kind}, {size}, {dtype} on {self.device}>"

    def encoded(self, prompt: str, answer: str) -> Encoded:
        """The prompt as the model reads it. [MASK] stands for the answer; in a causal model's prompt it may be left
        out, and in a masked model's it may be the tokenizer's own mask.
        """
        text = prompt
        if MASK not in text:
            if self.adapter.causal:
                text = text.rstrip()
                text += MASK if not text or unspaced(text[-1]) else f" {MASK}"
            else:
                text = text.replace(self.tokenizer.mask_token, MASK)
        ((encoded,),) = self.encoder.facts([[[text, answer, ""]]])
        if encoded.skipped:
            raise InputError(f"{prompt!r}, answer {answer!r}: {encoded.skipped}")
        return encoded

    def tokens(self, answer: str | int | Sequence[int]) -> list[int]:
        """The pieces of an answer within a text, or token ids as they are given."""
        if isinstance(answer, str):
            return self.encoder.pieces(answer)
        return [answer] if isinstance(answer, int) else list(answer)


def load(name: str | Path, dtype: str = "float32", device: str = "auto", revision: str | None = None) -> Model:
    """A model from a folder, or by its name on the hub.

    `dtype`: float32, bfloat16, float16 or float64. `device`: auto (a GPU if there is one), cpu, cuda or cuda:N.
    """
    if dtype not in loading.DTYPES:
        raise InputError(f"dtype {dtype!r}: expected one of {', '.join(loading.DTYPES)}")
    with _verbosity_kept():
        tokenizer, model = loading.load(str(name), revision, dtype, devices.choose(device))
    return Model(model, tokenizer)


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Without dropout. Afterwards each part of the model is in the mode it was in."""
    training = [module for module in model.modules() if module.training]
    for module in training:
        module.training = False
    try:
        yield
    finally:
        for module in training:
            module.training = True


@contextmanager
def _verbosity_kept() -> Iterator[None]:
    """Loading silences transformers, which a notebook may not want for what follows."""
    from huggingface_hub.utils import logging as hub
    from transformers.utils import logging

    before, before_hub, bar = logging.get_verbosity(), hub.get_verbosity(), logging.is_progress_bar_enabled()
    try:
        yield
    finally:
        logging.set_verbosity(before)
        hub.set_verbosity(before_hub)
        if bar:
            logging.enable_progress_bar()


def _name(model: object) -> str:
    return getattr(getattr(model, "config", None), "name_or_path", "") or type(model).__name__


def _check(model: object, tokenizer: object, name: str) -> None:
    if not isinstance(model, nn.Module) or not hasattr(model, "config"):
        raise InputError(f"expected a model of transformers' and its tokenizer, found {name}; kn.load takes a name")
    family = model.config.model_type
    if family not in loading.FAMILIES:
        known = ", ".join(loading.FAMILIES)
        raise InputError(f"model {name}: it is of the family {family}; there are adapters for {known}")
    causal = loading.FAMILIES[family].causal
    if not type(model).__name__.endswith(("ForMaskedLM", "ForCausalLM", "LMHeadModel")):
        wanted = "AutoModelForCausalLM" if causal else "AutoModelForMaskedLM"
        raise InputError(f"model {name}: a {type(model).__name__} predicts no words: load it with {wanted}")
    if not hasattr(tokenizer, "decode"):
        raise InputError(f"model {name}: expected its tokenizer, too, found {type(tokenizer).__name__}")
    if not causal and getattr(tokenizer, "mask_token", None) is None:
        raise InputError(f"model {name}: its tokenizer has no mask token, which a masked model needs")
    places = sorted({str(weight.device) for weight in model.parameters()})
    if len(places) > 1:
        raise InputError(f"model {name}: its weights are on {' and '.join(places)}: expected one device")
