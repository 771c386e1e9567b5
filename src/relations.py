"""The relations of the data, one a line and in order.

    python src/relations.py data/PARAREL/data_all.json

Task i of an array job works on line i, counted from 0.
"""

import argparse

from kn import facts, runs


def main() -> None:
    # Not with kn.flags: that would load PyTorch, and take seconds.
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data_path", nargs="?", default="data/PARAREL/data_all.json", help="all facts")
    print(*facts.read_bags(parser.parse_args().data_path), sep="\n")


if __name__ == "__main__":
    runs.guard(main)
