"""Many edits read in one batch give the same numbers as the same edits made one by one in the model's weights."""

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
    ([[4, 2]], 55, 60, 0, 2),  # in the last layer only
    ([[0, 0], [2, 9]], (61, 44), (40,), 2, 2),  # includes neuron 0, which also pads short rows
]
ERASED = [[[0, 3], [4, 70], [2, 5]], [[4, 1], [4, 2]], [[3, 149]]]


@pytest.fixture(scope="module")
def probe_model_prompts(golden64, golden_bags):
    """A probe, its model, and prompts of several lengths. Some answers have two pieces."""
    tokenizer, model = golden64
    prompts = [prompt for relation in RELATIONS for prompt in encode_prompts(tokenizer, golden_bags[relation][:3])]
    for index in range(0, len(prompts), 4):
        ids, (position,), (answer,) = prompts[index]
        prompts[index] = Prompt(ids, (position, position - 1), (answer, ids[position - 1]))
    return Probe(loading.adapt(model), 300), model, prompts


def test_each_prompt_of_each_variant_has_its_own_edit(probe_model_prompts):
    probe, model, prompts = probe_model_prompts
    updates = [ColumnEdit(neurons, direction(probe.adapter, *arguments)) for neurons, *arguments in UPDATES]
    erasures = [ColumnEdit(neurons) for neurons in ERASED]
    # The expected numbers: change the weights for one edit at a time.
    expected = {None: probe.read(prompts)}
    for update, arguments in zip(updates, UPDATES, strict=True):
        with edit_fact(model, *arguments):
            expected[update] = probe.read(prompts)
    for erasure, neurons in zip(erasures, ERASED, strict=True):
        with erase(model, neurons):
            expected[erasure] = probe.read(prompts)

    mixed = [None, *updates, *erasures]
    variants = [[mixed[(first + index) % len(mixed)] for index in range(len(prompts))] for first in range(len(mixed))]
    variants += [[erasures[1]] * len(prompts), [None] * len(prompts)]
    finished = []
    for variant, reading in zip(variants, read_edited(probe, prompts, variants, finished.append), strict=True):
        for index, edit in enumerate(variant):
            assert reading.probabilities[index] == pytest.approx(expected[edit].probabilities[index], abs=1e-12)
            assert reading.ranks[index] == expected[edit].ranks[index]
            assert reading.predicted[index] == expected[edit].predicted[index]
            assert reading.right[index] == expected[edit].right[index]
    assert sum(finished) == len(prompts) and len(finished) > 3
    changes = [np.abs(expected[edit].probabilities - expected[None].probabilities).max() for edit in mixed[1:]]
    assert min(changes) > 1e-4


def test_without_an_unedited_variant_the_plain_run_stops_where_the_last_edit_starts(probe_model_prompts):
    probe, model, prompts = probe_model_prompts
    variants = [[ColumnEdit(neurons)] * len(prompts) for neurons in ERASED]
    for neurons, reading in zip(ERASED, read_edited(probe, prompts, variants), strict=True):
        with erase(model, neurons):
            assert reading.probabilities == pytest.approx(probe.read(prompts).probabilities, abs=1e-12)
    ids = torch.tensor([prompts[0].ids])
    stopped = probe.adapter.run(ids, torch.tensor([1]), starts={1, 3}, logits=False)
    assert max(stopped.inputs) == 3 and len(stopped.keys) == 3
    whole = probe.adapter.run(ids, torch.tensor([1])).inputs
    assert all(torch.equal(stopped.inputs[layer], whole[layer]) for layer in (1, 3))
