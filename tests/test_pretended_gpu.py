"""All stages that run the model, on a pretended GPU: the CPU's numbers, and how often they wait for the device."""

import json
import shutil
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

import families
import pretended_gpu
import two_languages
from conftest import GOLDEN, run
from families import CAUSAL, FAMILIES
from kn.methods.attribution import Engine
from kn.methods.batched_edits import ColumnEdit, read_edited
from kn.methods.probing import Probe
from kn.methods.quadrature import ladder
from kn.model import batches, loading
from kn.model.prompts import Prompt

DATA = GOLDEN / "data"
FACTS = 8  # of each relation


# ---- that it is like one ----


@pytest.fixture
def gpu():
    with pretended_gpu.plugged_in() as gpu:
        yield gpu


@pytest.mark.filterwarnings("ignore:__array__")  # numpy asks twice before it gives up
def test_devices_are_not_mixed(gpu):
    there, here = torch.arange(6.0, device="cuda").view(2, 3), torch.arange(6.0).view(2, 3)
    assert there.device == torch.device("cuda:0") and there.is_cuda and (there + there).device.type == "cuda"
    for mix in (
        lambda: there + here,
        lambda: here @ there.T,
        lambda: torch.cat([there, here]),
        lambda: torch.where(there > 1, here, there),
        lambda: there.gather(1, torch.zeros(2, 1, dtype=torch.int64)),
        lambda: here[torch.tensor([0], device="cuda")],
        lambda: there.index_put((torch.tensor([0], device="cuda"),), here[0]),
        lambda: torch.nn.functional.linear(there, here),
    ):
        with pytest.raises(RuntimeError, match="cpu"):
            mix()
    for to_numpy in (lambda: there.numpy(), lambda: np.array(there), lambda: np.zeros((2, 3)).__setitem__(0, there[0])):
        with pytest.raises(TypeError, match="cuda"):
            to_numpy()
    assert (there * torch.tensor(2.0)).device.type == "cuda"  # a number may come from anywhere
    assert torch.equal((there @ there.T).cpu(), here @ here.T) and type(there.cpu()) is torch.Tensor


def test_gradients_and_modules(gpu):
    layer = torch.nn.Linear(3, 2)
    tied = torch.nn.ModuleList([layer, torch.nn.Linear(3, 2)])
    tied[1].weight = layer.weight
    x = torch.ones(4, 3)
    expected = torch.autograd.grad(layer(x).sum(), layer.weight)[0]
    tied.to("cuda")
    assert tied[1].weight is layer.weight and isinstance(layer.weight, torch.nn.Parameter) and layer.weight.is_cuda
    with pytest.raises(RuntimeError, match="same device"):
        layer(x)
    (found,) = torch.autograd.grad(layer(x.to("cuda")).sum(), layer.weight)
    assert found.is_cuda and torch.equal(found.cpu(), expected)
    probes = torch.zeros(2, device="cuda", requires_grad=True)
    (found,) = torch.autograd.grad((probes * 3).sum(), probes)
    assert found.cpu().tolist() == [3, 3]


