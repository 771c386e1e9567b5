"""Prints the relations of the data, one per line, in order.

    python src/relations.py --data_path data/PARAREL/data_all.json

Task i of an array job works on line i, counted from 0.
"""

from kn.store.start import guard

from kn.data import facts
from kn.stage import flags


def main() -> None:
    parser = flags.parser(__doc__)
    parser.add_argument("--data_path", default="{DATA}/PARAREL/data_all.json", help="all facts")
    for relation in facts.read_bags(parser.parse_args().data_path):
        print(relation)


if __name__ == "__main__":
    guard(main)
