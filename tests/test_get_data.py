"""Fetching the sample world from a server that breaks off, stalls, sends wrong bytes or can't be reached."""

import hashlib
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import time

import pytest

from conftest import ROOT, run
from kn.data import downloads
from kn.store import runs
from webserver import Server, error_of

SAMPLE = ROOT / "data" / "sample"
FETCHED = sorted(
    str(path.relative_to(SAMPLE))
    for pattern in ("PARAREL/raw_data/patterns/*", "LAMA/raw_data/*", "*/query_pairs.json", "BingDistantTREx/final/*")
    for path in SAMPLE.glob(pattern)
)
BUILT = [f"PARAREL/data_{kind}.json" for kind in ("all", "all_allbags", "11", "n1", "nm")]
CRAWLED = "BingDistantTREx/final/final_distant_allbags_P19_new.json"


@pytest.fixture
def checksums(tmp_path, server):
    server.files = {path: (SAMPLE / path).read_bytes() for path in FETCHED}
    path = tmp_path / "checksums.txt"
    path.write_text(
        "".join(f"{hashlib.sha256(body).hexdigest()}  {len(body)}  {name}\n" for name, body in server.files.items())
    )
    return path


@pytest.fixture
def get(tmp_path, checksums, server):
    """A function that runs the script, by default into `tmp_path/data` and from the server."""

    def call(*flags, data=tmp_path / "data", check=True):
        origin = () if {"--from", "--url"} & set(flags) else ("--url", server.url)
        done = run("0_get_data.py", *("--data_dir", data, "--checksums", checksums), *flags, *origin, check=check)
        assert "Traceback" not in done.stderr
        return done

    return call


def is_complete(data):
    """Whether the folder has all files, with the right bytes, and no others."""
    for path in (*FETCHED, *BUILT):
        assert (data / path).read_bytes() == (SAMPLE / path).read_bytes(), path
    names = {str(path.relative_to(data)) for path in data.rglob("*") if path.is_file()}
    assert names - {".0_get_data.lock"} == {*FETCHED, *BUILT}
    return True


def is_sound(data):
    """Whether all files with a final name have the right bytes, even if some are missing."""
    for path in data.rglob("[!.]*"):
        assert path.is_dir() or path.read_bytes() == (SAMPLE / path.relative_to(data)).read_bytes(), path
    return True


def test_files_are_fetched_and_checked_and_the_data_built_once(get, server, tmp_path):
    assert "14 relations, 900 facts" in get().stdout
    assert is_complete(tmp_path / "data")
    assert sorted(server.requests) == [(path, None) for path in FETCHED]
    before = {path: (tmp_path / "data" / path).stat().st_mtime_ns for path in FETCHED}
    get()
    assert len(server.requests) == len(FETCHED)
    assert before == {path: (tmp_path / "data" / path).stat().st_mtime_ns for path in FETCHED}


@pytest.mark.parametrize("ranges", [True, False])
@pytest.mark.parametrize("faults", [["breaks off"] * 3, ["stalls"], [503, "breaks off", 429], ["no length"]])
def test_passing_faults_are_retried_until_the_data_are_complete(get, server, tmp_path, monkeypatch, ranges, faults):
    monkeypatch.setattr(downloads, "STALL", 0.2)
    server.ranges = ranges
    server.faults = {CRAWLED: list(faults), "PARAREL/query_pairs.json": list(faults)}
    get()
    assert is_complete(tmp_path / "data")
    size = len(server.files[CRAWLED])
    if ranges and faults == ["breaks off"] * 3:  # each response is half of the rest
        assert server.requested_ranges(CRAWLED)[:3] == [
            None,
            f"bytes={size // 2}-",
            f"bytes={(size // 2 + size) // 2}-",
        ]


@pytest.mark.parametrize(
    "fault, message",
    [
        ("breaks off", r"broke off at [\d,]+ of [\d,]+ bytes"),
        ("stalls", "nothing came for 0.1 seconds"),
        (503, "HTTP 503 Service Unavailable"),
        (404, "HTTP 404 Not Found"),
        ("wrong bytes", "is another file: its SHA-256 is [0-9a-f]{64}, expected [0-9a-f]{64}"),
        ("too long", r"has [\d,]+ bytes, expected [\d,]+"),
    ],
)
def test_lasting_faults_end_with_one_line_and_the_next_run_resumes(get, server, tmp_path, monkeypatch, fault, message):
    monkeypatch.setattr(downloads, "STALL", 0.1)
    server.ranges = False  # so that no attempt gets further than the one before
    server.faults = {CRAWLED: [fault] * 9}
    error = error_of(get(check=False))
    assert re.search(f"{server.url}/{CRAWLED}: {message}.*--from", error)
    data = tmp_path / "data"
    assert is_sound(data) and not (data / CRAWLED).exists() and not (data / "PARAREL" / "data_all.json").exists()
    unfinished = list((data / CRAWLED).parent.glob(f".{(data / CRAWLED).name}*"))
    assert len(unfinished) == (fault in ("breaks off", "stalls"))

    monkeypatch.setattr(downloads, "STALL", 5)
    server.ranges, server.faults, server.requests = True, {}, []
    get()
    assert is_complete(data)
    assert server.requested_ranges(CRAWLED) == [f"bytes={len(server.files[CRAWLED]) // 2}-" if unfinished else None]


