"""Rows of Parquet files, with values that JSON can have. Some hundred rows at a time are in memory."""

from __future__ import annotations

import math
from datetime import date, time, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any, BinaryIO

from llmkit.errors import ConfigError, InvalidRequestError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

_AT_ONCE, _BUFFER = 256, 2**20
"""How many rows are read at a time, and from how many bytes of each column."""


def records(path: Path, file: BinaryIO) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield the place and the columns of each row: dates and decimals are texts, what is no number is None.

    Raises:
        ConfigError: pyarrow is not installed.
        InvalidRequestError: this is no whole Parquet file, or a row has what no prompt can have; the row is named.
    """
    try:
        import pyarrow as pa
        from pyarrow.parquet import ParquetFile
    except ImportError as error:
        raise ConfigError(f"{path}: Parquet files need pyarrow: pip install 'llmkit[map]'") from error
    number = 0
    try:
        # else the whole of a row group is read at once, and many files have one alone
        parquet = ParquetFile(file, buffer_size=_BUFFER, pre_buffer=False)
        names = parquet.schema_arrow.names
        if twice := {name for name in names if names.count(name) > 1}:
            raise InvalidRequestError(f"{path}: two columns are called {min(twice)!r}")
        for batch in parquet.iter_batches(_AT_ONCE):
            for row in _in_microseconds(batch, pa).to_pylist():
                number += 1
                place = f"{path}, row {number}"
                yield place, {name: _plain(place, name, value) for name, value in row.items()}
    except OverflowError as error:
        raise InvalidRequestError(f"{path}: a moment after row {number} is none that Python has: {error}") from error
    except pa.ArrowException as error:
        raise InvalidRequestError(f"{path} is no Parquet file, or only a part of one: {error}") from error
    except OSError as error:
        if error.errno is not None:
            raise
        raise InvalidRequestError(f"{path} is damaged after row {number}: {error}") from error


def _in_microseconds(batch: Any, arrow: Any) -> Any:
    """Return a batch whose moments Python can have: it has no nanoseconds."""
    types = arrow.types
    for index, kind in enumerate(batch.schema.types):
        if types.is_timestamp(kind) and kind.unit == "ns":
            whole = batch.column(index).cast(arrow.timestamp("us", kind.tz), safe=False)
            batch = batch.set_column(index, batch.schema.names[index], whole)
    return batch


def _plain(place: str, name: str, value: Any) -> Any:
    """Return a value as JSON can have it."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, str | int):
        return value
    if isinstance(value, date | time):
        return value.isoformat()
    if isinstance(value, Decimal | timedelta):
        return str(value)
    if isinstance(value, dict):
        return {key: _plain(place, name, each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(place, name, each) for each in value]
    raise InvalidRequestError(
        f"{place}: the column {name!r} has {type(value).__name__}, which no prompt can have; write the file without it"
    )
