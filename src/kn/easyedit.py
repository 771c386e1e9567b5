"""Knowledge neurons as an editing method of EasyEdit: `ALG_DICT["KN"] = apply_kn_to_model`.

Two functions with EasyEdit's signature. `apply_kn_to_model` is the published method, on any model that has an adapter.
`apply_easyedit_kn_to_model` computes what EasyEdit's own function computes, so that the two can be compared; see
docs/easyedit.md for the differences. EasyEdit is not needed for either.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from copy import deepcopy
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from kn.api import asking, changing
from kn.api.models import Model, evaluating
from kn.methods import weight_edits
from kn.model import inputs
from kn.store.files import InputError

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

MOST = 5  # neurons of a fact, as published
ROWS = 64  # in a batch of the slow sum
INNER = ("gate_proj", "c_fc", "fc_in", "dense_h_to_4h")  # in a causal model's FFN, what EasyEdit calls the neurons
Undo = Callable[[], None]


class KNHyperParams(Protocol):
    """What is read of EasyEdit's hyperparameters. The published method reads the threshold alone."""

    adaptive_threshold: float
    refine: bool
    steps: int


class Request(NamedTuple):
    prompt: str
    target_new: str
    ground_truth: str
    paraphrases: list[str]  # no part of EasyEdit's requests: the prompt in other words


def apply_kn_to_model(
    model: PreTrainedModel,
    tok: PreTrainedTokenizerBase,
    request: list[dict[str, Any]],
    hparams: KNHyperParams,
    copy: bool = False,
    return_orig_weights: bool = False,
    keep_original_weight: bool = True,
    **kwargs: Any,
) -> tuple[PreTrainedModel, Undo]:
    """Edit the model (with `copy` a copy of it) and return it with a function that undoes the edit, bit for bit.

    Neurons are found with the published sum of 20 points, from the request's prompt and, if it has any, its
    `paraphrases`; the strongest 5 are edited with the published strengths, unless `kwargs` has others (`lambda1`,
    `lambda2`). `rephrase_prompt` is not used: EasyEdit measures generalization with it. With several requests, each
    edit is made in the model that the edits before it left.

    A neuron whose activation is negative, as many are in gated FFNs, writes the opposite of its column, so its
    column gets the opposite change. The published models have hardly any.
    """
    edited = deepcopy(model) if copy else model
    asked, stack = Model(edited, tok), ExitStack()
    lambda1, lambda2 = kwargs.get("lambda1", 1), kwargs.get("lambda2", 8)
    with _undone_on_error(stack):
        for each in _requests(request):
            prompts = [each.prompt, *each.paraphrases]
            if each.ground_truth in tok.all_special_tokens:
                raise InputError(
                    f"{each.prompt!r}: ground_truth is {each.ground_truth}: expected the answer to replace"
                )
            found = asking.find(asked, prompts, each.ground_truth, threshold=hparams.adaptive_threshold)
            if not found:
                raise InputError(f"{each.prompt!r} and its paraphrases share no neuron: lower adaptive_threshold")
            activations = found.attributions[0].activations
            for sign in (1, -1):
                neurons = [neuron for neuron in found[:MOST] if (activations[neuron] < 0) == (sign < 0)]
                strengths = {"lambda1": sign * lambda1, "lambda2": sign * lambda2}
                stack.enter_context(changing.edit(asked, neurons, each.ground_truth, each.target_new, **strengths))
    return edited, stack.close


def apply_easyedit_kn_to_model(
    model: PreTrainedModel,
    tok: PreTrainedTokenizerBase,
    request: list[dict[str, Any]],
    hparams: KNHyperParams,
    copy: bool = False,
    return_orig_weights: bool = False,
    keep_original_weight: bool = True,
    **kwargs: Any,
) -> tuple[PreTrainedModel, Undo]:
    """The same interface with the numbers of EasyEdit's own method, which looks at the first request only."""
    if hparams.refine:
        raise InputError("hparams.refine is true: what is reproduced is EasyEdit's KN with false, as its files say")
    edited = deepcopy(model) if copy else model
    asked, stack = Model(edited, tok), ExitStack()
    each = _requests(request)[0]
    with _undone_on_error(stack), evaluating(edited):
        scores = easyedit_scores(asked, each.prompt, each.ground_truth, hparams.steps)
        neurons = (scores > hparams.adaptive_threshold * scores.max()).nonzero().tolist()
        stack.enter_context(_easyedit_edit(asked, each.prompt, each.target_new, neurons))
    return edited, stack.close


@contextmanager
def _undone_on_error(stack: ExitStack) -> Iterator[None]:
    try:
        yield
    except BaseException:
        stack.close()
        raise


def _requests(given: list[dict[str, Any]]) -> list[Request]:
    requests = []
    for number, entries in enumerate([given] if isinstance(given, dict) else given):
        for key in ("prompt", "target_new", "ground_truth"):
            if not isinstance(entries.get(key), str) or not entries[key].strip():
                found = repr(entries.get(key))[:80]
                raise InputError(f"request {number}: {key}: expected a text, found {found}")
        paraphrases = list(entries.get("paraphrases") or ())
        requests.append(Request(entries["prompt"], entries["target_new"], entries["ground_truth"], paraphrases))
    if not requests:
        raise InputError("no request: expected a list with one or more")
    return requests


