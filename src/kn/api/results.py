"""Reading what the stages wrote. Needs neither the model nor torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from kn.neurons.sets import NeuronSet, read_neuron_sets
from kn.report import read_back
from kn.store import result_files
from kn.store.files import InputError
from kn.store.result_files import ARMS, KNOWLEDGE


class Results:
    """The results in a folder: RESULTS, `results` by default."""

    def __init__(self, folder: str | Path):
        self.folder, self.kn_dir = Path(folder), Path(folder) / "kn"

    @property
    def relations(self) -> list[str]:
        """Those that stage 2 has found neurons for."""
        return result_files.relations_with_neurons(self.kn_dir)

    def neurons(self, relation: str, arm: str = KNOWLEDGE) -> list[NeuronSet]:
        """The neurons of each fact of a relation, in the order of the data. `arm` may be "baseline"."""
        return read_neuron_sets(result_files.neurons(self.kn_dir, relation, _checked(arm)))

    def statistics(self, arm: str = KNOWLEDGE) -> dict[str, Any]:
        """Neurons per fact, neurons that facts share, and the percentage in each layer, as stage 2 counted them."""
        by_arm = read_back.statistics(self.kn_dir)
        if _checked(arm) not in by_arm:
            raise InputError(
                f"{result_files.neuron_statistics(self.kn_dir)}: nothing about the arm {arm!r}: run stage 2"
            )
        return dict(by_arm[arm])

    def __repr__(self) -> str:
        return f"<kn.Results {self.folder}: neurons of {', '.join(self.relations)}>"


def results(folder: str | Path = "results") -> Results:
    """What the stages wrote to a folder: `results("results/sample").neurons("P36")`."""
    return Results(folder)


def _checked(arm: str) -> str:
    if arm not in ARMS:
        raise InputError(f"there is no arm {arm!r}: expected one of {', '.join(ARMS)}")
    return arm
