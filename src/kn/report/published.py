"""The numbers of the papers and of an independent run of the authors' program, and how far a run may be from them.

Never imports torch.
"""

from pathlib import Path
from typing import NamedTuple

from kn.store.files import read_json
from kn.store.shapes import anything, check, each, either, having, number, optional, table, text

COMMON = {"measure": text, "of": text, "reason": text}
SINGLE = having(COMMON, maybe=dict.fromkeys(("paper", "rerun", "tolerance"), optional(number)))
SERIES = having(COMMON | {"by": text, "rerun": table(number)}, maybe={"tolerance": optional(number)})
CONTENT = having(
    {
        "sources": table(text),
        "papers": table(having({"citation": text})),
        "settings": table(either(text, each(anything, least=1))),
        "numbers": table(each(lambda entry: (SERIES if isinstance(entry, dict) and "by" in entry else SINGLE)(entry))),
    }
)
WORDS = {
    "bert_model": "another model ({value}, not {published})",
    "debug": "only the first {value} facts of each relation",
    "rule": "another rule ({value}, not the sum over points)",
    "nearest_pass": "where the last pass of refining was out of range, the nearest was taken",
    "do_lower_case": "lower-cased text",
}


class Number(NamedTuple):
    """What is published about one measure. Without a tolerance it is shown and not checked."""

    paper: float | None
    rerun: float | None
    unknown: bool  # the paper has a number that could not be confirmed
    tolerance: float | None
    reason: str

    @property
    def reference(self) -> float | None:
        """What a run is compared with: the paper's own number where it is known."""
        return self.rerun if self.paper is None else self.paper


NOT_PUBLISHED = Number(None, None, False, None, "")


class Published:
    def __init__(self, path: Path):
        content = read_json(path)
        check(content, CONTENT, path)
        self.sources: dict[str, str] = content["sources"]
        self.papers: dict[str, dict] = content["papers"]
        self.settings = {name: values for name, values in content["settings"].items() if name != "about"}
        self._numbers: dict[tuple, Number] = {}
        self._series: dict[tuple, dict[str, Number]] = {}
        for section, entries in content["numbers"].items():
            for entry in entries:
                key = (section, entry["measure"], entry["of"])
                about = (entry.get("tolerance"), entry["reason"])
                if "by" in entry:
                    self._series[key] = {
                        name: Number(None, value, False, *about) for name, value in entry["rerun"].items()
                    }
                else:
                    unknown = "paper" in entry and entry["paper"] is None
                    self._numbers[key] = Number(entry.get("paper"), entry.get("rerun"), unknown, *about)
        facts = self.series("data", "facts", "all")
        self.facts = {relation: int(number.rerun or 0) for relation, number in facts.items()}

    def numbers(self, section: str) -> dict[tuple[str, str], Number]:
        """All single numbers of a section, by measure and scope."""
        return {key[1:]: number for key, number in self._numbers.items() if key[0] == section}

    def series(self, section: str, measure: str, scope: str) -> dict[str, Number]:
        """The numbers of a series, by relation or layer."""
        return self._series.get((section, measure, scope), {})

    def departures(self, settings: dict) -> list[str]:
        """Names the settings that are not the paper's."""
        return [
            WORDS.get(name, "{name} {value}, not {published}").format(
                name=name, value=settings[name], published=values[0]
            )
            for name, values in self.settings.items()
            if name in settings and not _is_one_of(settings[name], values)
        ]


def _is_one_of(value: object, values: list) -> bool:
    """A model's copy in a folder, or under its owner's name on the hub, is recognised by its name."""
    return value in values or (isinstance(value, str) and value.rstrip("/").split("/")[-1] in values)
