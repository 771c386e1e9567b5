"""Makes the other files of data/sample from its templates, pairs and sentence frames.

    PYTHONPATH=src .venv/bin/python tools/make_sample_data.py

The facts are real and well known; the "crawled" sentences are frames filled with their subjects and objects.
"""

from kn.store.start import guard

import random
from pathlib import Path

from kn.data import facts, layout
from kn.stage import flags
from kn.store.files import read_json, write_json

SAMPLE = Path(__file__).resolve().parent.parent / "data" / "sample"
SENTENCES = 5  # per fact and kind


def main() -> None:
    flags.parser(__doc__).parse_args()
    bags = layout.build(SAMPLE)
    for relation, pairs in facts.read_pairs(SAMPLE / "PARAREL" / "query_pairs.json").items():
        frames = read_json(SAMPLE / "frames" / f"{relation}.json")
        texts = []
        for number, (subject, answer) in enumerate(pairs):
            rng = random.Random(f"{relation} {number}")
            with_object = rng.sample(frames["subject and object"], SENTENCES)
            without = rng.sample(frames["subject only"], SENTENCES)
            texts.append(
                {
                    "th_bags": [frame.replace("[Y]", answer).replace("[X]", subject) for frame in with_object],
                    "h_bags": [frame.replace("[X]", subject) for frame in without],
                }
            )
        write_json(SAMPLE / "BingDistantTREx" / "final" / f"final_distant_allbags_{relation}_new.json", texts)
    print(f"{SAMPLE}: {len(bags)} relations, {sum(map(len, bags.values()))} facts")


if __name__ == "__main__":
    guard(main)
