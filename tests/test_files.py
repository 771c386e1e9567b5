"""Files are written whole or not at all, and errors name them."""

import io
import json
import os
import subprocess
import sys
import time

import pytest

from conftest import ROOT
from kn.store import files
from kn.store.files import InputError


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "value.json"
    files.write_json(path, {"old": 1})
    with pytest.raises(TypeError):
        files.write_json(path, {"new": object()})
    assert json.loads(path.read_text()) == {"old": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["value.json"]


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="file/results: can't create the folder"):
        files.make_folder(tmp_path / "file" / "results")
    if os.geteuid():  # root may write anywhere
        (tmp_path / "read-only").mkdir(mode=0o500)
        with pytest.raises(InputError, match="read-only"):
            files.make_folder(tmp_path / "read-only" / "results")


def test_unreadable_files_are_named(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        files.read_json(tmp_path / "none.json")
    with pytest.raises(InputError, match="can't be read"):
        files.read_json(tmp_path)
    (tmp_path / "bytes.json").write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match="not a UTF-8 text file"):
        files.read_json(tmp_path / "bytes.json")


@pytest.mark.parametrize(
    "name, text, location", [("a.json", '{"b": {"c": 1}}', "a.json"), ("a.jsonl", '\n{"b": {}}', "2")]
)
def test_a_missing_key_is_named_with_its_file(tmp_path, name, text, location):
    (tmp_path / name).write_text(text)
    value = files.read_json(tmp_path / name) if name == "a.json" else next(files.read_jsonl(tmp_path / name))
    assert value == json.loads(text) and json.dumps(value) == json.dumps(json.loads(text))
    with pytest.raises(InputError, match=f"{location}: expected 'other', found an object that has 'b'"):
        value["other"]
    with pytest.raises(KeyError):  # code that catches KeyError still works
        value["b"]["other"]


@pytest.mark.parametrize(
    "text, message",
    [
        ("[" * 2000, "brackets are nested too deeply"),
        ("[" * 2000 + "]" * 2000, "brackets are nested too deeply"),
        ("1" * 5000, "a number has too many digits"),
        ('{"a": 1, "b": {"c": 2, "c": 2}}', "an object has the key 'c' twice"),
        ('["\\ud800"]', r"a text has \ud800, which is half a character"),
        ('{"\\uDFFF": 1}', r"a text has \udfff, which is half a character"),
        ("[1, NaN]", "expected a number, found NaN"),
        ("-Infinity", "expected a number, found -Infinity"),
        ('{"a": [1, 2', "not valid JSON"),
        ("", "not valid JSON"),
    ],
)
def test_malformed_json_is_reported_in_one_line_with_its_location(tmp_path, text, message):
    (tmp_path / "a.json").write_text(text)
    (tmp_path / "a.jsonl").write_text(f"1\n{text or '?'}\n")
    with pytest.raises(InputError) as whole:
        files.read_json(tmp_path / "a.json")
    with pytest.raises(InputError) as line:
        list(files.read_jsonl(tmp_path / "a.jsonl"))
    assert str(whole.value).startswith(f"{tmp_path}/a.json") and message in str(whole.value)
    assert str(line.value).startswith(f"{tmp_path}/a.jsonl, line 2: ") and message in str(line.value)
    assert "\n" not in str(whole.value) + str(line.value)


def test_surrogate_pairs_are_read_as_one_character(tmp_path):
    (tmp_path / "a.json").write_text(json.dumps("\U0001f600 \\ud800"))
    assert files.read_json(tmp_path / "a.json") == "\U0001f600 \\ud800"


def test_the_next_run_removes_unfinished_files_of_killed_runs(tmp_path):
    """But not a file that another process is writing, nor a download that can be resumed."""
    program = (
        "import os, signal, sys; from kn.store.files import writing\n"
        "with writing(sys.argv[1]) as file:\n"
        "    file.write('half'); file.flush(); print('there', flush=True); signal.pause()\n"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    command = [sys.executable, "-c", program, str(tmp_path / "a.json")]
    killed, alive = (subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) for _ in range(2))
    assert killed.stdout.readline() == alive.stdout.readline() == b"there\n"
    killed.kill()
    killed.wait()
    (tmp_path / ".mlama1.1.zip.unfinished").write_text("half")
    files.write_json(tmp_path / "b.json", 1)
    (unfinished,) = tmp_path.glob(".a.json.*.unfinished")
    assert f".{alive.pid}." in unfinished.name and (tmp_path / ".mlama1.1.zip.unfinished").exists()
    alive.kill()
    alive.wait()


def test_a_long_message_is_shortened_in_the_middle():
    message = str(InputError(f"data.json: expected a number, found {'x' * 5000}: delete it"))
    assert len(message) < 1100
    assert message.startswith("data.json: expected") and message.endswith("xxx: delete it")


def test_a_file_with_a_list_instead_of_an_object_is_named(tmp_path):
    (tmp_path / "a.json").write_text("[1]")
    with pytest.raises(InputError, match=r"a.json: expected an object, found \[1\]"):
        files.read_object(tmp_path / "a.json")


def test_writing_large_values_is_much_faster_than_json_dump(tmp_path):
    """json.dump writes piece by piece and takes ten times as long as json.dumps: minutes for large data."""
    value, expected = [["text", 1.5, {"key": index}] for index in range(100_000)], io.StringIO()
    start = time.process_time()
    json.dump(value, expected)
    slow_seconds = time.process_time() - start
    start = time.process_time()
    files.write_json(tmp_path / "large.json", value, indent=None)
    assert time.process_time() - start < slow_seconds / 2
    assert (tmp_path / "large.json").read_text() == expected.getvalue() + "\n"


def test_an_error_is_one_line_without_control_characters():
    assert str(files.InputError("a\nb\x1b[31mc\ud800 \u00e9")) == "a b?[31mc? \u00e9"
    assert str(files.MissingKey("x: 'y'\r")) == "x: 'y'"
