"""Checks of JSON: a value that does not have the expected shape ends in one line that names the place and the value.

check(value, table(each(whole, "fact")), "kn.json")    # kn.json, "P36", fact 3: expected a whole number, found "x"

A shape can also be read off a type: `shape_of(dict[str, list[int]])`.
"""

import json
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, NamedTuple, get_args, get_origin, get_type_hints, is_typeddict

from kn.store.files import InputError, read_jsonl

LARGEST = 1e300  # a larger magnitude is Infinity, or a number of hundreds of digits


class Problem(NamedTuple):
    where: list[str]  # the keys and entries that lead to it
    what: str


Shape = Callable[[object], Problem | None]  # None if the value has the shape


def check(value: object, shape: Shape, place: object) -> None:
    if problem := shape(value):
        raise InputError(f"{', '.join([str(place), *problem.where])}: {problem.what}")


def lines(path: str | Path | zipfile.Path, shape: Shape) -> Iterator[tuple[Any, str]]:
    """The values of a JSON-lines file, each with the words that say where it is."""
    for number, line in enumerate(read_jsonl(path), 1):
        check(line, shape, place := f"{path}, entry {number}")
        yield line, place


def short(value: object, longest: int = 80) -> str:
    """The beginning of a value as JSON, in one line."""
    shown = json.dumps(value, ensure_ascii=False, default=repr)
    if not shown.isprintable():
        shown = json.dumps(value, default=repr)
    return shown if len(shown) <= longest else shown[: longest - 1] + "…"


def is_number(value: Any) -> bool:
    """Whether JSON calls it a number: not NaN, Infinity, true or false."""
    return type(value) in (int, float) and -LARGEST < value < LARGEST


def is_whole(value: Any) -> bool:
    return type(value) is int and 0 <= value < LARGEST


def _is(expected: str, test: Callable[[object], bool]) -> Shape:
    return lambda value: None if test(value) else Problem([], f"expected {expected}, found {short(value)}")


anything = _is("anything", lambda value: True)
text = _is("a text", lambda value: isinstance(value, str))
truth = _is("true or false", lambda value: isinstance(value, bool))
number = _is("a number", is_number)
whole = _is("a whole number from 0 up", is_whole)


def optional(shape: Shape) -> Shape:
    """This shape, or null."""
    return lambda value: None if value is None else shape(value)


def either(simple: Shape, other: Shape) -> Shape:
    """One of two shapes. A value that has neither is described by its difference from the second."""
    return lambda value: other(value) if simple(value) else None


def each(shape: Shape, name: str = "entry", least: int = 0) -> Shape:
    """A list of at least `least` values of this shape. Messages call them `name` 0, 1, …"""

    def problem(value: object) -> Problem | None:
        if not isinstance(value, list):
            return Problem([], f"expected a list, found {short(value)}")
        if len(value) < least:
            return Problem([], f"expected at least {least}, found {len(value)}")
        for index, part in enumerate(value):
            if inner := shape(part):
                return _inside(f"{name} {index}", inner)
        return None

    return problem


def row(*shapes: Shape) -> Shape:
    """A list with one value of each shape."""

    def problem(value: object) -> Problem | None:
        if not isinstance(value, list) or len(value) != len(shapes):
            return Problem([], f"expected a list of {len(shapes)}, found {short(value)}")
        for index, (shape, part) in enumerate(zip(shapes, value, strict=True)):
            if inner := shape(part):
                return _inside(f"entry {index}", inner)
        return None

    return problem


def table(shape: Shape) -> Shape:
    """An object with any keys, and values of this shape."""

    def problem(value: object) -> Problem | None:
        if not isinstance(value, dict):
            return Problem([], f"expected an object, found {short(value)}")
        for key, part in value.items():
            if inner := shape(part):
                return _inside(short(key), inner)
        return None

    return problem


def having(shapes: dict[str, Shape], maybe: dict[str, Shape] | None = None) -> Shape:
    """An object with the keys of `shapes`, perhaps those of `maybe`, and any others."""
    all_shapes = shapes | (maybe or {})

    def problem(value: object) -> Problem | None:
        if not isinstance(value, dict):
            return Problem([], f"expected an object, found {short(value)}")
        for key, shape in all_shapes.items():
            if key in value:
                if inner := shape(value[key]):
                    return _inside(short(key), inner)
            elif key in shapes:
                return Problem([], f"expected {short(key)}, found {short(value)}")
        return None

    return problem


def _inside(name: str, problem: Problem) -> Problem:
    return Problem([name, *problem.where], problem.what)


SIMPLE = {object: anything, str: text, bool: truth, int: whole, float: number}


def shape_of(kind: Any) -> Shape:
    """The shape of JSON of this type: simple ones, lists, dicts, TypedDicts, and these or None.

    `Annotated[type, shape]` has the given shape.
    """
    if kind in SIMPLE:
        return SIMPLE[kind]
    if is_typeddict(kind):
        shapes = {key: shape_of(hint) for key, hint in get_type_hints(kind, include_extras=True).items()}
        required = {key: shape for key, shape in shapes.items() if key in kind.__required_keys__}
        return having(required, maybe=shapes)
    origin, parts = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return parts[1]
    if origin is list:
        return each(shape_of(parts[0]))
    if origin is dict:
        return table(shape_of(parts[1]))
    if origin is UnionType and len(parts) == 2 and parts[1] is NoneType:
        return optional(shape_of(parts[0]))
    raise TypeError(f"no shape for {kind}")