@pytest.mark.parametrize(
    "response, message",
    [
        (("302 Found", "ftp://127.0.0.1:9/x"), "redirects to ftp://127.0.0.1:9/x, expected http://… or https://…"),
        (("302 Found", "/" + CRAWLED), "HTTP 302 The HTTP server returned a redirect error that would lead to an inf"),
        (("302 Found", "http://127.0.0.1:x/"), "is no address on the network, or redirects to one that isn't"),
        (("302 Found", f"http://{'a' * 70}/"), "is no address on the network, or redirects to one that isn't"),
        (("404 \x1b]0;title\x07\x1b[31mred\x08", ""), "HTTP 404 ?]0;title??[31mred?"),
        (("404 " + "x" * 9000, ""), f"HTTP 404 {'x' * 200}."),
    ],
)
def test_bad_responses_are_reported_without_control_characters_and_bad_redirects_not_followed(
    get, server, response, message
):
    server.faults = {CRAWLED: [response] * 99}
    error = error_of(get(check=False))
    assert f"{server.url}/{CRAWLED}: {message}" in error and error.isprintable()


@pytest.mark.parametrize("leftover", [b"rubbish", b"x" * 10**6, None])
def test_an_unfinished_download_may_be_complete_or_have_other_content(get, server, tmp_path, leftover):
    """`None` means complete: then the file is not requested again."""
    partial = (tmp_path / "data" / CRAWLED).with_name(f".{os.path.basename(CRAWLED)}.unfinished")
    partial.parent.mkdir(parents=True)
    partial.write_bytes(server.files[CRAWLED] if leftover is None else leftover)
    get()
    assert is_complete(tmp_path / "data")
    assert bool(server.requested_ranges(CRAWLED)) == (leftover is not None)


def test_a_server_that_cannot_be_reached_is_reported(get, tmp_path):
    with Server() as stopped:
        pass
    assert "can't be reached (Connection refused; is there a network?)" in error_of(
        get("--url", stopped.url, check=False)
    )
    assert is_sound(tmp_path / "data")


def test_a_missing_file_is_fetched_from_the_other_path_with_the_same_content(get, server, tmp_path):
    del server.files["PARAREL/query_pairs.json"]  # the same as BingDistantTREx/query_pairs.json
    get()
    assert is_complete(tmp_path / "data")


def test_a_damaged_file_is_replaced_and_unfinished_files_of_killed_runs_are_removed(get, server, tmp_path):
    get()
    for path in (CRAWLED, "PARAREL/data_all.json"):
        name = os.path.basename(path)
        (tmp_path / "data" / path).with_name(f".{name}.12345.unfinished").write_text("half")
    damaged = tmp_path / "data" / CRAWLED
    damaged.write_bytes(damaged.read_bytes()[::-1])
    assert f"{damaged}: is another file" in get().stderr
    assert is_complete(tmp_path / "data") and len(server.requests) == len(FETCHED) + 1


def test_files_from_a_local_copy_are_checked_like_fetched_ones(get, server, tmp_path):
    shutil.copytree(SAMPLE, tmp_path / "checkout" / "data")
    for number, source in enumerate((SAMPLE, tmp_path / "checkout")):
        get("--from", source, data=tmp_path / str(number))
        assert is_complete(tmp_path / str(number))
    wrong = tmp_path / "checkout" / "data" / CRAWLED
    wrong.write_bytes(wrong.read_bytes()[::-1])
    assert f"{wrong}: is another file" in error_of(get("--from", tmp_path / "checkout", check=False))
    wrong.unlink()
    assert f"{wrong}: no such file" in error_of(get("--from", tmp_path / "checkout", check=False))
    assert is_sound(tmp_path / "data") and not server.requests


