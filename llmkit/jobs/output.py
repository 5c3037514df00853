"""The output of a job: a line for each row, in order, in `OUT.part` until all are there, then in `OUT`.

The store knows how many bytes are written and their checksum, so that a part goes on after a kill, and a file that
somebody has changed is told from the job's own. Everything that was answered is in the store too.
"""

from __future__ import annotations

import json
import os
import zlib
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, BinaryIO

from llmkit.errors import ConfigError, InvalidRequestError
from llmkit.jobs.results import line_of
from llmkit.store import jobs as rows

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from llmkit.jobs.job import Job
    from llmkit.jobs.results import MapResult

_READ = 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """What is written of an output: rows, bytes and their checksum."""

    rows: int = 0
    bytes: int = 0
    checksum: int = 0


class Output:
    """Writes the output of a job; one process at a time.

    Args:
        job: the job, taken by this process.
        path: the output.

    Raises:
        InvalidRequestError: there is a file that the job did not write.
        ConfigError: the folder cannot be written.
    """

    def __init__(self, job: Job, path: Path) -> None:
        self._job = job
        self._path = path
        self._part = path.with_name(f"{path.name}.part")
        with job.store.database.reading() as connection:
            row = rows.of(connection, job.id)
        self._rows, is_ended = row.rows, row.ended_at is not None
        known = json.loads(row.written or "{}")
        self._whole, self._begun = (Written(**known[name]) if known.get(name) else None for name in ("out", "part"))
        self._file: BinaryIO | None = None
        there = self._check()
        self.is_whole = there is not None and (is_ended or there is self._begun)
        self.written = there if self.is_whole and there is not None else Written()
        if not self.is_whole:
            self._open()

    def add(self, results: Sequence[MapResult[Any]]) -> None:
        """Write the next rows.

        Raises:
            ConfigError: the file cannot be written.
            StoreError: the store cannot be written; the rows can be added again.
        """
        if self._file is None or not results:
            return
        data = b"".join(map(line_of, results))
        try:
            self._file.seek(self.written.bytes)
            self._file.truncate()
            self._file.write(data)
            self._file.flush()
        except OSError as error:
            raise self._unwritable(error) from error
        written = Written(
            rows=self.written.rows + len(results),
            bytes=self.written.bytes + len(data),
            checksum=zlib.crc32(data, self.written.checksum),
        )
        self._note(out=self._whole, part=written)
        self.written = written

    def end(self) -> None:
        """Put the whole output in its place.

        Raises:
            InvalidRequestError: meanwhile somebody has put another file there.
            ConfigError: it cannot be put there.
        """
        if self._file is not None:
            self._check()
            try:
                os.fsync(self._file.fileno())
                self._file.close()
                self._file = None
                self._part.replace(self._path)
            except OSError as error:
                raise self._unwritable(error) from error
        self._note(out=self.written, part=None)
        self.is_whole = True

    def close(self) -> None:
        """Close the part."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _check(self) -> Written | None:
        """Return what a file in the place of the output is known as, or None if there is none.

        Raises:
            InvalidRequestError: it is not the job's own.
        """
        if not os.path.lexists(self._path):
            return None
        whole_part = self._begun if self._begun is not None and self._begun.rows == self._rows else None
        for known in (self._whole, whole_part):
            if known is not None and self._path.is_file() and _has(self._path, known, whole=True):
                return known
        if self._whole is None:
            raise InvalidRequestError(
                f"{self._path} exists, and is not this job's: choose another output, or move it away"
            )
        raise InvalidRequestError(
            f"{self._path} is no longer what the job wrote: move it away, and it is written anew without asking again"
        )

    def _open(self) -> None:
        """Open the part, after the last row that is surely written.

        Raises:
            InvalidRequestError: there is one that the job did not begin.
            ConfigError: it cannot be written.
        """
        begun = self._begun
        is_foreign = begun is None and self._part.exists() and self._part.stat().st_size > 0  # an empty one has nothing
        if self._part.is_symlink() or is_foreign:
            raise InvalidRequestError(
                f"{self._part} exists, and is not this job's: choose another output, or move it away"
            )
        goes_on = begun is not None and _has(self._part, begun)
        try:
            if not goes_on:
                self._part.open("wb").close()
                self._note(out=self._whole, part=Written())  # from now on it is the job's
            self._file = self._part.open("r+b")
        except OSError as error:
            raise self._unwritable(error) from error
        self.written = begun if goes_on and begun is not None else Written()

    def _note(self, **written: Written | None) -> None:
        stored: dict[str, Any] = {name: None if each is None else asdict(each) for name, each in written.items()}
        stored["place"] = str(self._part)
        with self._job.store.database.writing() as connection:
            rows.note_written(connection, self._job.id, stored)
            if stored["part"] is None:
                rows.end(connection, self._job.id, self._job.store.database.now(connection))

    def _unwritable(self, error: OSError) -> ConfigError:
        reason = error.strerror or error
        return ConfigError(f"{self._part} cannot be written: {reason}; what was answered is in the store")


def _has(path: Path, written: Written, *, whole: bool = False) -> bool:
    """Return whether a file begins with what was written; *whole* is for a file with nothing else."""
    try:
        size = path.stat().st_size
        if size < written.bytes or (whole and size != written.bytes):
            return False
        checksum, left = 0, written.bytes
        with path.open("rb") as file:
            while left and (data := file.read(min(_READ, left))):
                checksum, left = zlib.crc32(data, checksum), left - len(data)
    except OSError:
        return False
    return not left and checksum == written.checksum