# ---- what EasyEdit's own function does ----


def easyedit_scores(model: Model, prompt: str, answer: str, steps: int) -> Tensor:
    """Layers x neurons: activation times the mean gradient at `steps` points from 0 to 1, both ends included; with one
    step that is the gradient at 0. The mean over all tokens of the encoded answer, special ones too. After each token
    the prompt goes on with the model's own prediction.
    """
    totals, tokens = [], _answer_tokens(model, answer)
    for token in tokens:
        ids, position = _encoded(model, prompt)
        activations, logits = _activations(model, ids, position)
        gradients = []
        together = max(1, ROWS // steps)  # layers
        for layers in torch.arange(model.n_layers).split(together):
            points = torch.linspace(0, 1, steps).to(activations)
            paths = points[:, None] * activations[layers, None]  # layers x steps x neurons
            gradients.append(_gradients(model, ids, position, layers.tolist(), paths, token).sum(1))
        totals.append(torch.cat(gradients) * activations / steps)
        if len(tokens) > 1:
            prompt += model.tokenizer.decode([int(logits.argmax())])
    return torch.stack(totals).mean(0)


def _easyedit_edit(model: Model, prompt: str, target: str, neurons: list[list[int]]) -> AbstractContextManager[None]:
    """Add the embeddings of the new answer's tokens to each column, and subtract those of as many predicted tokens;
    for a masked model, which has one of each, twice.
    """
    new, predicted = _answer_tokens(model, target), []
    for _ in new:
        ids, position = _encoded(model, prompt)
        with torch.no_grad():
            predicted.append(int(model.model(input_ids=ids).logits[0, position].argmax()))
        prompt += model.tokenizer.decode(predicted[-1:])
    words = model.adapter.words.weight.detach()
    change = words[new].sum(0) - words[predicted].sum(0)
    return weight_edits.add(model.model, neurons, change if model.adapter.causal else 2 * change)


def _encoded(model: Model, prompt: str) -> tuple[Tensor, int]:
    """The prompt's token ids, and the position that is read."""
    ids = model.tokenizer(prompt, return_tensors="pt")["input_ids"].to(model.device)
    if model.adapter.causal:
        return ids, ids.shape[1] - 1
    masks = (ids[0] == model.tokenizer.mask_token_id).nonzero()
    if len(masks) != 1:
        raise InputError(f"{prompt!r}: expected one {model.tokenizer.mask_token}")
    return ids, int(masks)


def _answer_tokens(model: Model, answer: str) -> list[int]:
    if model.adapter.causal:
        return inputs.tokens(model.tokenizer.encode(answer), model.adapter, repr(answer))
    return inputs.tokens([model.tokenizer.convert_tokens_to_ids(answer)], model.adapter, repr(answer))


def _activations(model: Model, ids: Tensor, position: int) -> tuple[Tensor, Tensor]:
    """What EasyEdit calls the neurons' activations, layers x neurons, and the logits."""
    kept: dict[int, Tensor] = {}

    def keep(layer: int, x: Tensor) -> None:
        kept[layer] = x[0, position].detach()

    with torch.no_grad(), _hooked(model, keep):
        logits = model.model(input_ids=ids).logits[0, position]
    return torch.stack([kept[layer] for layer in range(model.n_layers)]), logits


@torch.inference_mode(False)
@torch.enable_grad()
def _gradients(model: Model, ids: Tensor, position: int, layers: list[int], paths: Tensor, token: int) -> Tensor:
    """Of the token's probability, with a layer's activations at each of its points: layers x steps x neurons."""
    paths = paths.clone().requires_grad_()
    steps = paths.shape[1]

    def replace(layer: int, x: Tensor) -> Tensor | None:
        if layer not in layers:
            return None
        place = layers.index(layer)
        rows = torch.arange(place * steps, (place + 1) * steps, device=x.device)
        return x.index_put((rows, torch.full_like(rows, position)), paths[place])

    with _hooked(model, replace):
        logits = model.model(input_ids=ids.clone().expand(len(layers) * steps, -1)).logits[:, position]
    (gradients,) = torch.autograd.grad(logits.softmax(-1)[:, token].sum(), paths)
    return gradients


@contextmanager
def _hooked(model: Model, change: Callable[[int, Tensor], Tensor | None]) -> Iterator[None]:
    """`change` sees each layer's activations, rows x tokens x neurons, and may replace them.

    EasyEdit takes the output of the FFN's first matrix in causal models: before the activation function, and before
    the product with the second matrix of a gated FFN. In BERT it takes the input of the last matrix.
    """
    handles = []
    for layer, block in enumerate(model.adapter.blocks):
        down = block.down.layer
        if model.adapter.causal:
            inner = _inner(model.model, down)
            handles.append(inner.register_forward_hook(lambda _, __, x, layer=layer: change(layer, x)))
        else:
            handles.append(down.register_forward_pre_hook(lambda _, x, layer=layer: change(layer, x[0])))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _inner(model: nn.Module, down: nn.Module) -> nn.Module:
    (name,) = (name for name, module in model.named_modules() if module is down)
    ffn = model.get_submodule(name.rpartition(".")[0])
    return next(getattr(ffn, inner) for inner in INNER if hasattr(ffn, inner))
