"""Rows of Parquet files: what a question can have of them, what is refused and where, and that memory stays flat."""

from __future__ import annotations

import subprocess
import sys
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from pathlib import Path

import pytest

import llmkit
from llmkit import Jobs
from llmkit.errors import ConfigError, InvalidRequestError
from llmkit.testing import ScriptedBackend

arrow = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")
NOON = datetime(2026, 11, 21, 12, 0, 0, 250000, tzinfo=timezone.utc)


def written(path, columns, **settings):
    parquet.write_table(columns if isinstance(columns, arrow.Table) else arrow.table(columns), path, **settings)
    return path


def asked(rows, prompt="{{ text }}", answers=9, **options):
    """Ask, and return what the provider was asked, with the results."""
    backend = ScriptedBackend(*["ok"] * answers)
    results = list(llmkit.map(rows, prompt=prompt, model="openai/gpt-4o", at_once=1, backend=backend, **options))
    return [request.messages[-1]["content"] for request in backend.requests], results


def refused(path, error=InvalidRequestError):
    with pytest.raises(error) as raised:
        asked(path)
    assert Jobs().all() == []
    return str(raised.value)


def test_each_row_of_a_file_is_a_question(tmp_path):
    path = written(tmp_path / "in.parquet", {"id": ["a", "b"], "text": ["dog", "cat"]})

    questions, results = asked(path, "Translate: {{ text }}", key="id")

    assert questions == ["Translate: dog", "Translate: cat"]
    assert [(result.key, result.text) for result in results] == [("a", "ok"), ("b", "ok")]


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (3, "3"),
        (True, "True"),
        (0.5, "0.5"),
        (None, ""),
        (float("nan"), ""),
        (float("inf"), ""),
        (date(2026, 11, 21), "2026-11-21"),
        (NOON, "2026-11-21T12:00:00.250000+00:00"),
        (NOON.replace(tzinfo=None), "2026-11-21T12:00:00.250000"),
        (time(12, 30), "12:30:00"),
        (timedelta(minutes=90), "1:30:00"),
        (Decimal("1.20"), "1.20"),
        ([1, 2], "[1, 2]"),
        ({"on": date(2026, 11, 21), "what": ["x"]}, "{'on': '2026-11-21', 'what': ['x']}"),
    ],
)
def test_a_value_of_any_type_but_bytes_can_be_asked(tmp_path, value, shown):
    questions, _ = asked(written(tmp_path / "in.parquet", {"value": [value]}), "It is {{ value }}")

    assert questions == [f"It is {shown}"]


def test_a_moment_in_nanoseconds_loses_those_below_a_microsecond(tmp_path):
    moments = arrow.array([1_795_262_400_250_000_001], arrow.timestamp("ns", "UTC"))

    assert asked(written(tmp_path / "in.parquet", {"text": moments}))[0] == ["2026-11-21T12:00:00.250000+00:00"]


def test_a_category_is_its_text(tmp_path):
    texts = arrow.array(["dog", "cat", "dog"]).dictionary_encode()

    assert asked(written(tmp_path / "in.parquet", {"text": texts}))[0] == ["dog", "cat"]


def test_a_key_stays_what_it_was(tmp_path):
    path = written(tmp_path / "in.parquet", {"text": ["dog", "cat"], "id": [7, 8]})

    assert [result.key for result in asked(path, key="id")[1]] == [7, 8]


def test_bytes_are_refused_with_their_row(tmp_path):
    path = written(tmp_path / "in.parquet", {"text": ["dog", "cat"], "picture": [None, b"\x89PNG"]})

    assert refused(path) == (
        f"{path}, row 2: the column 'picture' has bytes, which no prompt can have; write the file without it"
    )


def test_an_empty_question_is_told_with_its_row(tmp_path):
    assert refused(written(tmp_path / "in.parquet", {"text": ["dog", ""]})).endswith("row 2: the prompt is empty")


def test_two_columns_of_one_name_are_refused(tmp_path):
    path = written(tmp_path / "in.parquet", arrow.table([["dog"], ["cat"]], names=["text", "text"]))

    assert refused(path) == f"{path}: two columns are called 'text'"


def test_what_is_no_parquet_file_is_refused(tmp_path):
    path = tmp_path / "in.parquet"
    path.write_text("text\ndog\n")

    assert refused(path).startswith(f"{path} is no Parquet file, or only a part of one: ")


def test_a_part_of_a_file_is_refused(tmp_path):
    path = written(tmp_path / "in.parquet", {"text": ["dog"] * 1000})
    path.write_bytes(path.read_bytes()[:-20])

    assert refused(path).startswith(f"{path} is no Parquet file, or only a part of one: ")


def test_a_damaged_file_leaves_no_job_behind(tmp_path):
    path = written(tmp_path / "in.parquet", {"text": [f"{each} dogs " * 20 for each in range(20_000)]})
    whole = bytearray(path.read_bytes())
    whole[len(whole) // 2 : len(whole) // 2 + 20_000] = bytes(20_000)
    path.write_bytes(whole)

    assert f"{path} is damaged after row " in refused(path)


def test_a_file_that_is_not_there_is_told(tmp_path):
    assert refused(tmp_path / "no.parquet") == f"{tmp_path}/no.parquet cannot be read: No such file or directory"


def test_without_pyarrow_it_says_what_to_install(tmp_path, monkeypatch):
    path = written(tmp_path / "in.parquet", {"text": ["dog"]})
    monkeypatch.setitem(sys.modules, "pyarrow", None)

    assert refused(path, ConfigError) == f"{path}: Parquet files need pyarrow: pip install 'llmkit[map]'"


def test_a_job_goes_on_with_the_same_file_and_refuses_another(tmp_path):
    path = written(tmp_path / "in.parquet", {"text": ["dog", "cat"], "at": [NOON, NOON]})
    asked(path, out=tmp_path / "out.jsonl")

    again, results = asked(path, answers=0, out=tmp_path / "out.jsonl")
    written(path, {"text": ["dog", "cow"], "at": [NOON, NOON]})

    assert again == []
    assert len(results) == 2
    with pytest.raises(InvalidRequestError, match="began with another input"):
        asked(path, out=tmp_path / "out.jsonl")


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="Linux alone tells a process's most memory")
def test_memory_does_not_grow_with_the_file(tmp_path):
    """Reads 200 MB in one row group, as some programs write them."""
    path = tmp_path / "in.parquet"
    texts = {"text": [f"{each:08}" * 250 for each in range(100_000)]}
    written(path, texts, row_group_size=100_000, compression="none", use_dictionary=False)
    code = f"""
import re, pyarrow.parquet
from pathlib import Path
from llmkit.jobs.inputs import Input
def most():
    return int(re.search("VmHWM:[^0-9]*([0-9]+)", Path("/proc/self/status").read_text())[1])  # of this process alone
before, rows = most(), Input({str(path)!r})
rows.hashed()
print(rows.count, (most() - before) // 1024)
"""

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    count, megabytes = map(int, done.stdout.split())
    assert path.stat().st_size > 190_000_000
    assert count == 100_000
    assert megabytes < 60
