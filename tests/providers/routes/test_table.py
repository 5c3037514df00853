"""Which routes are known: llmkit's own, those learned on this machine, and with other versions of LiteLLM."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace

import pytest
from commands import program
from server import ANSWER
from typer.testing import CliRunner

from llmkit.cli import app
from llmkit.providers.litellm.sdk import load
from llmkit.providers.routes import sources
from llmkit.providers.routes.behaviour import Behaviour
from llmkit.providers.routes.learning import access
from llmkit.providers.routes.learning.later import Later
from llmkit.providers.routes.table import FOLDER, UNLEARNABLE, Table, table

NEW = "gpt-9-mini"
"""A name for which no route is known, since its kin behave in different ways."""


@pytest.fixture
def known(tmp_path):
    """The shipped routes, and a folder of the test's own for what is learned."""
    return Table(FOLDER, table().package, table().version, tmp_path / "routes")


def test_routes_have_no_secret_and_are_readable_as_json():
    for name in table().names():
        text = (FOLDER / f"{name}.json").read_text(encoding="utf-8")
        assert json.loads(text)["name"] == name
        assert "sk-" not in text.replace('"sk-ant-oat"', "")  # not a key but the beginning of a kind of keys
        assert "probe.invalid" not in text
        assert "unknown.invalid" not in text
    shown = json.loads(table().route_of("openai/gpt-4o").as_json())
    assert shown["access"]["base"] == "https://api.openai.com/v1"
    assert shown["access"]["key_variables"] == ["OPENAI_API_KEY"]


def test_a_model_of_an_unknown_kind_is_learned_once_and_kept(known, tmp_path):
    assert known.route_of(f"openai/{NEW}") is None
    later = Later(known)
    later.want(f"openai/{NEW}")
    later.wait(60)

    learned = known.route_of(f"openai/{NEW}")
    again = Table(FOLDER, table().package, table().version, tmp_path / "routes")

    assert learned is not None
    assert again.route_of(f"openai/{NEW}") == learned
    (file,) = (tmp_path / "routes").rglob("*.json")
    assert oct(file.stat().st_mode & 0o777) == "0o600"
    assert oct(file.parent.stat().st_mode & 0o777) == "0o700"
    assert "api.openai.com" not in file.read_text(encoding="utf-8")


def test_what_was_learned_holds_for_its_version_of_litellm_only(known, tmp_path):
    known.keep("openai", NEW, known.route_of("openai/gpt-4o").behaviour, {})
    assert known.route_of(f"openai/{NEW}") is not None

    other = Table(FOLDER, table().package, "1.999.0", tmp_path / "routes")

    assert other.route_of(f"openai/{NEW}") is None


