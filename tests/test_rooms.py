"""A room (subpackage) of `kn` imports only from rooms above it on the map. Rooms without torch never import it."""

import ast
import os
import re
import subprocess
import sys

import pytest

import kn
from conftest import ROOT

KN = ROOT / "src" / "kn"
ROWS = dict(re.findall(r"^    (\w+) +(\S.*)$", kn.__doc__, re.M))
ORDER = list(ROWS)
WITHOUT_TORCH = [room for room, description in ROWS.items() if description.endswith("no torch")]
MODULES = sorted(path for path in KN.rglob("*.py") if path != KN / "__init__.py")


def room_of(path):
    return path.relative_to(KN).parts[0].removesuffix(".py")


def imports(path):
    """The modules of `kn` that a module imports, each as its parts: ["store", "files"]."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "kn":
            parts = node.module.split(".")[1:]
            yield from ([*parts, name.name] for name in node.names)
        elif isinstance(node, ast.Import):
            yield from (name.name.split(".")[1:] for name in node.names if name.name.startswith("kn."))


def test_the_map_names_every_room():
    assert {room_of(path) for path in MODULES} == set(ORDER)
    assert len(WITHOUT_TORCH) == 8


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(KN)))
def test_a_module_imports_only_from_rooms_above(path):
    for parts in imports(path):
        assert ORDER.index(parts[0]) <= ORDER.index(room_of(path)), ".".join(parts)


def test_no_import_cycles():
    graph = {}
    for path in MODULES:
        name = tuple(path.relative_to(KN).with_suffix("").parts)
        graph[name] = {tuple(parts[:2]) if parts[0] != "text" else ("text",) for parts in imports(path)} - {name}
    visited = set()

    def visit(name, importers):
        assert name not in importers, " -> ".join(map(".".join, [*importers, name]))
        if name not in visited:
            for imported in graph.get(name, ()):
                visit(imported, [*importers, name])
            visited.add(name)

    for name in graph:
        visit(name, [])


def test_rooms_without_torch_do_not_import_it():
    modules = [
        ".".join(("kn", *path.relative_to(KN).with_suffix("").parts))
        for path in MODULES
        if room_of(path) in (*WITHOUT_TORCH, "text") and path.stem != "__init__"
    ]
    code = "".join(f"import {name}\n" for name in modules) + "import sys\nassert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": str(ROOT / "src")})
    assert done.returncode == 0


SCRIPTS = sorted(path.stem for path in (ROOT / "src").glob("*.py"))


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_and_wrong_flags_are_answered_without_torch(script):
    """Importing torch takes seconds."""
    code = "import runpy, sys; sys.modules['torch'] = None; runpy.run_path(sys.argv[1], run_name='__main__')"
    path = str(ROOT / "src" / f"{script}.py")
    for flag, status in (("--help", 0), ("--no_such_flag", 2)):
        done = subprocess.run(
            [sys.executable, "-c", code.replace("sys.argv[1]", f"{path!r}"), flag],
            env=os.environ | {"PYTHONPATH": str(ROOT / "src")},
            capture_output=True,
        )
        assert done.returncode == status, done.stderr