@pytest.mark.parametrize(
    "waits, work",
    [
        (1, lambda x: x.sum().item()),
        (1, lambda x: x.tolist()),
        (1, lambda x: x.cpu()),
        (1, lambda x: x.to("cpu")),
        (1, lambda x: x.to("cpu", torch.float64)),
        (1, lambda x: bool(x.any())),
        (1, lambda x: int(x[0, 1])),
        (1, lambda x: float(x[1, 1])),
        (1, lambda x: x.nonzero()),
        (1, lambda x: x[x > 1]),
        (1, lambda x: x[[0, 1]]),
        (1, lambda x: x[torch.tensor([0, 1])]),
        (1, lambda x: x.unique()),
        (1, lambda x: x[0].long().bincount()),
        (1, lambda x: x.repeat_interleave(x[:, 0].long() + 1, 0)),
        (1, lambda x: torch.tensor([1.0], device=x.device)),
        (1, lambda x: torch.ones(2).to(x.device)),
        (1, lambda x: torch.ones(2).to(x)),
        (0, lambda x: torch.ones(2).to(x.device, non_blocking=True)),
        (0, lambda x: torch.zeros(2, device=x.device)),
        (0, lambda x: x.to(x.device, torch.float64)),
        (0, lambda x: x.repeat_interleave(2, 0)),
        (0, lambda x: x[0, 1:].softmax(-1).argmax()),
        (0, lambda x: x.split([1, 1])),
        (0, lambda x: x.masked_fill(x > 1, 0)),
        (0, lambda x: x.repeat_interleave(x[:, 0].long() + 1, 0, output_size=4)),
    ],
)
def test_waits_are_counted(gpu, monkeypatch, waits, work):
    monkeypatch.setattr(pretended_gpu, "SOURCE", Path(__file__).parent)
    x = torch.arange(4.0).view(2, 2).to("cuda", non_blocking=True)
    done = work(x)
    assert sum(gpu.waits.values()) == waits, done
    assert all(line.startswith("test_pretended_gpu.py:") for line in gpu.waits)


def test_every_thread_has_it(gpu):
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(lambda: torch.ones(2).to("cuda").is_cuda).result()


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_computes_there(gpu, family):
    prompts = families.prompts(family in CAUSAL)
    ids, (position,), (answer,) = prompts[0]
    prompts.append(Prompt(ids, [position - 1, position], [answer, answer + 1]) if position else prompts[0])
    found = {}
    for device in ("cpu", "cuda"):
        model = FAMILIES[family].model(family, torch.float64).requires_grad_(False).to(device)
        adapter = loading.adapt(model)
        batched = list(Engine(adapter, "riemann", 20).attribute(prompts, prediction=True))
        found[device] = [getattr(of, name).cpu() for of in batched for name in ("answer", "prediction", "own")]
        rewrites = [ColumnEdit([[0, 3], [2, 5]]), ColumnEdit([[1, 4]], torch.ones(24, dtype=torch.float64).to(device))]
        variants = [[rewrites[number % 2] for number in range(len(prompts))], [None] * len(prompts)]
        found[device] += [of.probabilities for of in read_edited(Probe(adapter), prompts, variants)]
    for on_gpu, on_cpu in zip(found["cuda"], found["cpu"], strict=True):
        np.testing.assert_allclose(on_gpu, on_cpu, rtol=1e-8, atol=1e-12)


# ---- the stages ----


def first_paper(folder):
    """The stages on the golden world: script and flags."""
    kn_dir = folder / "kn"
    kn_dir.mkdir(parents=True)
    for path in (GOLDEN / "results" / "kn").glob("*kn_bag-*.json"):
        shutil.copy(path, kn_dir)
    flags = ["--bert_model", GOLDEN / "model", "--data_path", DATA / "PARAREL" / "data_all.json"]
    flags += ["--output_dir", folder]
    kn = [*flags, "--kn_dir", kn_dir]
    few = ["--debug", FACTS]
    crawled = [*kn, *few, "--distant_data_dir", DATA / "BingDistantTREx" / "final"]
    crawled += ["--query_pairs_path", DATA / "BingDistantTREx" / "query_pairs.json"]
    return {
        "1": ["1_analyze_mlm.py", *flags, *few, "--get_ig_gold", "--get_base"],
        "3": ["3_modify_activation.py", *kn, *few],
        "4": ["4_check_weights_distant.py", *crawled],
        "5": ["5_find_trigger_examples.py", *crawled],
        "6": ["6_edit_knowledge_sampled.py", *kn],
        "7": ["7_erase_knowledge.py", *kn, *few, "--pt_relation", "P36"],
    }


