"""Makes data/sample/mlama: the facts of the sample world in English and Chinese, in mLAMA's layout.

    PYTHONPATH=src .venv/bin/python tools/make_bilingual_data.py

reads   data/sample/bilingual/labels.json: the Chinese names of subjects and objects;  texts.json: templates
        data/sample/PARAREL/query_pairs.json: the facts
writes  data/sample/mlama/en and zh: templates.jsonl, P19.jsonl …
"""

from kn.store.start import guard

import json
import uuid
from pathlib import Path

from kn.data.facts import read_pairs
from kn.stage import flags
from kn.store.files import read_json, writing

SAMPLE = Path(__file__).resolve().parent.parent / "data" / "sample"
NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, "the sample world")  # makes the same ids every time


def main() -> None:
    flags.parser(__doc__).parse_args()
    texts, chinese = (read_json(SAMPLE / "bilingual" / name) for name in ("texts.json", "labels.json"))
    pairs = read_pairs(SAMPLE / "PARAREL" / "query_pairs.json")
    for language in ("en", "zh"):
        folder = SAMPLE / "mlama" / language
        write_jsonl(
            folder / "templates.jsonl",
            [{"relation": name, "template": text["mlama"][language]} for name, text in texts.items()],
        )
        for name in texts:
            entries = []
            for number, (subject, answer) in enumerate(pairs[name]):
                in_chinese = language == "zh"
                entries.append(
                    {
                        # The real data have Wikidata's ids here.
                        "sub_uri": f"sample:{subject}",
                        "obj_uri": f"sample:{answer}",
                        "sub_label": chinese[subject] if in_chinese else subject,
                        "obj_label": chinese[answer] if in_chinese else answer,
                        "lineid": number,
                        "uuid": str(uuid.uuid5(NAMESPACE, f"{name} {subject}")),
                    }
                )
            write_jsonl(folder / f"{name}.jsonl", entries)
    print(f"{SAMPLE / 'mlama'}: {len(texts)} relations, {sum(len(pairs[name]) for name in texts)} facts")


def write_jsonl(path: Path, entries: list[dict]) -> None:
    with writing(path) as file:
        file.writelines(json.dumps(entry, ensure_ascii=False) + "\n" for entry in entries)


if __name__ == "__main__":
    guard(main)