@pytest.mark.parametrize("spoil", ["mode", "link", "garbage", "half", "shape"])
def test_a_file_that_is_not_the_users_own_is_not_read(known, tmp_path, spoil):
    known.keep("openai", NEW, known.route_of("openai/gpt-4o").behaviour, {})
    (file,) = (tmp_path / "routes").rglob("*.json")
    text = file.read_text(encoding="utf-8")
    if spoil == "mode":
        file.chmod(0o644)
    elif spoil == "link":
        file.rename(tmp_path / "elsewhere.json")
        file.symlink_to(tmp_path / "elsewhere.json")
    else:
        bad = {"garbage": "{]", "half": text[: len(text) // 2], "shape": '{"behaviours": [3], "access": {}}'}
        file.write_text(bad[spoil], encoding="utf-8")

    again = Table(FOLDER, table().package, table().version, tmp_path / "routes")

    assert again.route_of(f"openai/{NEW}") is None
    assert again.route_of("openai/gpt-4o") is not None


def test_an_address_in_a_learned_file_counts_for_nothing(known, tmp_path):
    known.keep("openai", NEW, known.route_of("openai/gpt-4o").behaviour, {})
    (file,) = (tmp_path / "routes").rglob("*.json")
    data = json.loads(file.read_text(encoding="utf-8"))
    data["access"] |= {"base": "https://evil.example/v1", "headers": {"x": "y"}}
    file.write_text(json.dumps(data), encoding="utf-8")

    again = Table(FOLDER, table().package, table().version, tmp_path / "routes")

    assert again.route_of(f"openai/{NEW}").access == table().route_of("openai/gpt-4o").access


@pytest.mark.parametrize("changed", [{"habits": 5}, {"effects": {"kept": [7]}}, {"added": ["x"]}, {"apart": [[1]]}])
def test_a_learned_file_with_other_types_counts_for_nothing(known, tmp_path, changed):
    known.keep("openai", NEW, known.route_of("openai/gpt-4o").behaviour, {})
    (file,) = (tmp_path / "routes").rglob("*.json")
    data = json.loads(file.read_text(encoding="utf-8"))
    data["behaviours"][0] |= changed
    file.write_text(json.dumps(data), encoding="utf-8")

    assert Table(FOLDER, table().package, table().version, tmp_path / "routes").route_of(f"openai/{NEW}") is None


def test_a_model_without_a_route_is_not_asked_about_again(known, tmp_path):
    known.keep("openai", NEW, None, {})

    again = Table(FOLDER, table().package, table().version, tmp_path / "routes")

    assert again.route_of(f"openai/{NEW}") is None
    assert again.knows("openai", NEW)


def test_what_no_route_can_ask_has_none():
    """Else no check of it would fail: as of Azure's regional names, which cannot be in an address."""
    for name in table().names():
        known = table().provider(name)
        for model in [model for model, (at, _) in known.models.items() if at != UNLEARNABLE]:
            asked = access.request_of(name, model)
            assert table().route_of(f"{name}/{model}").request(asked, stream=False) is not None, model


# -- another LiteLLM --------------------------------------------------------------------------------------------------

PARTS = ("llms/openai", "llms/openai_like", "llms/base_llm", "llms/mistral", "litellm_core_utils")


@pytest.fixture
def package(tmp_path):
    """A copy of the parts of LiteLLM that matter, to be changed."""
    copied = tmp_path / "litellm"
    for part in PARTS:
        shutil.copytree(table().package / part, copied / part)
    shutil.copy(table().package / sources.PRICES, copied / sources.PRICES)
    return copied


def other_table(package, tmp_path):
    return Table(FOLDER, package, "1.999.0", tmp_path / "routes")


def test_routes_hold_with_another_version_that_has_the_same_parts(package, tmp_path):
    other = other_table(package, tmp_path)

    assert other.route_of("openai/gpt-4o") == table().route_of("openai/gpt-4o")
    assert other.route_of("mistral/mistral-small-latest") is not None


@pytest.mark.parametrize(
    ("part", "lost", "kept"),
    [
        ("llms/mistral/chat/transformation.py", "mistral/mistral-small-latest", "openai/gpt-4o"),
        ("llms/openai/chat/gpt_transformation.py", "openai/gpt-4o", None),
        ("litellm_core_utils/get_llm_provider_logic.py", "mistral/mistral-small-latest", None),
    ],
)
def test_a_changed_part_ends_the_routes_that_came_from_it(package, tmp_path, part, lost, kept):
    with (package / part).open("a", encoding="utf-8") as file:
        file.write("\n# changed\n")

    other = other_table(package, tmp_path)

    assert other.route_of(lost) is None
    assert kept is None or other.route_of(kept) is not None


def test_a_changed_price_ends_the_route_to_its_model(package, tmp_path):
    prices = json.loads((package / sources.PRICES).read_text(encoding="utf-8"))
    prices["gpt-4o"]["input_cost_per_token"] *= 2
    (package / sources.PRICES).write_text(json.dumps(prices), encoding="utf-8")

    other = other_table(package, tmp_path)

    assert other.route_of("openai/gpt-4o") is None
    assert other.entry_of("openai/gpt-4o") is None
    assert other.route_of("openai/gpt-4o-mini") is not None


CHANGED = "llms/openai/chat/gpt_transformation.py"


@pytest.fixture
def newer(package, tmp_path):
    """The table with a LiteLLM whose parts have changed."""
    with (package / CHANGED).open("a", encoding="utf-8") as file:
        file.write("\n# changed\n")
    return other_table(package, tmp_path)


def learned(table, *models, **how):
    later = Later(table, **how)
    for model in models:
        later.want(model)
    later.wait(60)


@pytest.mark.parametrize("model", ["openai/gpt-4o", "mistral/mistral-small-latest", "azure/gpt-4o", "zai/glm-4.6"])
def test_a_route_of_changed_parts_is_compared_again_and_kept(newer, package, tmp_path, model):
    assert newer.route_of(model) is None
    assert newer.entry_of(model) is None

    learned(newer, model)
    again, shipped = other_table(package, tmp_path), table().route_of(model)
    found = again.route_of(model)

    assert (found.access, found.behaviour) == (shipped.access, shipped.behaviour)
    assert found.price == {name: value for name, value in shipped.price.items() if name != "hash"}
    assert again.entry_of(model) == found.price


def test_a_model_of_changed_parts_that_is_in_no_file_is_learned_too(newer):
    learned(newer, f"openai/{NEW}")

    assert newer.route_of(f"openai/{NEW}") is not None
    assert newer.entry_of(f"openai/{NEW}") == {}


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("OPENAI_ORGANIZATION", "org-1"),
        ("OPENAI_BASE_URL", "http://user:word@127.0.0.1/v1"),
        ("OPENAI_BASE_URL", "http://127.0.0.1/v1?a=b"),
    ],
    ids=["organization", "user", "query"],
)
def test_nothing_is_learned_while_a_variable_changes_what_litellm_sends(newer, known, monkeypatch, variable, value):
    monkeypatch.setenv(variable, value)

    learned(newer, "openai/gpt-4o", f"openai/{NEW}")
    learned(known, f"openai/{NEW}")

    assert not any(newer.knows("openai", model) for model in ("gpt-4o", NEW))
    assert not known.knows("openai", NEW)


