"""What the stages of the second paper begin with: the facts of one or several languages, and one model for all.

    bash 9_run_amig.sh MODEL LANGUAGE …

Facts come in mLAMA's layout. A fact has one prompt in each language, and the same uuid in all.
"""

import argparse
import random
import sys
from dataclasses import dataclass, field

from kn import facts, flags, mlama, stages
from kn.facts import Bags
from kn.files import InputError
from kn.located import THRESHOLD, THRESHOLDS
from kn.prompts import Encoded
from kn.stages import World
from kn.workers import FIRST


@dataclass
class Language:
    name: str
    threshold: float  # of the highest score: neurons above it are a fact's
    facts: dict[str, dict[str, mlama.Fact]]  # by relation and uuid, cut to --debug
    world: World
    known: dict[tuple[str, str], Encoded] = field(default_factory=dict)

    def encoded(self, relation: str, uuid: str) -> Encoded:
        """The fact's prompt."""
        if (relation, uuid) not in self.known:
            ((self.known[relation, uuid],),) = self.world.encoder.facts([self.facts[relation][uuid].bag])
        return self.known[relation, uuid]


def add_flags(parser: argparse.ArgumentParser) -> None:
    flags.add_model_flags(parser)
    flags.add_choice_flags(parser)
    parser.add_argument("--mlama", default="{MLAMA}", help="facts in mLAMA's layout: its zip, or a folder")
    parser.add_argument("--languages", nargs="+", required=True, metavar="en", help="as mLAMA calls its folders")
    parser.set_defaults(thresholds=[])


def add_threshold_flag(parser: argparse.ArgumentParser) -> None:
    """For the stages that ask which neurons are a fact's; the others take its strongest."""
    parser.add_argument(
        "--thresholds",
        nargs="+",
        type=float,
        default=[],
        metavar="SHARE",
        help="one a language: neurons with more than this share of the fact's highest score are its knowledge neurons; "
        f"none: {THRESHOLD}, and {THRESHOLDS['zh']} for zh",
    )


def open_languages(chosen: argparse.Namespace, fewest: int, most: int) -> list[Language]:
    """The languages asked for, of which this stage needs so many."""
    names = list(dict.fromkeys(chosen.languages))
    if not fewest <= len(names) <= most:
        wanted = f"{fewest}" if fewest == most else f"{fewest} to {most}"
        raise InputError(f"--languages {' '.join(chosen.languages)}: expected {wanted} different ones")
    thresholds = chosen.thresholds or [THRESHOLDS.get(name, THRESHOLD) for name in names]
    if len(thresholds) != len(names):
        raise InputError(f"--thresholds: {len(thresholds)} for {len(names)} languages ({' '.join(names)})")
    found = mlama.read(chosen.mlama, names)
    for line in found.left_out if FIRST else ():
        print(f"left out: {line}", file=sys.stderr)
    bags: Bags = found.bags(names[0])
    relations = facts.choose_relations(bags, chosen.pt_relation)
    opened = stages.open_model(chosen)
    first = None if chosen.debug < 0 else chosen.debug
    return [
        Language(
            name,
            threshold,
            {relation: dict(list(of.items())[:first]) for relation, of in found.facts[name].items()},
            World({relation: of[:first] for relation, of in found.bags(name).items()}, relations, *opened),
        )
        for name, threshold in zip(names, thresholds, strict=True)
    ]


def shared(languages: list[Language], relation: str) -> list[str]:
    """The facts (uuids) that all the languages have, in the order of the first."""
    first, *others = (language.facts[relation] for language in languages)
    return [uuid for uuid in first if all(uuid in other for other in others)]


class Unrelated:
    """Facts to compare with: of a random other relation a random fact that can be scored in all the languages."""

    def __init__(self, languages: list[Language]):
        self.languages = languages
        self.pools = {name: found for name in languages[0].facts if (found := shared(languages, name))}

    def draw(self, relation: str, chance: random.Random) -> list[str]:
        """`[relation, uuid]`"""
        names = [name for name in self.pools if name != relation]
        for _ in range(1000 if names else 0):
            name = chance.choice(names)
            uuid = chance.choice(self.pools[name])
            if not any(language.encoded(name, uuid).skipped for language in self.languages):
                return [name, uuid]
        raise InputError(f"relation {relation}: unrelated facts are needed, and no other relation has one to score")
