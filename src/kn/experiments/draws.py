"""Random draws of facts to compare with."""

import random
from collections.abc import Callable
from typing import NamedTuple, TypeVar

from kn.stage import languages
from kn.stage.languages import UNUSED, Language
from kn.stage.setup import World
from kn.store.files import InputError

TRIES = 1000

Item = TypeVar("Item")


class FactId(NamedTuple):
    """A fact by the name of its relation and its number there."""

    relation: str
    fact: int


class FactUuid(NamedTuple):
    """A fact of mLAMA."""

    relation: str
    uuid: str


def draw_usable(draw: Callable[[], Item], usable: Callable[[Item], bool], problem: str) -> Item:
    """Draw until something usable comes up; `problem` is the error if nothing does."""
    for _ in range(TRIES):
        drawn = draw()
        if usable(drawn):
            return drawn
    raise InputError(problem)


def draw_unrelated(relation: str, world: World, rng: random.Random) -> FactId:
    """A random fact of a random other relation that can be scored."""
    problem = _no_unrelated(relation)
    names = [name for name in world.bags if name != relation and world.bags[name]]
    if not names:
        raise InputError(problem)

    def draw() -> FactId:
        name = rng.choice(names)
        return FactId(name, rng.randrange(len(world.bags[name])))

    return draw_usable(draw, lambda fact: bool(world.prompts(*fact)), problem)


def draw_related(relation: str, fact: int, world: World, rng: random.Random) -> int:
    """A random other fact of the relation that can be scored."""
    return draw_usable(
        lambda: rng.randrange(len(world.bags[relation])),
        lambda other: other != fact and bool(world.prompts(relation, other)),
        f"relation {relation}: other facts are needed to measure perplexity, and none can be scored",
    )


class Unrelated:
    """Draws random facts of other relations that can be scored in all the languages."""

    def __init__(self, languages_used: list[Language]):
        self.languages = languages_used
        # Unused relations stay out even if they are named, so that a draw does not depend on what else is asked for.
        used = [name for name in languages_used[0].facts if name not in UNUSED]
        shared = {name: languages.shared(languages_used, name) for name in used}
        self.uuids = {name: uuids for name, uuids in shared.items() if uuids}

    def draw(self, relation: str, rng: random.Random) -> FactUuid:
        problem = _no_unrelated(relation)
        names = [name for name in self.uuids if name != relation]
        if not names:
            raise InputError(problem)

        def draw() -> FactUuid:
            name = rng.choice(names)
            return FactUuid(name, rng.choice(self.uuids[name]))

        def usable(fact: FactUuid) -> bool:
            return not any(language.encoded(*fact).skipped for language in self.languages)

        return draw_usable(draw, usable, problem)


def _no_unrelated(relation: str) -> str:
    return f"relation {relation}: unrelated facts are needed, and no other relation has one to score"
