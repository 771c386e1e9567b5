"""Many edits read together, against the same edits made one by one in the model's weights."""

import numpy as np
import pytest
import torch

from conftest import RELATIONS, encode_prompts
from kn.methods.batched_edits import ColumnEdit, read_edited
from kn.methods.probing import Probe
from kn.methods.weight_edits import direction, edit_fact, erase
from kn.model import loading
from kn.model.prompts import Prompt

UPDATES = [
    ([[1, 5], [3, 39], [3, 7], [4, 190]], 40, 55, 1.5, 8),
    ([[4, 2]], 55, 60, 0, 2),  # only in the last layer
    ([[0, 0], [2, 9]], (61, 44), (40,), 2, 2),  # 0 also pads short rows
]
ERASED = [[[0, 3], [4, 70], [2, 5]], [[4, 1], [4, 2]], [[3, 149]]]


@pytest.fixture(scope="module")
def asked(golden64, golden_bags):
    """A probe, its model, and prompts of several lengths, some with an answer of two pieces."""
    tokenizer, model = golden64
    prompts = [prompt for relation in RELATIONS for prompt in encode_prompts(tokenizer, golden_bags[relation][:3])]
    for place in range(0, len(prompts), 4):
        ids, (position,), (answer,) = prompts[place]
        prompts[place] = Prompt(ids, (position, position - 1), (answer, ids[position - 1]))
    return Probe(loading.adapt(model), 300), model, prompts


def test_each_prompt_of_each_variant_has_its_own_edit(asked):
    probe, model, prompts = asked
    updates = [ColumnEdit(neurons, direction(probe.adapter, *how)) for neurons, *how in UPDATES]
    erasures = [ColumnEdit(neurons) for neurons in ERASED]
    # One edit of the model at a time.
    expected = {None: probe.read(prompts)}
    for update, arguments in zip(updates, UPDATES, strict=True):
        with edit_fact(model, *arguments):
            expected[update] = probe.read(prompts)
    for erasure, neurons in zip(erasures, ERASED, strict=True):
        with erase(model, neurons):
            expected[erasure] = probe.read(prompts)

    mixed = [None, *updates, *erasures]
    variants = [[mixed[(first + place) % len(mixed)] for place in range(len(prompts))] for first in range(len(mixed))]
    variants += [[erasures[1]] * len(prompts), [None] * len(prompts)]
    finished = []
    for variant, found in zip(variants, read_edited(probe, prompts, variants, finished.append), strict=True):
        for place, rewrite in enumerate(variant):
            assert found.probabilities[place] == pytest.approx(expected[rewrite].probabilities[place], abs=1e-12)
            assert found.ranks[place] == expected[rewrite].ranks[place]
            assert found.predicted[place] == expected[rewrite].predicted[place]
            assert found.right[place] == expected[rewrite].right[place]
    assert sum(finished) == len(prompts) and len(finished) > 3
    changes = [np.abs(expected[one].probabilities - expected[None].probabilities).max() for one in mixed[1:]]
    assert min(changes) > 1e-4


def test_without_a_plain_variant_no_more_is_run_than_is_asked(asked):
    """The plain run ends where the highest edit begins."""
    probe, model, prompts = asked
    variants = [[ColumnEdit(neurons)] * len(prompts) for neurons in ERASED]
    for neurons, found in zip(ERASED, read_edited(probe, prompts, variants), strict=True):
        with erase(model, neurons):
            assert found.probabilities == pytest.approx(probe.read(prompts).probabilities, abs=1e-12)
    ids = torch.tensor([prompts[0].ids])
    stopped = probe.adapter.run(ids, torch.tensor([1]), starts={1, 3}, logits=False)
    assert max(stopped.inputs) == 3 and len(stopped.keys) == 3
    whole = probe.adapter.run(ids, torch.tensor([1])).inputs
    assert all(torch.equal(stopped.inputs[number], whole[number]) for number in (1, 3))
