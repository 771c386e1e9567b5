"""What JSON has to hold, said once: a value of another shape ends in one line that names the place and the value.

check(value, table(each(whole, "fact")), "kn.json")    # kn.json, 'P36', fact 3: expected a whole number, found "x"
"""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

from kn.store.files import InputError, read_jsonl

LARGEST = 1e300  # in amount; what is larger is Infinity, or a number of hundreds of digits

Problem = tuple[list[str], str]  # where in the value, and what is wrong there
Shape = Callable[[object], Problem | None]  # None if the value has it


def check(value, shape: Shape, place) -> None:
    if problem := shape(value):
        where, what = problem
        raise InputError(f"{', '.join([str(place), *where])}: {what}")


def lines(path: str | Path, shape: Shape) -> Iterator[tuple[object, str]]:
    """The values of a JSON-lines file, and the place of each."""
    for number, line in enumerate(read_jsonl(path), 1):
        check(line, shape, place := f"{path}, entry {number}")
        yield line, place


def short(value, longest: int = 80) -> str:
    """The beginning of a value as JSON shows it, in one line."""
    shown = json.dumps(value, ensure_ascii=False, default=repr)
    if not shown.isprintable():
        shown = json.dumps(value, default=repr)
    return shown if len(shown) <= longest else shown[: longest - 1] + "…"


def is_number(value) -> bool:
    """Of JSON: NaN, Infinity, true and false are none."""
    return type(value) in (int, float) and -LARGEST < value < LARGEST


def is_whole(value) -> bool:
    """A whole number from 0 up."""
    return type(value) is int and 0 <= value < LARGEST


def _is(expected: str, test: Callable[[object], bool]) -> Shape:
    return lambda value: None if test(value) else ([], f"expected {expected}, found {short(value)}")


anything = _is("anything", lambda value: True)
text = _is("a text", lambda value: isinstance(value, str))
truth = _is("true or false", lambda value: isinstance(value, bool))
number = _is("a number", is_number)
whole = _is("a whole number from 0 up", is_whole)


def optional(shape: Shape) -> Shape:
    return lambda value: None if value is None else shape(value)


def either(simple: Shape, other: Shape) -> Shape:
    return lambda value: other(value) if simple(value) else None


def each(shape: Shape, name: str = "entry", least: int = 0) -> Shape:
    """A list with any number of parts, or so many at least; they are called `name` 0, 1, …"""

    def problem(value) -> Problem | None:
        if not isinstance(value, list):
            return [], f"expected a list, found {short(value)}"
        if len(value) < least:
            return [], f"expected at least {least}, found {len(value)}"
        for place, part in enumerate(value):
            if found := shape(part):
                return _inside(f"{name} {place}", found)
        return None

    return problem


def row(*shapes: Shape) -> Shape:
    """A list with one part of each shape."""

    def problem(value) -> Problem | None:
        if not isinstance(value, list) or len(value) != len(shapes):
            return [], f"expected a list of {len(shapes)}, found {short(value)}"
        for place, (shape, part) in enumerate(zip(shapes, value, strict=True)):
            if found := shape(part):
                return _inside(f"entry {place}", found)
        return None

    return problem


def table(shape: Shape) -> Shape:
    """An object with any keys."""

    def problem(value) -> Problem | None:
        if not isinstance(value, dict):
            return [], f"expected an object, found {short(value)}"
        for key, part in value.items():
            if found := shape(part):
                return _inside(short(key), found)
        return None

    return problem


def having(shapes: dict[str, Shape], maybe: dict[str, Shape] | None = None) -> Shape:
    """An object with these keys and others; `maybe` are keys that it need not have."""
    all_shapes = shapes | (maybe or {})

    def problem(value) -> Problem | None:
        if not isinstance(value, dict):
            return [], f"expected an object, found {short(value)}"
        for key, shape in all_shapes.items():
            if key in value:
                if found := shape(value[key]):
                    return _inside(short(key), found)
            elif key in shapes:
                return [], f"expected {short(key)}, found {short(value)}"
        return None

    return problem


def _inside(name: str, problem: Problem) -> Problem:
    where, what = problem
    return [name, *where], what
