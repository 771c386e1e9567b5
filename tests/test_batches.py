"""When memory runs out, the batches get smaller and nothing else changes. Threads lower the limit only once."""

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
def without_waiting(monkeypatch):
    monkeypatch.setattr(batches, "WAIT", 0)


def stub_adapter():
    """As much of an adapter as batches need."""
    return SimpleNamespace(
        device=torch.device("cpu"),
        tokens=lambda length, points: length * points,
        words=torch.nn.Embedding(10, 2).eval(),
        longest=8,
    )


def test_two_threads_that_run_out_of_memory_together_lower_the_limit_once():
    shared, barrier = Batches(stub_adapter(), 32), threading.Barrier(2)
    sizes, results = [], []

    def lane():
        first = True

        def work(indices, rows):
            nonlocal first
            sizes.append(len(indices))
            if first:
                first = False
                barrier.wait(10)  # so both threads have used the same limit
                raise torch.OutOfMemoryError
            return len(indices)

        results.append([result for _, result in shared.over(PROMPTS, 1, work)])

    threads = [threading.Thread(target=lane) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert shared.limit == 16 and results == [[4, 4], [4, 4]] and sorted(sizes) == [4, 4, 4, 4, 8, 8]


def test_a_single_prompt_is_refused_only_when_the_limit_cannot_be_lowered():
    """A prompt may be alone in its batch at any limit, and other threads may hold the memory that it lacks."""
    shared, calls = Batches(stub_adapter(), 32), 0

    def work(indices, rows):
        nonlocal calls
        calls += 1
        if calls <= failures:
            raise torch.OutOfMemoryError
        return indices

    failures = 2
    assert [result for _, result in shared.over(PROMPTS[:1], 1, work)] == [[0]] and shared.limit == 8
    failures = 1000
    with pytest.raises(InputError, match=r"out of memory with a single prompt: set DTYPE=bfloat16"):
        list(shared.over(PROMPTS[:1], 1, work))
    assert calls < 10


def test_running_out_of_memory_changes_no_settings_of_the_next_relation_or_the_next_run(tmp_path, monkeypatch):
    flags = stage1_flags(tmp_path, "--debug", "2", "--pt_relation", "P36", "P103")
    rows, failures = batches.Rows, []

    def fail_once(*arguments):
        if not failures:
            failures.append(1)
            raise torch.OutOfMemoryError
        return rows(*arguments)

    monkeypatch.setattr(batches, "Rows", fail_once)
    run("1_analyze_mlm.py", *flags)
    assert failures
    record = read(tmp_path / "TREx-all.args.json")
    assert [entry["settings"]["max_tokens"] for entry in record.values()] == [2048, 2048]
    assert run("1_analyze_mlm.py", *flags).stdout.count("is there already, skipped") == 2
