"""What a job reads: files of JSON lines, CSV, Parquet or plain lines, or rows of a program. Few are in memory."""

from __future__ import annotations

import csv
import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from llmkit.errors import InvalidRequestError
from llmkit.jobs.parquet import records

if TYPE_CHECKING:
    from collections.abc import Iterator

Rows: TypeAlias = "str | os.PathLike[str] | Iterable[str | Mapping[str, Any]]"
"""The path of a file, or rows: questions, or mappings with a value for each column."""
SUFFIXES = (".jsonl", ".ndjson", ".csv", ".tsv", ".parquet", ".txt")
QUESTION, TEXT = "prompt", "text"
"""The columns of a row that is a text alone."""
_LONGEST_CELL = 2**27


class Input:
    """The rows of a job, each with its place for messages.

    Args:
        rows: what they are read from.

    Raises:
        InvalidRequestError: it is neither a file of a known kind nor rows.
    """

    def __init__(self, rows: Rows) -> None:
        self._path = Path(rows) if isinstance(rows, str | os.PathLike) else None
        self._given: Iterable[str | Mapping[str, Any]] = ()
        if self._path is None and isinstance(rows, Iterable) and not isinstance(rows, Mapping | bytes):
            self._given = rows
        elif self._path is None:
            raise InvalidRequestError(f"rows are a file's path, or texts and mappings, not {type(rows).__name__}")
        if self._path is not None and self._path.suffix.lower() not in SUFFIXES:
            raise InvalidRequestError(f"{self._path}: a file of rows ends in {', '.join(SUFFIXES)}")
        self._hash = hashlib.blake2b(digest_size=16)
        self.count = 0

    def __iter__(self) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """Yield the place and the columns of each row.

        Raises:
            InvalidRequestError: the file cannot be read, or one of its lines; the line is named.
            ConfigError: it is a Parquet file, and pyarrow is not installed.
        """
        for place, row in self._of_file(self._path) if self._path is not None else self._of_program():
            self.count += 1
            self._hash.update(json.dumps(row, sort_keys=True, default=str).encode() + b"\n")
            yield place, row

    def hashed(self) -> str:
        """Read all rows, and return their hash."""
        for _ in self:
            pass
        return self.digest()

    def digest(self) -> str:
        """Return the hash of all rows that were read."""
        return self._hash.hexdigest()

    def _of_program(self) -> Iterator[tuple[str, Mapping[str, Any]]]:
        for number, row in enumerate(self._given, 1):
            if not isinstance(row, str | Mapping):
                raise InvalidRequestError(f"row {number} must be a text or a mapping, not {type(row).__name__}")
            yield f"row {number}", _of_text(row) if isinstance(row, str) else row

    def _of_file(self, path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
        suffix = path.suffix.lower()
        read = {".csv": _cells, ".tsv": _cells, ".txt": _lines}.get(suffix, _objects)
        try:
            if suffix == ".parquet":
                with path.open("rb") as binary:
                    yield from records(path, binary)
                return
            with path.open(encoding="utf-8-sig", newline="" if read is _cells else None) as file:
                yield from read(path, file)
        except OSError as error:
            raise InvalidRequestError(f"{path} cannot be read: {error.strerror or error}") from error
        except UnicodeDecodeError as error:
            raise InvalidRequestError(f"{path} is not UTF-8: {error.reason} after row {self.count}") from error


def _of_text(text: str) -> Mapping[str, Any]:
    return {QUESTION: text, TEXT: text}


def _lines(path: Path, file: Iterable[str]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for number, line in enumerate(file, 1):
        if line.strip():
            yield f"{path}, line {number}", _of_text(line.rstrip("\n"))


def _objects(path: Path, file: Iterable[str]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for number, line in enumerate(file, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise InvalidRequestError(f"{path}, line {number}: this is no JSON: {error}") from error
        if not isinstance(row, str | dict):
            raise InvalidRequestError(f"{path}, line {number}: a row is an object or a text, not {row!r:.40}")
        yield f"{path}, line {number}", _of_text(row) if isinstance(row, str) else row


def _cells(path: Path, file: Iterable[str]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    csv.field_size_limit(max(csv.field_size_limit(), _LONGEST_CELL))
    reader = csv.DictReader(file, delimiter="\t" if path.suffix.lower() == ".tsv" else ",", strict=True)
    try:
        names = list(reader.fieldnames or ())
        if twice := {name for name in names if name and names.count(name) > 1}:
            raise InvalidRequestError(f"{path}: two columns are called {min(twice)!r}")
        for row in reader:
            place = f"{path}, line {reader.line_num}"
            if None in row or None in row.values():
                more = "more" if None in row else "fewer"
                raise InvalidRequestError(f"{place}: it has {more} cells than the first line has names")
            yield place, row
    except csv.Error as error:
        raise InvalidRequestError(f"{path}, line {reader.line_num}: {error}") from error
