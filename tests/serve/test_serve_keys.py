"""The keys of a server and their session tokens."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import threading
import time

import jwt
import pytest
import typer
from typer.testing import CliRunner

from llmkit import Budget, Budgets
from llmkit.cli.serve import keys as commands
from llmkit.errors import ConfigError
from llmkit.providers.practicus.session_tokens import ends_at
from llmkit.serve import Keys
from llmkit.serve.context import Caller
from llmkit.store import Store
from llmkit.store import keys as stored


class Clock:
    """A time that tests set."""

    def __init__(self) -> None:
        self.now = time.time()

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def keys(store, clock):
    return Keys(store, clock=clock)


class TestKeys:
    def test_a_key_is_known_and_its_text_is_kept_nowhere(self, keys, sql):
        key = keys.add("anna", models=["fast", "careful"])

        assert keys.check(key) == Caller(name="anna", models=frozenset({"fast", "careful"}))
        assert keys.any()
        assert key.startswith("llmkit-")
        assert len(key) > 40
        row = str(sql("SELECT * FROM llmkit_keys"))
        assert key[11:] not in row
        assert hashlib.sha256(key.encode()).hexdigest() in row

    @pytest.mark.parametrize("wrong", ["", "llmkit-", "llmkit-AAAA", "a.b.c", "..", "ü" * 9])
    def test_another_is_not(self, keys, wrong):
        keys.add("anna")

        assert keys.check(wrong) is None
        assert keys.identify(wrong)[1] == "unknown"

    def test_there_are_none_at_first(self, keys):
        assert not keys.any()
        assert list(keys.list()) == []

    def test_a_budget_goes_with_its_key(self, store, keys):
        key = keys.add("anna", 5.0, "day")

        assert keys.check(key).budget == "key:anna"
        state = Budgets(store).get("key:anna")
        assert (state.budget.limit_usd, state.budget.period) == (5.0, "day")
        (info,) = keys.list()
        assert (info.name, info.prefix, info.models, info.budget) == ("anna", key[:11], None, state)
        keys.remove("anna")
        assert Budgets(store).all() == []

    @pytest.mark.parametrize(
        "wrong",
        [
            {"name": ""},
            {"name": "a b"},
            {"name": "a\n"},
            {"name": "anna", "period": "year"},
            {"name": "anna", "budget_usd": -1.0},
            {"name": "anna", "models": []},
            {"name": "anna", "models": "fast"},
        ],
    )
    def test_what_makes_no_sense_is_refused(self, keys, wrong):
        with pytest.raises(ConfigError):
            keys.add(**wrong)
        assert not keys.any()

    def test_a_name_is_given_once(self, keys):
        key = keys.add("anna", 1.0)

        with pytest.raises(ConfigError, match="already"):
            keys.add("anna", 2.0)
        assert keys.check(key).name == "anna"
        assert keys.list()[0].budget.budget.limit_usd == 1.0

    def test_an_unknown_name_cannot_be_removed(self, keys):
        keys.add("anna")

        with pytest.raises(ConfigError, match="no key 'bob'; there are: anna"):
            keys.remove("bob")

    def test_a_key_that_another_process_removes_works_for_two_seconds_at_the_most(self, keys, store, clock):
        key = keys.add("anna")
        assert keys.check(key)

        Keys(store).remove("anna")

        clock.now += 2.1
        assert keys.check(key) is None

    def test_s2_that_there_was_a_key_is_remembered(self, keys, store, database):
        assert not keys.ever()
        keys.add("anna")
        assert (keys.ever(), keys.any()) == (True, True)
        keys.remove("anna")
        assert (keys.ever(), keys.any()) == (True, False)

        store.close()
        again = Store(database)
        assert (Keys(again).ever(), Keys(again).any()) == (True, False)
        again.close()

    def test_s2_a_key_that_an_older_llmkit_made_is_remembered_when_it_goes(self, keys, store, sql):
        keys.add("anna")
        sql("DELETE FROM llmkit_meta WHERE key = 'keys'")

        assert Keys(store).ever()
        keys.remove("anna")
        assert Keys(store).ever()

    def test_many_checks_read_the_store_once(self, keys, store, monkeypatch):
        key = keys.add("anna")
        reads = []
        reading = store.database.reading
        monkeypatch.setattr(store.database, "reading", lambda: reads.append(1) or reading())

        threads = [
            threading.Thread(target=lambda: [keys.check(text) for text in (key, "wrong") * 500]) for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        assert len(reads) == 1


class TestSessionTokens:
    def test_stand_for_their_key(self, keys, store, clock):
        keys.add("anna", 5.0, models=["fast"])

        token, ends = keys.issue("anna")

        assert keys.check(token) == Caller(name="anna", budget="key:anna", models=frozenset({"fast"}))
        assert Keys(store, clock=clock).check(token).name == "anna"
        assert ends == ends_at(token) == int(clock.now) + 4 * 3600

    def test_end(self, keys, clock):
        keys.add("anna")
        token, ends = keys.issue("anna", ttl_s=60)

        clock.now = ends + 0.1

        assert keys.check(token) is None
        assert keys.identify(token)[1] == "expired"

    def test_cannot_be_forged(self, keys):
        keys.add("anna")
        keys.add("bob")
        head, body, signature = keys.issue("anna")[0].split(".")
        payload = json.loads(base64.urlsafe_b64decode(body + "=="))
        other = base64.urlsafe_b64encode(json.dumps(payload | {"sub": "bob"}).encode()).decode().rstrip("=")
        none = base64.urlsafe_b64encode(b'{"alg":"none"}').decode().rstrip("=")

        for forged in (
            f"{head}.{other}.{signature}",
            f"{none}.{body}.",
            f"{head}.{body}.{signature[:-1]}",
            f"{head}.{body}.é",
        ):
            assert keys.identify(forged)[0] is None
            assert keys.identify(forged)[1] == "unknown"

    def test_end_with_their_key_also_where_its_name_is_given_again(self, keys):
        keys.add("anna")
        token, _ = keys.issue("anna")

        keys.remove("anna")
        keys.add("anna")

        assert keys.check(token) is None

    def test_of_no_key_end_with_the_first_key(self, keys):
        token, _ = keys.issue("")
        assert keys.check(token) == Caller()

        keys.add("anna")

        assert keys.check(token) is None
        assert keys.check(keys.issue("")[0]) is None
        with pytest.raises(ConfigError):
            keys.issue("bob")

    def test_of_before_go_on_working(self, keys, store, clock):
        """The same claims, signed by hand as llmkit once did."""
        keys.add("anna")
        claims = jwt.decode(keys.issue("anna")[0], options={"verify_signature": False})
        with store.database.reading() as connection:
            secret = bytes.fromhex(stored.secret(connection))
        parts = [json.dumps(part, separators=(",", ":")).encode() for part in ({"alg": "HS256", "typ": "JWT"}, claims)]
        body = b".".join(base64.urlsafe_b64encode(part).rstrip(b"=") for part in parts)
        signature = base64.urlsafe_b64encode(hmac.new(secret, body, hashlib.sha256).digest()).rstrip(b"=")

        assert keys.check(b".".join((body, signature)).decode()).name == "anna"

    @pytest.mark.parametrize("algorithm", ["none", "HS512"])
    def test_of_another_algorithm_are_refused(self, keys, store, algorithm):
        keys.add("anna")
        claims = jwt.decode(keys.issue("anna")[0], options={"verify_signature": False})
        with store.database.reading() as connection:
            secret = bytes.fromhex(stored.secret(connection)) * 2

        token = jwt.encode(claims, None if algorithm == "none" else secret, algorithm)

        assert keys.identify(token) == (None, "unknown")

    def test_are_no_keys(self, keys):
        keys.add("anna")

        assert keys.of_key(keys.issue("anna")[0])[0] is None

    def test_are_signed_with_one_secret_whoever_opens_the_store_first(self, database):
        """A new database is opened from several threads, each with connections of its own."""
        opened = [Store(database) for _ in range(4)]
        tokens = []
        threads = [
            threading.Thread(target=lambda store=store: tokens.append(Keys(store).issue("")[0])) for store in opened
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        assert len(tokens) == 4
        assert all(Keys(opened[0]).check(token) for token in tokens)
        for store in opened:
            store.close()


class TestCommands:
    @pytest.fixture
    def run(self, tmp_path, monkeypatch):
        monkeypatch.setenv("LLMKIT_DATA_DIR", str(tmp_path / "data"))
        return lambda *args: CliRunner().invoke(commands, args)

    def test_a_key_is_printed_once_and_alone(self, run):
        done = run("add", "anna", "--budget", "5", "--presets", "fast, careful")

        assert done.exit_code == 0
        assert done.stdout.count("\n") == 1
        assert "not shown again" in done.stderr
        key = done.stdout.strip()
        listed = run("list").stdout
        assert key not in listed
        assert ("anna" in listed, key[:11] in listed, "of 5 USD" in listed, "careful,fast" in listed) == (True,) * 4
        (info,) = json.loads(run("list", "--json").stdout)
        assert (info["name"], info["models"], info["budget"]["budget"]["limit_usd"]) == ("anna", ["careful", "fast"], 5)
        assert key not in str(info)

    def test_a_key_whose_budget_was_removed_is_not_listed_as_one_without_a_limit(self, run):
        run("add", "anna", "--budget", "5")
        run("add", "ben")
        Budgets().remove("key:anna")

        listed = run("list")
        anna, ben = listed.stdout.splitlines()
        assert ("budget is gone" in anna, "no limit" in anna, "no limit" in ben) == (True, False, True)
        assert "llmkit budget set key:anna USD" in listed.stderr
        assert [each["budget_name"] for each in json.loads(run("list", "--json").stdout)] == ["key:anna", None]
        Budgets().set(Budget(name="key:anna", limit_usd=2))
        again = run("list")
        assert ("of 2 USD" in again.stdout, again.stderr) == (True, "")

    def test_a_key_is_removed(self, run):
        run("add", "anna")

        assert run("remove", "anna").exit_code == 0
        assert run("list").stdout == ""
        assert isinstance(run("remove", "anna").exception, ConfigError)

    def test_is_a_group_of_its_own(self):
        assert isinstance(commands, typer.Typer)
