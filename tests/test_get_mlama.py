"""Fetching mLAMA, one zip file."""

import hashlib
import re
import shutil
import zipfile

import pytest

from conftest import run
from kn.data import downloads
from webserver import error_of


@pytest.fixture
def get(tmp_path):
    """A function that runs the script, by default into `tmp_path/data`."""

    def call(*flags, data=tmp_path / "data", check=True):
        return run("0_get_data.py", "mlama", *flags, "--data_dir", data, check=check)

    return call


@pytest.fixture
def mlama(tmp_path, server):
    """The address of a zip file with two languages, and a folder with its contents."""
    folder = tmp_path / "mlama1.1"
    for language in ("en", "zh"):
        (folder / language).mkdir(parents=True)
        (folder / language / "templates.jsonl").write_text(f'{{"relation": "P19", "template": "{language}"}}\n' * 200)
        (folder / language / "P19.jsonl").write_text("{}\n")
    shutil.make_archive(str(tmp_path / "mlama"), "zip", tmp_path, "mlama1.1")
    server.files["mlama.zip"] = (tmp_path / "mlama.zip").read_bytes()
    return f"{server.url}/mlama.zip", folder


def contents(path):
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist() if not name.endswith("/")}


@pytest.mark.parametrize("fault", [None, "breaks off", "stalls"])
def test_mlama_is_fetched_once_and_its_checksum_printed(get, server, mlama, tmp_path, monkeypatch, fault):
    monkeypatch.setattr(downloads, "STALL", 0.2)
    server.faults = {"mlama.zip": [fault]}
    body = server.files["mlama.zip"]
    for _ in range(2):
        out = get("zh", "en", "--url", mlama[0]).stdout
        assert "2 languages" in out and hashlib.sha256(body).hexdigest() in out
    assert (tmp_path / "data" / "mlama1.1.zip").read_bytes() == body
    assert len(server.requests) == 1 + (fault is not None)
    assert "has no language fr; it has en zh" in error_of(get("fr", "--url", mlama[0], check=False))


def test_a_complete_download_of_mlama_only_needs_renaming(get, server, mlama, tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / ".mlama1.1.zip.unfinished").write_bytes(server.files["mlama.zip"])
    get("--url", mlama[0])
    assert contents(tmp_path / "data" / "mlama1.1.zip") == contents(tmp_path / "mlama.zip")
    assert len(server.requests) == 1


def test_mlama_from_a_local_copy(get, mlama, tmp_path):
    expected = contents(tmp_path / "mlama.zip")
    for number, source in enumerate((tmp_path / "mlama.zip", mlama[1], tmp_path)):
        data = tmp_path / "copies" / str(number)
        get("--from", source, data=data)
        assert contents(data / "mlama1.1.zip") == expected
    assert "none.zip: no such file" in error_of(get("--from", tmp_path / "none.zip", check=False))
    (tmp_path / "empty").mkdir()
    assert "has no <language>" in error_of(get("--from", tmp_path / "empty", check=False))


def test_a_damaged_or_encrypted_zip_of_mlama_is_refused(get, server, mlama, tmp_path):
    body = server.files["mlama.zip"]
    middle = body.index(b"templates.jsonl") + 30
    damaged = body[:middle] + bytes([body[middle] ^ 255]) + body[middle + 1 :]
    encrypted = body.replace(b"PK\x01\x02\x14\x03\x14\0\0", b"PK\x01\x02\x14\x03\x14\0\1")
    coloured = encrypted.replace(b"mlama1.1", b"\x1b[31mlam")
    for content, message in (
        (b"<html>", "is not a whole zip file"),
        (damaged, "damaged|not a whole zip file"),
        (encrypted, "in it is encrypted"),
        (coloured, r"\?\[31mlam/ in it is encrypted"),
    ):
        server.files["mlama.zip"] = content
        assert re.search(message, error_of(get("--url", mlama[0], check=False)))
    server.files["mlama.zip"] = body
    flags = ["--url", mlama[0], "--sha256"]
    assert "expected 0123" in error_of(get(*flags, "0123", check=False))
    assert [path.name for path in (tmp_path / "data").iterdir()] == [".0_get_data.lock"]
    get(*flags, hashlib.sha256(body).hexdigest().upper())
    assert (tmp_path / "data" / "mlama1.1.zip").read_bytes() == body
