"""Builds the files the stages read from templates, relation labels and subject-object pairs.

    python src/0_build_data.py --data_dir data

reads   PARAREL/raw_data/patterns/P101.jsonl …  LAMA/raw_data/relations.jsonl  PARAREL/query_pairs.json
writes  PARAREL/data_all.json  data_all_allbags.json  data_11.json  data_n1.json  data_nm.json, and query_pairs.json
"""

import argparse

from kn import facts, runs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--data_dir", default="data", help="the folder that holds PARAREL and LAMA (default: %(default)s)"
    )
    parser.add_argument(
        "--pairs",
        metavar="PATH",
        help="a query_pairs.json, or a folder of LAMA's T-REx files (default: the data folder's PARAREL/query_pairs.json)",
    )
    flags = parser.parse_args()
    bags = facts.build(flags.data_dir, flags.pairs)
    count = sum(map(len, bags.values()))
    prompts = sum(len(bag) for of_relation in bags.values() for bag in of_relation)
    print(f"{flags.data_dir}: {len(bags)} relations, {count:,} facts, {prompts:,} prompts")


if __name__ == "__main__":
    runs.guard(main)