@pytest.mark.parametrize("after", [0, 30, 120])
def test_nothing_is_learned_of_a_litellm_that_the_program_changes_meanwhile(newer, after):
    litellm, asked = load(), iter(range(10_000))

    def goes_on():
        litellm.drop_params = next(asked) >= after
        return True

    try:
        learned(newer, "openai/gpt-4o", goes_on=goes_on)
    finally:
        litellm.drop_params = False

    assert not newer.knows("openai", "gpt-4o")
    assert next(asked) < after + 10  # and nothing more is asked


@pytest.mark.parametrize("name", ["LITELLM_DROP_PARAMS", "LITELLM_ENABLE_ANTHROPIC_PROMPT_CACHING"])
@pytest.mark.parametrize(("value", "is_used"), [("true", False), ("false", True), ("", True)])
def test_no_route_is_used_while_a_switch_of_litellms_is_on(monkeypatch, tmp_path, name, value, is_used):
    package, version = table().package, table().version
    monkeypatch.setenv(name, value)
    made = Table(FOLDER, package, version, tmp_path / "routes")

    assert (made.route_of("anthropic/claude-haiku-4-5") is not None) == is_used


def test_a_model_that_could_not_be_learned_is_asked_about_again_when_wanted(known):
    known.keep("openai", NEW, None, {})
    known.keep("openai", f"{NEW}-2", None, {})

    known.drop(f"openai/{NEW}")
    learned(known, f"openai/{NEW}")

    assert known.route_of(f"openai/{NEW}") is not None
    assert known.knows("openai", f"{NEW}-2")


def test_a_price_that_has_changed_is_learned_again(package, tmp_path):
    prices = json.loads((package / sources.PRICES).read_text(encoding="utf-8"))
    prices["gpt-4o"]["input_cost_per_token"] *= 2  # the one that is imported has the usual price
    (package / sources.PRICES).write_text(json.dumps(prices), encoding="utf-8")
    other = other_table(package, tmp_path)

    learned(other, "openai/gpt-4o")

    assert other.entry_of("openai/gpt-4o")["in"] == table().entry_of("openai/gpt-4o")["in"]
    assert other.route_of("openai/gpt-4o").behaviour == table().route_of("openai/gpt-4o").behaviour


@pytest.mark.parametrize(
    ("model", "changed"),
    [
        ("mistral/mistral-small-latest", {"base": "https://api.mistral.example/v1"}),
        ("mistral/mistral-small-latest", {"key_header": "x-api-key"}),
        ("mistral/mistral-small-latest", {"headers": {"x-more": "1"}}),
        ("mistral/mistral-small-latest", {"forms": ["none"]}),
        ("anthropic/claude-haiku-4-5", {"other_keys": []}),
    ],
    ids=["base", "key_header", "headers", "forms", "other_keys"],
)
def test_another_way_to_a_provider_ends_its_routes(package, tmp_path, model, changed):
    folder, (name, _, bare) = tmp_path / "table", model.partition("/")
    folder.mkdir()
    known = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    (folder / f"{name}.json").write_text(
        json.dumps({**known, "access": {**known["access"], **changed}, "sources": {}}), encoding="utf-8"
    )
    other = Table(folder, package, "1.999.0", tmp_path / "routes")

    learned(other, model)

    assert other.route_of(model) is None
    assert other.knows(name, bare)  # it is not asked again


def test_learning_goes_on_where_a_program_ended(newer, package, tmp_path):
    seen = []
    while not other_table(package, tmp_path).knows("openai", "gpt-4o"):
        questions = iter(range(40))
        learned(newer, "openai/gpt-4o", goes_on=lambda left=questions: next(left, None) is not None)
        seen += [done for done, _ in begun(tmp_path).values()]
        assert len(seen) < 20

    assert len(seen) > 2
    assert seen == sorted(set(seen))
    assert begun(tmp_path) == {}
    assert other_table(package, tmp_path).route_of("openai/gpt-4o") is not None


