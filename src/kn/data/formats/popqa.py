"""PopQA: `popQA.tsv`, one question per fact.

subj  prop           obj     question                         possible_answers …
Ada   field of work  optics  What is Ada's field of work?     ["optics", "light"]
"""

import csv
from collections.abc import Iterator

from kn.data.conversion import Collector, Fact, name_of, question
from kn.data.formats.format import Format
from kn.data.trees import File, Tree
from kn.store.files import InputError, reading

COLUMNS = ("subj", "prop", "obj", "question")


def read(tree: Tree, collected: Collector) -> None:
    for row, place in rows(tree.one("popQA*.tsv", "*.tsv")):
        relation = name_of(row["prop"])
        collected.relation(relation, row["prop"], place)
        collected.add(relation, Fact(row["subj"], row["obj"], [question(row["question"])], place))


def rows(file: File) -> Iterator[tuple[dict[str, str], str]]:
    with reading(file) as text:
        table = csv.DictReader(text, delimiter="\t")
        try:
            for row in table:
                place = f"{file}, line {table.line_num}"
                for column in COLUMNS:
                    if not isinstance(row.get(column), str):
                        found = ", ".join(str(name) for name in row if name and row[name] is not None)
                        raise InputError(f"{place}: expected the column {column!r}, found {found}")
                yield row, place
        except csv.Error as error:
            raise InputError(f"{file}, line {table.line_num + 1}: {error}") from None


FORMAT = Format(
    name="popqa",
    title="PopQA (Mallen et al. 2023)",
    licence="MIT, its repository's, as far as we know",
    origin="popQA.tsv in github.com/AlexTMallen/adaptive-retrieval",
    read=read,
)
