"""Groups of prompts to compare the prompts of a fact with: as many, but with less in common. Never imports torch."""

import random
from collections import defaultdict
from typing import NamedTuple

import numpy as np

from kn.neurons.attributed import STRIDE, Attributed

OWN = "the same fact"
SAME_TEMPLATE = "other facts, the same template"
SAME_RELATION = "other facts, other templates"
OTHER_RELATIONS = "other relations"
RANDOM = "random neurons in the same layers"
KINDS = (OWN, SAME_TEMPLATE, SAME_RELATION, OTHER_RELATIONS, RANDOM)  # in each, the prompts are of different facts

Relations = dict[str, list[list[Attributed]]]  # by relation, the prompts of each fact


class _Asked(NamedTuple):
    fact: int
    prompt: Attributed


class Groups:
    """Draws groups. The prompts with the same number ask with the same template."""

    def __init__(self, relations: Relations, width: int):
        self.relations, self.width = relations, width
        self.prompts = {  # of each relation
            name: [_Asked(fact, prompt) for fact, prompts in enumerate(facts) for prompt in prompts]
            for name, facts in relations.items()
        }
        self.by_template: dict[tuple[str, int], list[_Asked]] = defaultdict(list)
        for name, prompts in self.prompts.items():
            for asked in prompts:
                self.by_template[name, asked.prompt.template].append(asked)

    def of_fact(self, relation: str, fact: int, rng: random.Random) -> dict[str, list[Attributed]]:
        """A group of each kind, which includes one of the fact's prompts. Empty where there are not enough facts."""
        own = rng.sample(self.relations[relation][fact], len(self.relations[relation][fact]))
        first, *others = own
        same_template = [self.by_template[relation, first.template]] * len(others)
        same_relation = [self.by_template[relation, prompt.template] for prompt in others]
        names = [name for name in self.relations if name != relation and self.prompts[name]]
        elsewhere = [self.prompts[rng.choice(names)] for _ in others] if names else []
        return {
            OWN: own,
            SAME_TEMPLATE: self._one_of_each(first, fact, same_template, rng),
            SAME_RELATION: self._one_of_each(first, fact, same_relation, rng),
            OTHER_RELATIONS: [first, *(rng.choice(prompts).prompt for prompts in elsewhere)] if names else [],
            RANDOM: [self._random_like(prompt, rng) for prompt in own],
        }

    def _one_of_each(
        self, first: Attributed, fact: int, pools: list[list[_Asked]], rng: random.Random
    ) -> list[Attributed]:
        """A prompt of another fact from each pool."""
        group, used = [first], {fact}
        for pool in pools:
            drawn = rng.sample(pool, min(len(pool), len(used) + 1))
            unused = [asked for asked in drawn if asked.fact not in used]
            if not unused:
                return []
            group.append(unused[0].prompt)
            used.add(unused[0].fact)
        return group

    def _random_like(self, prompt: Attributed, rng: random.Random) -> Attributed:
        """Other neurons in the same layers with the same scores."""
        layers, counts = np.unique(prompt.neurons // STRIDE, return_counts=True)
        drawn = [
            layer * STRIDE + index
            for layer, count in zip(layers.tolist(), counts.tolist(), strict=True)
            for index in rng.sample(range(self.width), count)
        ]
        return prompt._replace(neurons=np.array(drawn, np.int64))