def begun(tmp_path):
    (file,) = (tmp_path / "routes").rglob("begun")
    return json.loads(file.read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    "text", ["{]", "[]", "[" * 100_000, '{"openai/gpt-4o": 3}', '{"openai/gpt-4o": [9999, 155]}'], ids=range(5)
)
def test_a_note_of_what_was_seen_that_makes_no_sense_counts_for_nothing(newer, tmp_path, text):
    newer.see("openai/gpt-4o", 1, of=2)
    (file,) = (tmp_path / "routes").rglob("begun")
    file.write_text(text, encoding="utf-8")

    assert newer.seen("openai/gpt-4o", of=155) == 0


# -- the command ------------------------------------------------------------------------------------------------------


def command(*words):
    return CliRunner().invoke(app, ["routes", *words])


def test_the_command_shows_what_is_known():
    listed = command("list").stdout

    assert all(name in listed for name in table().names())
    assert json.loads(command("show", "openai/gpt-4o").stdout)["model"] == "gpt-4o"


def test_the_command_says_what_has_no_route():
    shown = command("show", "bedrock/anthropic.claude-3")

    assert shown.exit_code == 2
    assert "through LiteLLM" in shown.stderr
    assert command("learn", "bedrock/anthropic.claude-3").exit_code == 2


def test_the_command_compares_with_litellm(monkeypatch):
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")

    assert command("check", "openai/gpt-4o-mini").stdout == "no difference\n"
    unknown = command("check", "openai/gpt-9-mini")

    assert (unknown.exit_code, "there is no route" in unknown.stdout) == (1, True)


def test_routes_can_be_switched_off(monkeypatch):
    monkeypatch.setenv("LLMKIT_ROUTES", "off")

    assert table().route_of("openai/gpt-4o") is None


def test_a_route_is_frozen():
    route = table().route_of("openai/gpt-4o")

    with pytest.raises(AttributeError):
        route.model = "other"
    assert replace(route, behaviour=Behaviour(effects={})) != route


def test_a_call_through_litellm_is_learned_for_the_next_program(server, tmp_path, monkeypatch):
    monkeypatch.setenv("LLMKIT_DATA_DIR", str(tmp_path))
    at = {"api_key": "k", "api_base": f"{server.url}/v1"}
    script = (
        "import llmkit, sys\n"
        f"print(llmkit.ask('hi', model='openai/{NEW}', **{at!r}).route)\n"
        "from llmkit.providers.routes import backend\n"
        "backend.wait_for_learning(60)\n"
    )
    first, second = program(script), program(script)

    assert (first.stdout, second.stdout) == ("litellm\n", "direct\n")
    assert [path.name for path in (tmp_path / "routes").iterdir()] == [table().version]


def test_learning_ends_before_the_interpreter_does(server, tmp_path, monkeypatch):
    monkeypatch.setenv("LLMKIT_DATA_DIR", str(tmp_path))
    at = {"api_key": "k", "api_base": f"{server.url}/v1"}
    script = (
        "import atexit, threading\n"
        "atexit.register(lambda: print([one.name for one in threading.enumerate()]))\n"  # the last to be called
        "import llmkit\n"
        f"llmkit.ask('hi', model='openai/{NEW}', **{at!r})\n"
        "print('llmkit-routes' in [one.name for one in threading.enumerate()])\n"
    )
    from test_direct import run

    begun, left = run(script).splitlines()

    assert begun == "True"
    assert "llmkit-routes" not in left
    assert not (tmp_path / "routes").exists()


PRESSES = """
import os, runpy, signal, threading

start, join = threading.Thread.start, threading.Thread.join
is_waited_for = threading.Event()

def late(thread):
    if thread.name == "llmkit-routes":
        run = thread.run
        thread.run = lambda: (is_waited_for.wait(60), run())
    start(thread)

def press(thread, timeout=None):
    if thread.name == "llmkit-routes" and threading.current_thread() is threading.main_thread():
        threading.Thread.join = join
        print("pressed")
        is_waited_for.set()
        os.kill(os.getpid(), signal.SIGINT)
    join(thread, timeout)

threading.Thread.start, threading.Thread.join = late, press
runpy.run_module("llmkit", run_name="__main__")
"""
"""The command, with one who presses Ctrl-C when it waits for what is learned; before that nothing is."""


def test_ctrl_c_after_the_answer_ends_the_learning_in_peace(server, tmp_path, monkeypatch):
    monkeypatch.setenv("LLMKIT_DATA_DIR", str(tmp_path))
    words = ["-m", f"openai/{NEW}", "-o", f"api_base={server.url}/v1", "-o", "api_key=k", "hi"]

    done = subprocess.run(
        [sys.executable, "-c", PRESSES, *words], capture_output=True, text=True, timeout=60, check=False
    )

    assert (done.stdout, done.stderr, done.returncode) == (f"{ANSWER}\npressed\n", "", 0)
