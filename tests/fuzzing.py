"""Random edits of files: of their bytes, of the values in their JSON, and of the ways to write the same JSON."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from random import Random

# Placeholders for JSON text that Python's json would not write.
RAW = {
    f"@raw {index}": text
    for index, text in enumerate(
        [
            *("NaN", "Infinity", "-Infinity", "1e999", "1" * 5000, "-0", "1e5", '{"a": 1, "a": 2}'),
            *("[" * depth + "]" * depth for depth in (60, 2000)),
        ]
    )
}
VALUES = [
    *(None, True, False, -1, 0, 1, 2, 7, 999, 10**12, 10**30, -(10**30), 1.0, 0.5, -0.5, 1e-40, 1e300),
    *(
        "",
        " ",
        "x",
        "1",
        "[MASK]",
        "[MASK] [MASK]",
        "../../../x",
        "P36",
        "nan",
        "a\nb",
        "\0",
        "\ud800",
        "☃",
        "x" * 3000,
    ),
    *([], {}, [None], [[]], [{}], [[0, 0]], [[0, 0, 1.0]], {"a": 1}),
    *RAW,
]
BYTES = [b"\0", b"\xff", b"\n", b" ", b"{", b"}", b"[", b"]", b",", b'"', b"\\", b"-", b"9", b".", b"e", b"\xc3", b"a"]


def dump(value) -> str:
    """The value as JSON, with the placeholders replaced by what they stand for."""
    text = json.dumps(value)
    for name, raw in RAW.items():
        text = text.replace(json.dumps(name), raw)
    return text


def random_path(value, rng: Random) -> tuple:
    """The path to a random part of a value: one step at a time, with a chance to stop at each."""
    path = ()
    while isinstance(value, dict | list) and value and rng.random() < 0.8:
        key = rng.choice(list(value)) if isinstance(value, dict) else rng.randrange(len(value))
        path, value = (*path, key), value[key]
    return path


def at(value, path: tuple):
    """The part of a value at a path."""
    for key in path:
        value = value[key]
    return value


def put(value, path: tuple, new):
    """A copy of the value with another part at the path."""
    if not path:
        return new
    changed = copy.deepcopy(value)
    at(changed, path[:-1])[path[-1]] = new
    return changed


def _replacement(value, rng: Random):
    """A random value, or one similar to this one."""
    if isinstance(value, bool) or value is None or rng.random() < 0.5:
        return rng.choice(VALUES)
    if isinstance(value, int | float):
        similar = [value + 1, value - 1, -value, float(value), str(value), value * 10, value * 1.001, [value]]
        return rng.choice(similar)
    if isinstance(value, str):
        similar = [
            value + "x",
            value[1:],
            value.upper(),
            value[::-1],
            f" {value}",
            f"{value}\u0301",
            [value],
            {value: value},
        ]
        return rng.choice(similar)
    if isinstance(value, dict):
        keys = list(value)
        rng.shuffle(keys)
        return rng.choice([{key: value[key] for key in keys}, list(value.values()), list(value), keys])
    shuffled = rng.sample(value, len(value))
    similar = [
        shuffled,
        value[1:],
        value[:-1],
        value + value,
        value + value[:1],
        [value],
        dict(enumerate(value)),
        value[::-1],
    ]
    return rng.choice(similar)


def edit_value(value, rng: Random):
    """A copy of the value with one part changed at random, and a description of the change."""
    path = random_path(value, rng)
    part, parent = at(value, path), at(value, path[:-1])
    how = rng.choice(["replace", "replace", "replace", "remove", "double", "rename", "swap"])
    if path and how == "remove":
        changed = copy.deepcopy(value)
        del at(changed, path[:-1])[path[-1]]
    elif path and how == "double" and isinstance(parent, list):
        changed = put(value, path[:-1], [*parent[: path[-1]], part, *parent[path[-1] :]])
    elif path and how == "rename" and isinstance(parent, dict):
        name = rng.choice([f"{path[-1]}x", "", "../x", path[-1].upper(), "P36", "\ud800"])
        changed = put(value, path[:-1], {name if key == path[-1] else key: entry for key, entry in parent.items()})
    elif path and how == "swap" and isinstance(parent, list):
        other = rng.randrange(len(parent))
        changed = put(put(value, path, parent[other]), (*path[:-1], other), part)
    else:
        how, new = "replace", _replacement(part, rng)
        changed = put(value, path, new)
        return changed, f"{list(path)} = {new!r}"[:300]
    return changed, f"{how} {list(path)}"


def edit_json(path: Path, rng: Random) -> str:
    """Edit a file of JSON or JSON lines. Return a description of the edit."""
    text = path.read_text(encoding="utf-8")
    if path.suffix != ".jsonl":
        changed, description = edit_value(json.loads(text), rng)
        new = dump(changed)
    else:
        lines = text.splitlines()
        index = rng.randrange(len(lines))
        changed, description = edit_value(json.loads(lines[index]), rng)
        lines[index] = dump(changed)
        new, description = "".join(f"{line}\n" for line in lines), f"line {index + 1}: {description}"
    path.write_bytes(new.encode("utf-8", "surrogatepass"))
    return description


def edit_lines(path: Path, rng: Random) -> str:
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    index, how = rng.randrange(len(lines)), rng.choice(["remove", "double", "empty", "junk", "swap"])
    other = rng.randrange(len(lines))
    if how == "swap":
        lines[index], lines[other] = lines[other], lines[index]
    else:
        lines[index : index + 1] = {
            "remove": [],
            "double": [lines[index]] * 2,
            "empty": [lines[index], "\n"],
            "junk": [lines[index], "junk\n"],
        }[how]
    path.write_text("".join(lines), encoding="utf-8")
    return f"{how} line {index + 1}"


def edit_bytes(path: Path, rng: Random) -> str:
    content = path.read_bytes()
    start = rng.randrange(len(content) + 1)
    length = min(rng.choice([1, 1, 1, 20, len(content)]), len(content) - start)
    how = rng.choice(
        ["truncate", "remove", "insert", "overwrite", "double", "empty", "mark", "utf-16", "folder", "gone"]
    )
    piece = rng.choice(BYTES)
    if how == "folder":
        path.unlink()
        path.mkdir()
    elif how == "gone":
        path.unlink()
    else:
        new = {
            "truncate": content[:start],
            "remove": content[:start] + content[start + length :],
            "insert": content[:start] + piece + content[start:],
            "overwrite": content[:start] + piece + content[start + 1 :],
            "double": content[: start + length] + content[start:],
            "empty": b"",
            "mark": b"\xef\xbb\xbf" + content,
            "utf-16": content.decode("latin-1").encode("utf-16"),
        }[how]
        path.write_bytes(new)
    return f"{how} at byte {start}, {piece!r}, {length}"


def add(path: Path, key: str, rng: Random) -> str:
    """Add an entry with a random value to a JSON object."""
    value = rng.choice(VALUES)
    text = dump(json.loads(path.read_text(encoding="utf-8")) | {key: value})
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    return f"{key} = {value!r}"[:300]


def same_json(path: Path, rng: Random) -> str:
    """Write the same JSON with other spaces, line ends or escapes."""
    text = path.read_text(encoding="utf-8")
    how = rng.choice([{"indent": 3}, {"ensure_ascii": False}, {"separators": (" ,\t", "\r: ")}, {}])
    if path.suffix == ".jsonl":
        how = {key: value for key, value in how.items() if key != "indent"} | {"separators": (" ,\t", " : ")}
        new = "\r\n".join(json.dumps(json.loads(line), **how) + " \n" for line in text.splitlines())
    else:
        new = json.dumps(json.loads(text), **how) + rng.choice(["", "\n\n", " "])
    path.write_text(new, encoding="utf-8")
    return f"the same, {how}"


Edit = Callable[[Path, Random], str]
EDITS: dict[str, Edit] = {"JSON": edit_json, "bytes": edit_bytes, "lines": edit_lines, "same": same_json}


def edit(path: Path, rng: Random) -> tuple[str, str]:
    """Edit a file at random. Return the kind of edit and a description."""
    kinds = ["bytes"]
    if path.suffix in (".json", ".jsonl"):
        kinds += ["JSON"] * 5 + ["same"]
    if path.suffix in (".jsonl", ".txt"):
        kinds.append("lines")
    kind = rng.choice(kinds)
    return kind, EDITS[kind](path, rng)
