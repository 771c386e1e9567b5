"""The flags that the stages share, under their published names, and what follows from them."""

import argparse

import torch

from kn.files import InputError
from kn.models import DTYPES
from kn.workers import LOCAL_RANK, LOCAL_WORKERS


def parser(description: str) -> argparse.ArgumentParser:
    """A parser whose help shows the script's description as it is written, and every default."""

    class Layout(argparse.RawDescriptionHelpFormatter):
        def _get_help_string(self, action: argparse.Action) -> str:
            shown = action.default not in (None, False, [], argparse.SUPPRESS)
            several = isinstance(action.default, list | tuple)
            default = " ".join(map(str, action.default)) if several else "%(default)s"
            return f"{action.help} (default: {default})" if shown else action.help

    class OneLine(argparse.ArgumentParser):
        """A mistake is told in one line; what flags there are would bury it."""

        def error(self, message: str):
            asked = message.startswith("unrecognized") and "--pt_relation" in self._option_string_actions
            order = "relations come before flags, " * asked
            self.exit(2, f"error: {message} ({order}--help explains every flag)\n")

    # Unknown flags are an error, and so are shortened ones: a run should say in full what it does.
    return OneLine(description=description, formatter_class=Layout, allow_abbrev=False)


def add_model_flags(flags: argparse.ArgumentParser) -> None:
    flags.add_argument("--bert_model", default="bert-base-cased", help="a folder, or a model's name on the hub")
    flags.add_argument("--revision", help="which version of a model of the hub")
    flags.add_argument(
        "--do_lower_case", action="store_true", help="lower-case the text, whatever the model's tokenizer says"
    )
    flags.add_argument(
        "--max_seq_length", type=positive, default=128, help="longest text in word pieces, the special ones counted"
    )
    flags.add_argument(
        "--dtype", choices=DTYPES, default="float32", help="tf32 is float32 with faster, coarser products on CUDA"
    )
    flags.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    flags.add_argument("--gpus", help="which GPU, or which ones for several processes: 0,1,2")
    flags.add_argument("--no_cuda", action="store_true", help="the same as --device cpu")
    flags.add_argument("--max_tokens", type=positive, help="tokens a batch; none: as suits the device")
    flags.add_argument("--seed", type=int, default=42, help="where chance decides")


def add_data_flags(flags: argparse.ArgumentParser) -> None:
    flags.add_argument("--data_path", default="data/PARAREL/data_all.json", help="all facts")
    flags.add_argument("--tmp_data_path", help="the same, grouped by relation; read if --data_path is missing")
    add_choice_flags(flags)


def add_choice_flags(flags: argparse.ArgumentParser) -> None:
    flags.add_argument(
        "--debug", type=some_or_all, default=-1, metavar="N", help="only the first N facts of each relation; -1: all"
    )
    flags.add_argument("--output_dir", default="results", help="where results go")
    flags.add_argument("--pt_relation", nargs="*", default=[], metavar="P101", help="relations; none: all, in order")


def positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number above 0, found {text}")
    return int(text)


def some_or_all(text: str) -> int:
    if text != "-1" and not (text.isdecimal() and int(text) > 0):
        raise argparse.ArgumentTypeError(f"expected a number of facts above 0, or -1 for all, found {text}")
    return int(text)


def device(wanted: str, gpus: str | None = None) -> torch.device:
    if wanted in ("auto", "cuda") and torch.cuda.is_available():
        # The processes of one machine take a GPU each.
        several = gpus.split(",") if gpus else range(LOCAL_WORKERS)
        if len(several) <= LOCAL_RANK:
            raise InputError(f"--gpus {gpus}: names {len(several)} GPUs for {LOCAL_WORKERS} processes")
        wanted = f"cuda:{several[LOCAL_RANK]}"
    elif wanted == "auto":
        wanted = "cpu"
    try:
        chosen = torch.device(wanted)
    except RuntimeError:
        raise InputError(f"--device {wanted}: expected auto, cpu, cuda or cuda:N") from None
    if chosen.type == "cuda" and (chosen.index or 0) >= torch.cuda.device_count():
        raise InputError(f"--device {wanted}: this machine has {torch.cuda.device_count()} CUDA devices")
    if chosen.type == "cuda":
        torch.cuda.set_device(chosen)
    return chosen
