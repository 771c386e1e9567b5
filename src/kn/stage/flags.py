"""The flags that the stages share, under their published names. Never imports torch, so that --help answers at once.

The settings of `config.sh` are environment variables. They give flags their defaults: `default="{RESULTS}/kn"` is
`results/kn`, or `elsewhere/kn` if RESULTS is `elsewhere`. A flag on the command line takes precedence.
"""

import argparse
import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, NoReturn

from kn.store import workers

SETTINGS = {  # used where the environment does not set them
    "MODEL": "bert-base-cased",
    "DATA": "data",
    "MLAMA": "{DATA}/mlama1.1.zip",
    "RESULTS": "results",
    "FIGURES": "figures",
    "PREFIX": "TREx-all",
    "DEVICE": "auto",
    "DTYPE": "float32",
    "RULE": "riemann",
    "MAX_SEQ_LENGTH": "128",
    "SEED": "42",
}
VARIABLE = re.compile(r"\{([A-Z_]+)\}")
DTYPES = ("float32", "tf32", "bfloat16", "float16", "float64")


@dataclass(frozen=True)
class ModelArgs:
    """The values of the flags that `add_model_flags` adds."""

    bert_model: str
    revision: str | None
    do_lower_case: bool
    max_seq_length: int
    dtype: str
    device: str
    gpus: list[int] | None
    no_cuda: bool
    max_tokens: int | None
    seed: int


@dataclass(frozen=True)
class DataArgs:
    """The values of the flags that `add_data_flags` adds."""

    data_path: str
    tmp_data_path: str | None
    debug: int
    output_dir: str
    pt_relation: list[str]


def model_args(args: argparse.Namespace) -> ModelArgs:
    return ModelArgs(**{field.name: getattr(args, field.name) for field in fields(ModelArgs)})


def data_args(args: argparse.Namespace) -> DataArgs:
    return DataArgs(**{field.name: getattr(args, field.name) for field in fields(DataArgs)})


class Parser(argparse.ArgumentParser):
    """Reports a mistake in one line, without the usage, which would bury it."""

    def __init__(self, *args: Any, **kwargs: Any):
        # By flag: its action, and its default with variables.
        self.settings: dict[str, tuple[argparse.Action, str]] = {}
        super().__init__(*args, **kwargs)

    def add_argument(self, *names: str, default: object = None, **kwargs: Any) -> argparse.Action:
        if not (isinstance(default, str) and VARIABLE.search(default)):
            if default is not None:
                kwargs["default"] = default
            return super().add_argument(*names, **kwargs)
        action = super().add_argument(*names, default=_fill_in(default, {}), **kwargs)
        self.settings[action.dest] = action, default
        return action

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As usual, but environment variables that are set replace defaults."""
        namespace = argparse.Namespace() if namespace is None else namespace
        texts = {
            name: _fill_in(default, os.environ) for name, (_, default) in self.settings.items() if _set_in(default)
        }
        for name, text in texts.items():
            setattr(namespace, name, text)
        parsed, unknown = super().parse_known_args(args, namespace)
        for name, text in texts.items():
            if getattr(parsed, name) is text:  # not replaced by a flag
                setattr(parsed, name, self._convert(name, text))
        return parsed, unknown

    def _convert(self, name: str, text: str) -> object:
        """A variable's text as the value of its flag."""
        action, default = self.settings[name]
        variable = _set_in(default)[0]
        try:
            value = action.type(text) if callable(action.type) else text
        except argparse.ArgumentTypeError as error:
            self.error(f"{variable}: {error}")
        if action.choices and value not in action.choices:
            self.error(f"{variable}: expected one of {', '.join(action.choices)}, found {text[:80]}")
        return value

    def error(self, message: str) -> NoReturn:
        line = f"error: {message} (--help explains every flag)"
        if message.startswith("unrecognized") and "--pt_relation" in self._option_string_actions:
            line = f"error: {message} (relations come before flags, --help explains every flag)"
        if workers.WORKERS > 1:
            workers.end_all(line)
        self.exit(2, f"{line}\n")


def _set_in(default: str) -> list[str]:
    """The variables of a default that are set, including those in the defaults of the variables themselves."""
    names = VARIABLE.findall(default)
    names += [inner for name in names for inner in VARIABLE.findall(SETTINGS[name])]
    return [name for name in names if os.environ.get(name)]


def _fill_in(default: str, environment: Mapping[str, str]) -> str:
    def value(variable: re.Match) -> str:
        return environment.get(variable[1]) or VARIABLE.sub(value, SETTINGS[variable[1]])

    return VARIABLE.sub(value, default)