def test_a_file_that_cannot_be_written_is_reported_and_the_next_run_resumes(get, tmp_path):
    """A limit on the size of files stands for a full disk, which needs root to test."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4000, hard))
    try:
        done = get(check=False)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "can't be written (File too large)" in error_of(done) and is_sound(tmp_path / "data")
    get()
    assert is_complete(tmp_path / "data")


@pytest.mark.parametrize("while_building", [False, True])
def test_a_full_disk_is_reported(get, tmp_path, while_building):
    fetched = sum(-(-(SAMPLE / path).stat().st_size // 4096) for path in FETCHED) * 4096
    room = fetched + 4096 if while_building else fetched // 2
    disk = tmp_path / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={room}", "none", str(disk)]
    if os.geteuid() or not shutil.which("mount") or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("a small disk can't be mounted here")
    try:
        for number, origin in enumerate(((), ("--from", SAMPLE))):
            data = disk / str(number)
            assert "can't be written (No space left on device)" in error_of(get(*origin, data=data, check=False))
            assert is_sound(data) and all((data / path).exists() for path in FETCHED) == while_building
            shutil.rmtree(data)
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_a_folder_that_cannot_be_made_is_reported(get, tmp_path):
    (tmp_path / "file").touch()
    assert "can't create the folder" in error_of(get(data=tmp_path / "file" / "data", check=False))


def test_the_sample_is_not_overwritten(get):
    assert "holds the sample world" in error_of(get(data=SAMPLE, check=False))


def test_two_runs_into_one_folder_at_once_are_refused(get, tmp_path):
    (tmp_path / "data").mkdir()
    with runs.locked(tmp_path / "data" / ".0_get_data.lock"):
        assert "another run is fetching into it" in error_of(get(check=False))


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_a_download_stopped_in_the_middle_is_resumed(get, server, tmp_path, number):
    path = tmp_path / "data" / CRAWLED
    server.faults = {CRAWLED: ["stalls"]}
    program = (
        "import signal; from pathlib import Path; from kn.data import downloads; "
        "signal.signal(signal.SIGINT, signal.default_int_handler); "  # background processes may inherit it ignored
        "from kn.store.start import guard; "
        f"file = downloads.Download(Path({str(path)!r}), ['{server.url}/{CRAWLED}'], lambda path: None); "
        "guard(lambda: downloads.fetch(file, lambda count: None))"
    )
    child = subprocess.Popen([sys.executable, "-c", program], cwd=ROOT / "src", stderr=subprocess.PIPE, text=True)
    partial = path.with_name(f".{path.name}.unfinished")
    half = len(server.files[CRAWLED]) // 2
    end = time.monotonic() + 20
    while not (partial.exists() and partial.stat().st_size == half) and time.monotonic() < end:
        time.sleep(0.01)
    child.send_signal(number)
    error = child.communicate(timeout=4)[1]  # the signal must not wait until the connection counts as stalled
    assert not path.exists() and partial.stat().st_size == half
    assert number == signal.SIGKILL or ("run the same command again to resume" in error and error.count("\n") == 1)
    get()
    assert is_complete(tmp_path / "data") and server.requested_ranges(CRAWLED) == [None, f"bytes={half}-"]


@pytest.mark.parametrize("line", ["", "abc  1  PARAREL/x", f"{'0' * 64}  x", f"{'0' * 64}  0  x", f"{'0' * 64}  5 x"])
def test_a_malformed_list_of_checksums_is_named_with_its_line(get, checksums, line):
    checksums.write_text(checksums.read_text() + line + "\n")
    assert f"checksums.txt, line {len(FETCHED) + 1}: expected SHA-256, bytes and path" in error_of(get(check=False))


@pytest.mark.parametrize(
    "flags, message",
    [
        (["nothing"], "expected mlama, lre"),
        (["--url", "ftp://nowhere"], "expected http://"),
        (["--sha256", "0"], "--sha256 is for a zip file of mLAMA"),
        (["--url", "http://nowhere", "--from", "x"], "not allowed with"),
    ],
)
def test_wrong_arguments_are_usage_errors(get, flags, message):
    done = get(*flags, check=False)
    assert done.returncode == 2 and message in done.stderr


def test_the_published_files_are_those_that_the_stages_need():
    paths = [line.split("  ")[2] for line in (ROOT / "data" / "checksums.txt").read_text().splitlines()]
    templates = {path.split("/")[-1][:-6] for path in paths if path.startswith("PARAREL/raw_data/patterns/")}
    crawled = {path.split("_")[-2] for path in paths if path.startswith("BingDistantTREx/final/")}
    assert templates == crawled and len(paths) == len(set(paths)) == 2 * len(templates) + 3


@pytest.mark.skipif("KN_REAL_DATA" not in os.environ, reason="KN_REAL_DATA names no folder with the real data")
def test_real_data_have_these_checksums(tmp_path):
    done = run("0_get_data.py", "--data_dir", tmp_path, "--from", os.environ["KN_REAL_DATA"])
    assert "34 relations, 27,738 facts, 253,448 prompts" in done.stdout