def second_paper(folder, world):
    flags = ["--bert_model", world / "model", "--mlama", world / "mlama", "--output_dir", folder]
    flags += ["--fig_dir", folder]
    few = ["--top", "4", "--low", "0.5", "--high", "0.02"]
    return {
        "9": ["9_analyze_amig.py", *flags, "--languages", "en"],
        "9, zh": ["9_analyze_amig.py", *flags, "--languages", "zh"],
        "10": ["10_language_independent.py", *flags, "--languages", "en", "zh"],
        "11": ["11_degenerate.py", *flags, "--languages", "en", "zh", *few],
        "12": ["12_fact_check.py", *flags, "--languages", "en", "zh"],
    }


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """The folder of each device's results, and of each stage on the GPU how many batches and which waits it had."""
    world = tmp_path_factory.mktemp("world")
    two_languages.write_facts(world / "mlama")
    two_languages.write_model("bert", world / "model")
    folders, counted = {}, {}
    for device in ("cpu", "cuda"):
        folders[device] = folder = tmp_path_factory.mktemp(device)
        for stage, (script, *flags) in (first_paper(folder / "first") | second_paper(folder / "second", world)).items():
            flags += ["--dtype", "float64", "--device", device]
            if device == "cpu":
                run(script, *flags)
                continue
            made = Counter()

            class Rows(batches.Rows):
                def __init__(self, *of, made=made):
                    made["batches"] += 1
                    super().__init__(*of)

            with pretended_gpu.plugged_in() as gpu, pytest.MonkeyPatch.context() as patch:
                patch.setattr(batches, "Rows", Rows)
                run(script, *flags)
            counted[stage] = made["batches"], gpu.waits
    return folders, counted


def entries(path):
    lines = path.read_text().splitlines() if path.suffix == ".jsonl" else [path.read_text()]
    return [json.loads(line) for line in lines]


def assert_alike(found, expected, where):
    """The same but for rounding, and for what is said of the device."""
    if isinstance(expected, float):
        assert found == pytest.approx(expected, rel=1e-8, abs=1e-12), where
    elif isinstance(expected, dict):
        assert found.keys() == expected.keys(), where
        for key in expected.keys() - {"settings"}:
            assert_alike(found[key], expected[key], f"{where}, {key}")
    elif isinstance(expected, list):
        assert len(found) == len(expected), where
        for number, pair in enumerate(zip(found, expected, strict=True)):
            assert_alike(*pair, f"{where}, {number}")
    else:
        assert found == expected, where


def test_the_numbers_are_the_cpus(ran):
    folders, _ = ran
    made = {
        device: {
            path.relative_to(folder): path
            for path in folder.rglob("*.json*")
            if ".args." not in path.name and not path.name.startswith(".")
        }
        for device, folder in folders.items()
    }
    assert made["cuda"].keys() == made["cpu"].keys() and len(made["cpu"]) > 50
    for name, path in made["cpu"].items():
        assert_alike(entries(made["cuda"][name]), entries(path), str(name))


def test_what_made_them_was_the_gpu(ran):
    (record,) = entries(ran[0]["cuda"] / "first" / "TREx-all.args.json")
    (maker,) = record["P36"]["made by"]
    assert maker["device"] == "a pretended GPU" and record["P36"]["settings"]["device"] == "cuda"


BEGINNING = ("loading.py", "agreement.py")  # what is done once, before the first batch


@pytest.mark.parametrize("stage", ["3", "4", "5", "6", "7", "10", "11"])
def test_a_batch_is_waited_for_once(ran, stage):
    count, waits = ran[1][stage]
    assert count and sum(waits[line] for line in waits if not line.startswith(BEGINNING)) == count, waits


@pytest.mark.parametrize("stage, least, most", [("1", 6, 6), ("9", 2, 6), ("9, zh", 2, 6), ("12", 3, 3)])
def test_attributing_waits_once_a_rung_and_a_few_times_a_batch(ran, stage, least, most):
    """A few times: whether all is finite, what is predicted, and what the stage reads of the scores."""
    count, waits = ran[1][stage]
    rungs = sum(number for line, number in waits.items() if line.startswith("certificate.py"))
    others = sum(number for line, number in waits.items() if not line.startswith((*BEGINNING, "certificate.py")))
    assert 0 < rungs <= count * len(ladder("riemann", 20)) and least * count <= others <= most * count, waits
