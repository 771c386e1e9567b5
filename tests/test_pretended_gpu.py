"""On a pretended GPU, every stage that runs the model gives the CPU's numbers and rarely waits for the device."""

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
from kn.methods.direct import Direct, mean_activations
from kn.methods.presets import INCREASE
from kn.methods.probing import Probe
from kn.methods.quadrature import ladder
from kn.model import batches, loading
from kn.model.prompts import Prompt

DATA = GOLDEN / "data"
FACTS = 8  # per relation


# ---- the pretended GPU behaves like a real one ----


@pytest.fixture
def gpu():
    with pretended_gpu.plugged_in() as gpu:
        yield gpu


@pytest.mark.filterwarnings("ignore:__array__")  # numpy tries twice before it gives up
def test_operations_that_mix_devices_fail(gpu):
    on_gpu, on_cpu = torch.arange(6.0, device="cuda").view(2, 3), torch.arange(6.0).view(2, 3)
    assert on_gpu.device == torch.device("cuda:0") and on_gpu.is_cuda and (on_gpu + on_gpu).device.type == "cuda"
    for mix in (
        lambda: on_gpu + on_cpu,
        lambda: on_cpu @ on_gpu.T,
        lambda: torch.cat([on_gpu, on_cpu]),
        lambda: torch.where(on_gpu > 1, on_cpu, on_gpu),
        lambda: on_gpu.gather(1, torch.zeros(2, 1, dtype=torch.int64)),
        lambda: on_cpu[torch.tensor([0], device="cuda")],
        lambda: on_gpu.index_put((torch.tensor([0], device="cuda"),), on_cpu[0]),
        lambda: torch.nn.functional.linear(on_gpu, on_cpu),
    ):
        with pytest.raises(RuntimeError, match="cpu"):
            mix()
    for to_numpy in (
        lambda: on_gpu.numpy(),
        lambda: np.array(on_gpu),
        lambda: np.zeros((2, 3)).__setitem__(0, on_gpu[0]),
    ):
        with pytest.raises(TypeError, match="cuda"):
            to_numpy()
    assert (on_gpu * torch.tensor(2.0)).device.type == "cuda"  # a single number may be on any device
    assert torch.equal((on_gpu @ on_gpu.T).cpu(), on_cpu @ on_cpu.T) and type(on_gpu.cpu()) is torch.Tensor


def test_modules_move_to_the_gpu_with_their_tied_weights_and_gradients(gpu):
    layer = torch.nn.Linear(3, 2)
    tied = torch.nn.ModuleList([layer, torch.nn.Linear(3, 2)])
    tied[1].weight = layer.weight
    x = torch.ones(4, 3)
    expected = torch.autograd.grad(layer(x).sum(), layer.weight)[0]
    tied.to("cuda")
    assert tied[1].weight is layer.weight and isinstance(layer.weight, torch.nn.Parameter) and layer.weight.is_cuda
    with pytest.raises(RuntimeError, match="same device"):
        layer(x)
    (gradient,) = torch.autograd.grad(layer(x.to("cuda")).sum(), layer.weight)
    assert gradient.is_cuda and torch.equal(gradient.cpu(), expected)
    probes = torch.zeros(2, device="cuda", requires_grad=True)
    (gradient,) = torch.autograd.grad((probes * 3).sum(), probes)
    assert gradient.cpu().tolist() == [3, 3]


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
def test_every_wait_for_the_gpu_is_counted(gpu, monkeypatch, waits, work):
    monkeypatch.setattr(pretended_gpu, "SOURCE", Path(__file__).parent)
    x = torch.arange(4.0).view(2, 2).to("cuda", non_blocking=True)
    done = work(x)
    assert sum(gpu.waits.values()) == waits, done
    assert all(line.startswith("test_pretended_gpu.py:") for line in gpu.waits)


