"""What the stages of the second paper begin with: the facts of one or several languages, and one model for all.

    bash 9_run_amig.sh MODEL LANGUAGE …

Facts come in mLAMA's layout. A fact has one prompt in each language, and the same uuid in all.
"""

from __future__ import annotations

import argparse
import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from kn.data import facts, mlama
from kn.data.facts import Bags
from kn.neurons import located
from kn.neurons.located import KEPT_SHARE, THRESHOLD, THRESHOLDS, Located
from kn.stage import flags, setup
from kn.stage.setup import World
from kn.store.files import InputError
from kn.store.workers import note

if TYPE_CHECKING:
    from kn.model.prompts import Encoded

UNUSED = ("P31", "P527")  # relations of mLAMA that the paper leaves out


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

    def located(self, output_dir: str, preset: str, relation: str) -> dict[str, Located]:
        """By uuid what stage 9 found of the relation's facts, with this model."""
        found = located.read(output_dir, self.name, preset, relation, self.world.settings)
        path = located.path(output_dir, self.name, preset, relation)
        for uuid in self.facts[relation]:
            if uuid not in found:
                raise InputError(f"{path}: has no fact {uuid}: run stage 9 on these data, with the same --debug")
            neurons = [[layer, index] for layer, index, _ in found[uuid].neurons]
            self.world.check_neurons(neurons, f"{path}, fact {uuid}")
        return {uuid: found[uuid] for uuid in self.facts[relation]}


def add_flags(parser: argparse.ArgumentParser) -> None:
    flags.add_model_flags(parser)
    flags.add_choice_flags(parser)
    parser.add_argument("--mlama", default="{MLAMA}", help="facts in mLAMA's layout: its zip, or a folder")
    parser.add_argument("--languages", nargs="+", required=True, metavar="en", help="as mLAMA calls its folders")
    parser.set_defaults(thresholds=[])


def add_threshold_flag(parser: argparse.ArgumentParser) -> None:
    """For the stages that ask which neurons are a fact's; stage 12 takes the pairs that stage 11 found."""
    parser.add_argument(
        "--thresholds",
        nargs="+",
        type=_share,
        default=[],
        metavar="SHARE",
        help="one a language: neurons with more than this share of the fact's highest score are its knowledge neurons; "
        f"none: {THRESHOLD}, and {THRESHOLDS['zh']} for zh",
    )


def _share(text: str) -> float:
    share = flags.number(text)
    if not KEPT_SHARE <= share < 1:
        kept = f"stage 9 keeps the neurons from {KEPT_SHARE} of the highest score up"
        raise argparse.ArgumentTypeError(f"expected a share from {KEPT_SHARE} to below 1, found {text} ({kept})")
    return share


def open_languages(args: argparse.Namespace, count: int | None = None) -> list[Language]:
    """The languages asked for; `count` is how many the stage needs, None any number."""
    names = list(dict.fromkeys(args.languages))
    if count not in (None, len(names)):
        wanted = "one language" if count == 1 else f"{count} different languages"
        raise InputError(f"--languages {' '.join(args.languages)}: expected {wanted} (a relation is written P36)")
    thresholds = args.thresholds or [THRESHOLDS.get(name, THRESHOLD) for name in names]
    if len(thresholds) != len(names):
        raise InputError(f"--thresholds: {len(thresholds)} for {len(names)} languages ({' '.join(names)})")
    found = mlama.read(args.mlama, names)
    bags: Bags = found.bags(names[0])
    relations = facts.choose_relations(bags, args.pt_relation)
    for line in found.left_out:
        note(f"left out: {line}")
    if not args.pt_relation and (unused := [name for name in relations if name in UNUSED]):
        relations = [name for name in relations if name not in unused]
        note(f"left out, as in the paper: {' '.join(unused)}; name a relation to include it")
    if not relations:
        raise InputError(f"{args.mlama}: has no relation to work on in {' and '.join(names)}")
    for name in names:
        every = [fact for relation in relations for fact in found.facts[name][relation].values()]
        if name.startswith("zh") and (some := sum(map(mlama.is_traditional, every))):
            converted = "kept as they are; the paper's program converts them to simplified ones"
            note(f"{name}: {some} of {len(every)} facts have traditional characters, {converted}")
    opened = setup.open_model(flags.model_args(args), args.debug)
    first = None if args.debug < 0 else args.debug
    return [
        Language(
            name,
            threshold,
            {relation: dict(list(of.items())[:first]) for relation, of in found.facts[name].items()},
            World({relation: of[:first] for relation, of in found.bags(name).items()}, relations, opened),
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
        # Without the unused ones even if they are named, so that a draw does not depend on what else is asked for.
        used = [name for name in languages[0].facts if name not in UNUSED]
        self.pools = {name: found for name in used if (found := shared(languages, name))}

    def draw(self, relation: str, rng: random.Random) -> list[str]:
        """`[relation, uuid]`"""
        names = [name for name in self.pools if name != relation]
        for _ in range(1000 if names else 0):
            name = rng.choice(names)
            uuid = rng.choice(self.pools[name])
            if not any(language.encoded(name, uuid).skipped for language in self.languages):
                return [name, uuid]
        raise InputError(f"relation {relation}: unrelated facts are needed, and no other relation has one to score")
