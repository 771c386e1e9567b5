"""A shortage of memory makes batches smaller and changes nothing else: threads lower the limit once, records stay."""

import threading
from types import SimpleNamespace

import pytest
import torch

from conftest import read, run, stage1_flags
from kn.model import batches
from kn.model.batches import Batches
from kn.model.prompts import Prompt
from kn.store.files import InputError

PROMPTS = [Prompt([5, 6, 7, 8], [2], [7])] * 8


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(batches, "WAIT", 0)


def of_four_tokens():
    return SimpleNamespace(
        device=torch.device("cpu"),
        tokens=lambda length, points: length * points,
        words=torch.nn.Embedding(10, 2).eval(),
        longest=8,
    )


def test_lanes_that_meet_with_one_shortage_lower_the_limit_once():
    shared, together = Batches(of_four_tokens(), 32), threading.Barrier(2)
    tried, ends = [], []

    def lane():
        first = True

        def work(places, rows):
            nonlocal first
            tried.append(len(places))
            if first:
                first = False
                together.wait(10)  # both use the same limit
                raise torch.OutOfMemoryError
            return len(places)

        ends.append([found for _, found in shared.over(PROMPTS, 1, work)])

    lanes = [threading.Thread(target=lane) for _ in range(2)]
    for one in lanes:
        one.start()
    for one in lanes:
        one.join(10)
    assert shared.limit == 16 and ends == [[4, 4], [4, 4]] and sorted(tried) == [4, 4, 4, 4, 8, 8]


def test_a_single_prompt_is_too_large_only_when_the_limit_cannot_be_lower():
    """The last prompt of its length is alone in its batch whatever the limit, and other threads may hold the memory."""
    shared, calls = Batches(of_four_tokens(), 32), 0

    def work(places, rows):
        nonlocal calls
        calls += 1
        if calls <= most:
            raise torch.OutOfMemoryError
        return places

    most = 2
    assert [found for _, found in shared.over(PROMPTS[:1], 1, work)] == [[0]] and shared.limit == 8
    most = 1000
    with pytest.raises(InputError, match=r"out of memory with a single prompt: set DTYPE=bfloat16"):
        list(shared.over(PROMPTS[:1], 1, work))
    assert calls < 10


def test_after_a_shortage_in_one_relation_the_next_one_and_the_next_run_have_the_same_settings(tmp_path, monkeypatch):
    flags = stage1_flags(tmp_path, "--debug", "2", "--pt_relation", "P36", "P103")
    rows, shortages = batches.Rows, []

    def short_once(*arguments):
        if not shortages:
            shortages.append(1)
            raise torch.OutOfMemoryError
        return rows(*arguments)

    monkeypatch.setattr(batches, "Rows", short_once)
    run("1_analyze_mlm.py", *flags)
    assert shortages
    record = read(tmp_path / "TREx-all.args.json")
    assert [entry["settings"]["max_tokens"] for entry in record.values()] == [2048, 2048]
    assert run("1_analyze_mlm.py", *flags).stdout.count("is there already, skipped") == 2
