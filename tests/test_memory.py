"""How much memory a model takes: loaded, and with its weights packed for fast products."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig

import tokenizing
from conftest import GOLDEN, ROOT, run, stage1_flags
from families import FAMILIES, prompts
from kn.methods.attribution import Engine
from kn.model import devices, linear, loading

# Run in its own process, since freed memory may be reused. A thread watches the memory of the process.
MEASURING = """
import json, sys, threading
from pathlib import Path

import torch
from kn.methods.attribution import Engine
from kn.model import linear, loading
from kn.model.prompts import Prompt

folder, dtype, what, allowed = sys.argv[1], sys.argv[2], sys.argv[3], sys.argv[4] == "True"


def taken():
    return int(Path("/proc/self/status").read_text().split(what + ":")[1].split()[0]) * 1024


def peak(work):
    most, over = [taken()], threading.Event()

    def look():
        while not over.wait(0.001):
            most[0] = max(most[0], taken())

    thread = threading.Thread(target=look)
    thread.start()
    found = work()
    over.set()
    thread.join()
    return most[0], found


torch.set_num_threads(1)
_, small = loading.load(sys.argv[5], None, dtype, torch.device("cpu"))  # the memory that libraries take once
list(Engine(loading.adapt(small), "riemann", 20).attribute([Prompt([5, 6, 7, 8], [3], [9])]))
before = taken()
loaded, (_, model) = peak(lambda: loading.load(folder, None, dtype, torch.device("cpu")))
_, _ = peak(lambda: loading.fingerprint(model))  # reads every weight
linear.fits = lambda model: allowed
engine = Engine(loading.adapt(model), "riemann", 20)
used, _ = peak(lambda: list(engine.attribute([Prompt([5, 6, 7, 8], [3], [9])])))
weights = sum(weight.nbytes for weight in model.parameters())
print(json.dumps([(most - before) / weights for most in (loaded, used)]))
"""


def measured(folder, kept, dtype, what, allowed):
    """A random model, 200 MB in float32, kept as one type and loaded as another: the most memory that loading it took,
    and then using it, as shares of the weights' bytes.
    """
    tokenizer = tokenizing.bytes_causal()
    shape = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 5, "num_attention_heads": 12}
    config = LlamaConfig(vocab_size=len(tokenizer), **shape, bos_token_id=0, eos_token_id=0, pad_token_id=0)
    AutoModelForCausalLM.from_config(config, dtype=getattr(torch, kept)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    done = subprocess.run(
        [sys.executable, "-c", MEASURING, folder, dtype, what, str(allowed), GOLDEN / "model"],
        env={"PYTHONPATH": str(ROOT / "src"), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="asks Linux")
@pytest.mark.parametrize(
    "kept, dtype, what, allowed, most",
    [
        ("float32", "float32", "VmRSS", False, 1.15),
        # Of another type the file is mapped, too, while it is read; the system takes that back as it needs it.
        ("bfloat16", "float32", "RssAnon", True, 1.15 * linear.COPIES),
    ],
)
def test_weights_are_in_memory_once_unless_they_are_laid_out(tmp_path, kept, dtype, what, allowed, most):
    loaded, used = measured(tmp_path, kept, dtype, what, allowed)
    assert loaded < 1.15 and used < most
    if allowed:
        assert used > linear.COPIES - 0.5  # or the rule would overestimate


def test_weights_are_laid_out_where_the_machine_has_the_memory(monkeypatch):
    model = FAMILIES["llama"].model("llama", torch.float32).requires_grad_(False)
    weights = sum(weight.nbytes for weight in model.parameters())
    found = {}
    for memory, processes in ((3.8, 1), (3.7, 1), (7.6, 2), (7.4, 2)):
        monkeypatch.setattr(devices, "memory", lambda memory=memory: memory * weights)
        monkeypatch.setattr(linear, "LOCAL_WORKERS", processes)
        adapter = loading.adapt(model)
        found[memory, processes] = adapter.blocks[0].down.packs
        (batch,) = Engine(adapter, "literal", 20).attribute(prompts(causal=True)[:1])
        found[memory] = batch.answer
    assert [found[key] for key in ((3.8, 1), (3.7, 1), (7.6, 2), (7.4, 2))] == [True, False, True, False]
    assert not torch.equal(found[3.8], found[3.7])  # two ways to compute it
    torch.testing.assert_close(found[3.8], found[3.7], rtol=1e-4, atol=1e-9)


def test_a_containers_limit_counts_as_the_machines_memory(monkeypatch, tmp_path):
    """For a job nested in three groups, of which the middle one has a limit."""
    whole = devices.memory()
    (tmp_path / "sys/jobs/mine/step").mkdir(parents=True)
    for folder, limit in (("", "max"), ("jobs", "max"), ("jobs/mine", "1000000"), ("jobs/mine/step", "2000000")):
        (tmp_path / "sys" / folder / "memory.max").write_text(f"{limit}\n")
    (tmp_path / "cgroup").write_text("0::/jobs/mine/step\n")
    assert devices.memory(tmp_path / "cgroup", tmp_path / "sys") == 1000000 < whole
    assert devices.memory(tmp_path / "none", tmp_path / "sys") == whole


def test_a_stage_reports_that_weights_were_not_laid_out(monkeypatch, tmp_path):
    quiet = run("1_analyze_mlm.py", *stage1_flags(tmp_path / "much", "--debug", "1", "--pt_relation", "P36"))
    monkeypatch.setattr(devices, "memory", lambda: 1000000)
    told = run("1_analyze_mlm.py", *stage1_flags(tmp_path / "little", "--debug", "1", "--pt_relation", "P36"))
    lines = [line for line in (told.stdout + told.stderr).splitlines() if "laid out" in line]
    assert len(lines) == 1 and "golden/model" in lines[0] and "laid out" not in quiet.stdout + quiet.stderr