def test_every_thread_sees_the_gpu(gpu):
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(lambda: torch.ones(2).to("cuda").is_cuda).result()


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_gives_the_cpus_numbers_on_the_gpu(gpu, family):
    prompts = families.prompts(family in CAUSAL)
    ids, (position,), (answer,) = prompts[0]
    prompts.append(Prompt(ids, [position - 1, position], [answer, answer + 1]) if position else prompts[0])
    numbers = {}
    for device in ("cpu", "cuda"):
        model = FAMILIES[family].model(family, torch.float64).requires_grad_(False).to(device)
        adapter = loading.adapt(model)
        attributions = list(Engine(adapter, "riemann", 20).attribute(prompts, prediction=True))
        numbers[device] = [
            getattr(batch, name).cpu() for batch in attributions for name in ("answer", "prediction", "own")
        ]
        edits = [ColumnEdit([[0, 3], [2, 5]]), ColumnEdit([[1, 4]], torch.ones(24, dtype=torch.float64).to(device))]
        variants = [[edits[index % 2] for index in range(len(prompts))], [None] * len(prompts)]
        numbers[device] += [reading.probabilities for reading in read_edited(Probe(adapter), prompts, variants)]
    for on_gpu, on_cpu in zip(numbers["cuda"], numbers["cpu"], strict=True):
        np.testing.assert_allclose(on_gpu, on_cpu, rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("family", ["bert", "gpt2"])
def test_every_choice_of_the_engine_gives_the_cpus_numbers_on_the_gpu(gpu, family):
    prompts = families.prompts(family in CAUSAL, 2)
    at, baselines = [[1, 2], list(range(len(prompts[1].ids)))], [[prompts[1]], prompts]
    scores = {}
    for device in ("cpu", "cuda"):
        adapter = loading.adapt(FAMILIES[family].model(family, torch.float64).requires_grad_(False).to(device))
        engine, mean = Engine(adapter, "literal", 2, what="difference"), mean_activations(adapter, prompts)
        scores[device] = [
            batch.answer.cpu()
            for batches in (
                engine.attribute(prompts, others=[[5], [6]], at=at, baselines=mean),
                engine.attribute(prompts, others=[[5], [6]], baselines=baselines),
                Direct(adapter, INCREASE).attribute(prompts),
            )
            for batch in batches
        ]
    for on_gpu, on_cpu in zip(scores["cuda"], scores["cpu"], strict=True):
        np.testing.assert_allclose(on_gpu, on_cpu, rtol=1e-8, atol=1e-12)


# ---- the stages ----


def first_paper(folder):
    """Script and flags per stage of the first paper, on the golden data."""
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
    """Script and flags per stage of the second paper."""
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
def runs(tmp_path_factory):
    """The folder of results per device; the number of batches and the waits per stage on the GPU."""
    world = tmp_path_factory.mktemp("world")
    two_languages.write_facts(world / "mlama")
    two_languages.write_model("bert", world / "model")
    folders, counts = {}, {}
    for device in ("cpu", "cuda"):
        folders[device] = folder = tmp_path_factory.mktemp(device)
        for stage, (script, *flags) in (first_paper(folder / "first") | second_paper(folder / "second", world)).items():
            flags += ["--dtype", "float64", "--device", device]
            if device == "cpu":
                run(script, *flags)
                continue
            made = Counter()

            class Rows(batches.Rows):
                def __init__(self, *arguments, made=made):
                    made["batches"] += 1
                    super().__init__(*arguments)

            with pretended_gpu.plugged_in() as gpu, pytest.MonkeyPatch.context() as patch:
                patch.setattr(batches, "Rows", Rows)
                run(script, *flags)
            counts[stage] = made["batches"], gpu.waits
    return folders, counts


def entries(path):
    lines = path.read_text().splitlines() if path.suffix == ".jsonl" else [path.read_text()]
    return [json.loads(line) for line in lines]


def assert_alike(found, expected, where):
    """Equal except for rounding and for the settings, which name the device."""
    if isinstance(expected, float):
        assert found == pytest.approx(expected, rel=1e-8, abs=1e-12), where
    elif isinstance(expected, dict):
        assert found.keys() == expected.keys(), where
        for key in expected.keys() - {"settings"}:
            assert_alike(found[key], expected[key], f"{where}, {key}")
    elif isinstance(expected, list):
        assert len(found) == len(expected), where
        for index, pair in enumerate(zip(found, expected, strict=True)):
            assert_alike(*pair, f"{where}, {index}")
    else:
        assert found == expected, where


def test_all_results_have_the_cpus_numbers(runs):
    folders, _ = runs
    paths = {
        device: {
            path.relative_to(folder): path
            for path in folder.rglob("*.json*")
            if ".args." not in path.name and not path.name.startswith(".")
        }
        for device, folder in folders.items()
    }
    assert paths["cuda"].keys() == paths["cpu"].keys() and len(paths["cpu"]) > 50
    for name, path in paths["cpu"].items():
        assert_alike(entries(paths["cuda"][name]), entries(path), str(name))


def test_the_record_names_the_gpu(runs):
    (record,) = entries(runs[0]["cuda"] / "first" / "TREx-all.args.json")
    (maker,) = record["P36"]["made by"]
    assert maker["device"] == "a pretended GPU" and record["P36"]["settings"]["device"] == "cuda"


START = ("loading.py", "agreement.py")  # these wait only once per run, before the first batch
WORDS = "vocabulary.py"  # waits once for the words of many neurons, which no batch of prompts is run for


@pytest.mark.parametrize("stage", ["3", "4", "5", "6", "7", "10", "11"])
def test_a_stage_waits_once_per_batch(runs, stage):
    count, waits = runs[1][stage]
    assert count and sum(waits[line] for line in waits if not line.startswith((*START, WORDS))) == count, waits


@pytest.mark.parametrize("stage, least, most", [("1", 6, 6), ("9", 2, 6), ("9, zh", 2, 6), ("12", 3, 3)])
def test_attribution_waits_once_per_rung_and_a_few_times_per_batch(runs, stage, least, most):
    """Per batch, a stage reads whether all numbers are finite, what is predicted, and the scores it needs."""
    count, waits = runs[1][stage]
    rungs = sum(times for line, times in waits.items() if line.startswith("certificate.py"))
    others = sum(times for line, times in waits.items() if not line.startswith((*START, "certificate.py")))
    assert 0 < rungs <= count * len(ladder("riemann", 20)) and least * count <= others <= most * count, waits
