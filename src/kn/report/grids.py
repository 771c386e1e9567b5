"""A table as the page and the Markdown report show it: heads, and cells that know their number. No torch."""

from typing import NamedTuple


class Head(NamedTuple):
    text: str
    is_number: bool = False


class Cell(NamedTuple):
    text: str
    value: float | None = None  # to sort by
    mark: str = ""  # after the number
    why: str = ""  # explains the mark


class Grid(NamedTuple):
    heads: list[Head]
    rows: list[list[Cell]]
