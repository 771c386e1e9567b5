"""The relations of the data, one a line and in order.

    python src/relations.py --data_path data/PARAREL/data_all.json

Task i of an array job works on line i, counted from 0.
"""

from kn.store.start import guard

from kn.data import facts
from kn.stage import flags


def main() -> None:
    parser = flags.parser(__doc__)
    parser.add_argument("--data_path", default="{DATA}/PARAREL/data_all.json", help="all facts")
    print(*facts.read_bags(parser.parse_args().data_path), sep="\n")


if __name__ == "__main__":
    guard(main)
