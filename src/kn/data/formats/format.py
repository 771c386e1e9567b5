"""What the program knows of a format: who made it, where it is, and how it is read."""

from collections.abc import Callable
from dataclasses import dataclass

from kn.data.conversion import Collector
from kn.data.trees import Tree


@dataclass(frozen=True)
class Format:
    name: str  # as in `bash 0_get_data.sh NAME`
    title: str
    licence: str
    origin: str  # where its authors keep it, for people
    read: Callable[[Tree, Collector], None]
    # Where it is fetched from: a web folder with the files of `data/checksums-NAME.txt`, or the address of one file.
    # Neither, if we know no address for certain.
    folder: str | None = None
    address: str | None = None

    @property
    def checksums(self) -> str:
        """The list of the files in `folder`."""
        return f"data/checksums-{self.name}.txt"
