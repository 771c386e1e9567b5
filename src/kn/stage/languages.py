"""What the stages of the second paper begin with: facts in one or more languages, and one model for all of them.

    bash 9_run_amig.sh MODEL LANGUAGE …

Facts come in mLAMA's layout: one prompt per fact and language, under the same uuid in all languages. Never imports
torch before the command line and the data have been checked.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING

from kn.data import facts, mlama
from kn.neurons import located
from kn.neurons.located import KEPT_SHARE, THRESHOLD, THRESHOLDS, Located
from kn.stage import flags, setup
from kn.stage.flags import ModelArgs
from kn.stage.setup import World
from kn.store import result_files
from kn.store.files import InputError
from kn.store.workers import note

if TYPE_CHECKING:
    from kn.model.prompts import Encoded

UNUSED = ("P31", "P527")  # relations that the paper leaves out


@dataclass(frozen=True)
class LanguageArgs:
    """The values of the flags that `add_flags` and `add_threshold_flag` add, besides the model's."""

    mlama: str
    languages: list[str]
    thresholds: list[float]
    pt_relation: list[str]
    debug: int


def language_args(args: argparse.Namespace) -> LanguageArgs:
    return LanguageArgs(**{field.name: getattr(args, field.name) for field in fields(LanguageArgs)})


@dataclass
class Language:
    name: str
    threshold: float  # a share of the fact's highest score: its knowledge neurons are those above it
    facts: dict[str, dict[str, mlama.Fact]]  # by relation and uuid, cut to --debug
    world: World
    known: dict[tuple[str, str], Encoded] = field(default_factory=dict)

    def encoded(self, relation: str, uuid: str) -> Encoded:
        """The fact's prompt."""
        if (relation, uuid) not in self.known:
            self.known[relation, uuid] = self._encode(relation, uuid, None)
        return self.known[relation, uuid]

    def with_answer(self, relation: str, uuid: str, answer: str) -> Encoded:
        """The fact's prompt with another answer."""
        return self._encode(relation, uuid, answer)

    def located(self, output_dir: str, preset: str, relation: str) -> dict[str, Located]:
        """Stage 9's results for the relation's facts, by uuid."""
        path = result_files.located(output_dir, self.name, preset, relation)
        results = located.read(output_dir, self.name, preset, relation, self.world.settings)
        for uuid in self.facts[relation]:
            if uuid not in results:
                raise InputError(f"{path}: has no fact {uuid}: run stage 9 on these data, with the same --debug")
            neurons = [[layer, index] for layer, index, _ in results[uuid].neurons]
            self.world.check_neurons(neurons, f"{path}, fact {uuid}")
        return {uuid: results[uuid] for uuid in self.facts[relation]}

    def _encode(self, relation: str, uuid: str, answer: str | None) -> Encoded:
        ((text, own_answer, name),) = self.facts[relation][uuid].bag
        ((encoded,),) = self.world.encoder.facts([[[text, answer or own_answer, name]]])
        return encoded


def add_flags(parser: argparse.ArgumentParser) -> None:
    flags.add_model_flags(parser)
    flags.add_choice_flags(parser)
    parser.add_argument("--mlama", default="{MLAMA}", help="facts in mLAMA's layout: its zip, or a folder")
    parser.add_argument("--languages", nargs="+", required=True, metavar="en", help="as mLAMA calls its folders")
    parser.set_defaults(thresholds=[])


def add_threshold_flag(parser: argparse.ArgumentParser) -> None:
    """For the stages that choose a fact's knowledge neurons; stage 12 takes the pairs that stage 11 found."""
    parser.add_argument(
        "--thresholds",
        nargs="+",
        type=_share,
        default=[],
        metavar="SHARE",
        help="one per language: neurons with more than this share of the fact's highest score are its knowledge "
        f"neurons; none: {THRESHOLD}, and {THRESHOLDS['zh']} for zh",
    )


def _share(text: str) -> float:
    share = flags.number(text)
    if not KEPT_SHARE <= share < 1:
        kept = f"stage 9 does not keep all neurons below {KEPT_SHARE} of the highest score"
        raise argparse.ArgumentTypeError(f"expected at least {KEPT_SHARE} and less than 1, found {text} ({kept})")
    return share


def open_languages(
    model: ModelArgs,
    data: LanguageArgs,
    count: int | None = None,
    look_for: Callable[[list[str], list[str]], object] = lambda languages, relations: None,
) -> list[Language]:
    """The languages asked for; `count` is how many the stage needs, None any number.

    `look_for` is called with languages and relations before the model is loaded, to report missing input at once.
    """
    names = list(dict.fromkeys(data.languages))
    if count not in (None, len(names)):
        wanted = "one language" if count == 1 else f"{count} different languages"
        raise InputError(f"--languages {' '.join(data.languages)}: expected {wanted} (a relation is written P36)")
    thresholds = data.thresholds or [THRESHOLDS.get(name, THRESHOLD) for name in names]
    if len(thresholds) != len(names):
        raise InputError(f"--thresholds: {len(thresholds)} for {len(names)} languages ({' '.join(names)})")
    world = mlama.read(data.mlama, names)
    relations = _choose_relations(world, data)
    for name in names:
        if name.startswith("zh"):
            _note_traditional(name, [fact for relation in relations for fact in world.facts[name][relation].values()])
    look_for(names, relations)
    opened = setup.open_model(model, data.debug)
    first = None if data.debug < 0 else data.debug
    return [
        Language(
            name,
            threshold,
            {relation: dict(list(all_facts.items())[:first]) for relation, all_facts in world.facts[name].items()},
            World({relation: bags[:first] for relation, bags in world.bags(name).items()}, relations, opened),
        )
        for name, threshold in zip(names, thresholds, strict=True)
    ]


def _choose_relations(world: mlama.Mlama, data: LanguageArgs) -> list[str]:
    """The relations to work on. Notes what is left out."""
    relations = facts.choose_relations(world.bags(data.languages[0]), data.pt_relation)
    for line in world.left_out:
        note(f"left out: {line}")
    unused = [name for name in relations if name in UNUSED]
    if unused and not data.pt_relation:
        relations = [name for name in relations if name not in unused]
        note(f"left out, as in the paper: {' '.join(unused)}; name a relation to include it")
    if not relations:
        languages = " and ".join(dict.fromkeys(data.languages))
        raise InputError(f"{data.mlama}: has no relation to work on in {languages}")
    return relations


def _note_traditional(language: str, chinese: list[mlama.Fact]) -> None:
    count = sum(map(mlama.is_traditional, chinese))
    if count:
        note(
            f"{language}: {count} of {len(chinese)} facts have traditional characters, kept as they are; the paper's "
            "program converts them to simplified ones"
        )


def shared(languages: list[Language], relation: str) -> list[str]:
    """The facts (uuids) that all the languages have, in the order of the first."""
    first, *others = (language.facts[relation] for language in languages)
    return [uuid for uuid in first if all(uuid in other for other in others)]