def parser(description: str) -> Parser:
    """A parser whose help shows every default, and the script's description with its line breaks."""

    class Layout(argparse.RawDescriptionHelpFormatter):
        def _get_help_string(self, action: argparse.Action) -> str | None:
            if action.default in (None, False, [], argparse.SUPPRESS):
                return action.help
            value = "%(default)s"
            if isinstance(action.default, list | tuple):
                value = " ".join(map(str, action.default))
            if action.dest in new_parser.settings:
                _, default = new_parser.settings[action.dest]
                variables = [f"{name}={os.environ[name]}".replace("%", "%%") for name in _set_in(default)]
                value += f"; {(variables or VARIABLE.findall(default))[0]}"
            return f"{action.help} (default: {value})"

    # Abbreviated flags are an error, like unknown ones: a command should say in full what it does.
    new_parser = Parser(description=description, formatter_class=Layout, allow_abbrev=False)
    return new_parser


def add_crawled_flags(flags: argparse.ArgumentParser) -> None:
    flags.add_argument("--distant_data_dir", default="{DATA}/BingDistantTREx/final", help="the crawled sentences")
    flags.add_argument(
        "--query_pairs_path", default="{DATA}/BingDistantTREx/query_pairs.json", help="subject and object of each fact"
    )
    flags.add_argument("--kn_dir", default="{RESULTS}/kn", help="the neurons of stage 2")
    flags.set_defaults(max_seq_length=512)


def add_model_flags(flags: argparse.ArgumentParser) -> None:
    flags.add_argument("--bert_model", default="{MODEL}", help="a folder, or the name of a model on the hub")
    flags.add_argument("--revision", help="which version of a model on the hub")
    flags.add_argument(
        "--do_lower_case", action="store_true", help="lower-case the text, whatever the model's tokenizer does"
    )
    flags.add_argument(
        "--max_seq_length",
        type=positive,
        default="{MAX_SEQ_LENGTH}",
        help="longest text, in word pieces including the special ones",
    )
    flags.add_argument(
        "--dtype", choices=DTYPES, default="{DTYPE}", help="tf32 is float32 with faster, less exact products on CUDA"
    )
    flags.add_argument("--device", type=device, default="{DEVICE}", help="auto, cpu, cuda or cuda:N")
    flags.add_argument("--gpus", type=gpus, help="which GPU, or one per process: 0,1,2")
    flags.add_argument("--no_cuda", action="store_true", help="the same as --device cpu")
    flags.add_argument("--max_tokens", type=positive, help="tokens per batch; none: as suits the device")
    flags.add_argument("--seed", type=whole, default="{SEED}", help="for everything random")


def add_data_flags(flags: argparse.ArgumentParser) -> None:
    flags.add_argument("--data_path", default="{DATA}/PARAREL/data_all.json", help="all facts")
    flags.add_argument("--tmp_data_path", help="the same, grouped by relation; read if --data_path does not exist")
    add_choice_flags(flags)


def add_choice_flags(flags: argparse.ArgumentParser) -> None:
    flags.add_argument(
        "--debug", type=some_or_all, default=-1, metavar="N", help="only the first N facts of each relation; -1: all"
    )
    flags.add_argument("--output_dir", default="{RESULTS}", help="where results go")
    flags.add_argument("--pt_relation", nargs="*", default=[], metavar="P101", help="which relations; none: all")


def whole(text: str) -> int:
    if not re.fullmatch(r"-?[0-9]{1,18}", text):
        raise argparse.ArgumentTypeError(f"expected a whole number, found {text[:80]}")
    return int(text)


def positive(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,18}", text) or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number above 0, found {text[:80]}")
    return int(text)


def number(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"expected a number, found {text!r}")
    return value


def some_or_all(text: str) -> int:
    if text != "-1" and not (re.fullmatch(r"[0-9]{1,18}", text) and int(text) > 0):
        raise argparse.ArgumentTypeError(f"expected a number of facts above 0, or -1 for all, found {text[:80]}")
    return int(text)


def device(text: str) -> str:
    if not re.fullmatch(r"auto|cpu|cuda(:[0-9]{1,4})?", text):
        raise argparse.ArgumentTypeError(f"expected auto, cpu, cuda or cuda:N, found {text[:80]}")
    return text


def gpus(text: str) -> list[int]:
    if not re.fullmatch(r"[0-9]{1,4}(,[0-9]{1,4})*", text):
        raise argparse.ArgumentTypeError(f"expected numbers of GPUs, as in 0,1,2, found {text[:80]}")
    return [int(number) for number in text.split(",")]
