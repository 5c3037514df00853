"""A store of an earlier llmkit goes on: nothing is lost, and large parts are back in their messages."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from llmkit import Budget, Budgets, Ledger
from llmkit.serve import Keys
from llmkit.store import Store
from llmkit.store.tables import MIGRATIONS

DATA = Path(__file__).parent / "data"
LARGE = "data:image/png;base64," + "iVBORw0KGgo" * 400
PICTURE = {
    "role": "user",
    "content": [{"type": "text", "text": "Look"}, {"type": "image_url", "image_url": {"url": LARGE}}],
}
ODD = [{"$part": "x"}, {"$escaped": {"$part": "x"}}, {"$part": {"$escaped": 1}}, {"$part": 1, "other": 2}]
MESSAGES = [
    PICTURE,
    {"role": "assistant", "content": "A red dot."},
    PICTURE,
    {"role": "user", "content": ODD},
    {"role": "user", "content": [{"type": "x", "value": {"$escaped": {"$part": LARGE}}}]},
    {"role": "user", "content": [{"type": "text", "text": "word \ud83d " + "\x00Größe" * 700}]},
    {"role": "user", "content": "hi", "meta": {"$part": "x"}},
    {"role": "user", "content": '{"$part": "x"}'},
    {"role": "assistant", "content": "done"},
    {"role": "assistant", "content": "what had arr", "interrupted": True},
]
LATER = {  # tables that a version brought
    2: ["llmkit_ledger"],
    3: ["llmkit_holds", "llmkit_spent", "llmkit_budgets"],
    4: ["llmkit_runs"],
    5: ["llmkit_keys", "llmkit_signing"],
}
COLUMNS = {
    6: [
        "llmkit_holds ADD COLUMN state TEXT NOT NULL DEFAULT 'reserved'",
        "llmkit_ledger ADD COLUMN possibly_usd FLOAT",
    ],
    7: ["llmkit_runs ADD COLUMN served_to TEXT"],
}
WHOLE = 8  # from this version on the files' messages have another form, which llmkit itself gives them
TAKEN_BACK = {
    9: ["DROP INDEX ix_llmkit_sessions_served_to", "ALTER TABLE llmkit_sessions DROP COLUMN served_to"],
    10: ["DROP TABLE llmkit_jobs", "DROP TABLE llmkit_job_rows"],
}


def statements(file):
    return re.split(r";\n(?=[A-Z]|$)", (DATA / file).read_text(encoding="utf-8"))[:-1]


def make(version, database, sql):
    """Make the database that llmkit made when the schema had this version; the files are of version 5."""
    kind = database.partition(":")[0]
    sql(*statements(f"schema5.{kind}.sql"), *statements("schema5.rows.sql"))
    for number, tables in LATER.items():
        for table in tables if number > version else ():
            sql(f"DROP TABLE {table}")
    for number, columns in COLUMNS.items():
        for column in columns if number <= version else ():
            sql(f"ALTER TABLE {column}")
    if version >= WHOLE:
        sql("UPDATE llmkit_meta SET value = '7' WHERE key = 'schema'")
        opened = Store(database)
        opened.sessions()
        opened.close()
        for number, changes in TAKEN_BACK.items():
            for change in changes if number > version else ():
                sql(change)
    sql(f"UPDATE llmkit_meta SET value = '{version}' WHERE key = 'schema'")


@pytest.mark.parametrize("version", range(1, len(MIGRATIONS)))
def test_a_store_of_an_earlier_version_goes_on(store, database, sql, version):
    make(version, database, sql)

    assert store.messages("s") == MESSAGES

    assert sql("SELECT value FROM llmkit_meta WHERE key = 'schema'") == [(str(len(MIGRATIONS)),)]
    assert (store.session("s").title, store.cost("s")) == ("Old", 0.5)
    assert [info.id for info in store.sessions("Look")] == ["s"]
    ledger = Ledger(store)
    assert ledger.get_usage() == (0.375 if version >= 2 else 0)
    assert [state.settled for state in Budgets(store).all()] == ([0.125] if version >= 3 else [])
    assert [key.name for key in Keys(store).list()] == (["ann"] if version >= 5 else [])

    run = store.begin("s")
    store.end("s", run, [PICTURE], {})
    assert run.history == MESSAGES
    assert store.messages("s") == [*MESSAGES, PICTURE]
    ledger.increment_usage(1.0, "m")
    assert ledger.rows()[-1].cost_usd == 1.0
    Budgets(store).set(Budget(name="new", limit_usd=1))
    assert Keys(store).add("bob").startswith("llmkit-")


def test_a_part_that_is_missing_keeps_no_store_closed(store, database, sql):
    make(5, database, sql)
    sql("DELETE FROM llmkit_parts")

    assert list(store.messages("s")[0]["content"][1]["image_url"]["url"]) == ["$part"]
