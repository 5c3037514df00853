"""What reaches a terminal: texts only. What goes to a file or a pipe: each byte as it came."""

from __future__ import annotations

import contextlib
import json
import re
import shlex
import subprocess
import sys

import pytest
from commands import MODULE, run
from commands import on_terminal as shown
from server import Answer, Status

import llmkit
from llmkit import Budget, Budgets, ChatModel, ConfigError, Ledger
from llmkit.money import report
from llmkit.store import Store
from llmkit.testing import ScriptedBackend, reply

CONTROLS = [*(chr(code) for code in range(32) if chr(code) not in "\n\t"), *(chr(code) for code in range(0x7F, 0xA0))]
OVERRIDES = [chr(code) for code in (*range(0x202A, 0x202F), *range(0x2066, 0x206A))]
EVIL = (
    "A\x1b]52;c;ZXZpbA==\x07B\x1b]0;title\x07\x1b]8;;http://evil\x1b\\link\x1b]8;;\x1b\\\x1b[2J\x1b[31mred\x1bP+q\x1b\\C"
    f"\x9b2J\x9d0;t\x9c\x08\x0b\x0c\r\x7fD {''.join(OVERRIDES)}E\tF\nG \x1b]open"
)
LEFT = "A]52;c;ZXZpbA==B]0;title]8;;http://evil\\link]8;;\\[2J[31mredP+q\\C2J0;tD E\tF\nG ]open"
DRAWN = re.compile(r"\x1b\[[0-9;?]*[mKAGhl]")  # what rich draws with: colours, lines, the cursor


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch, server):
    """Folders of the user, and a preset that asks the scriptable server."""
    monkeypatch.setenv("LLMKIT_CONFIG_DIR", str(tmp_path / "config"))
    monkeypatch.setenv("LLMKIT_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("LLMKIT_MODEL", "openai/gpt-4o")
    monkeypatch.setenv("OPENAI_BASE_URL", f"{server.url}/v1")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-the-tests")
    monkeypatch.setenv("PYTHONIOENCODING", "utf-8")


@pytest.fixture
def store(tmp_path):
    """The store that the commands use."""
    (tmp_path / "data").mkdir()
    return Store(tmp_path / "data" / "llmkit.db")


def nothing_is_obeyed(text):
    assert not [sign for sign in (*CONTROLS, *OVERRIDES) if sign in text], text


# -- answers --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", [(), ("--no-stream",), ("--json",), ("-u",)])
def test_s9_an_answer_is_a_text(server, form):
    server.script = [Answer(EVIL)]

    text = shown(*form, "say hi")

    nothing_is_obeyed(text)
    if form != ("--json",):
        assert LEFT in text


def test_s9_a_stream_that_parts_a_sequence_is_a_text(server):
    server.script = [Answer(deltas=[{"content": piece} for piece in EVIL])]

    nothing_is_obeyed(shown("say hi"))


@pytest.mark.parametrize("form", [(), ("--no-stream",)])
def test_s9_what_is_piped_is_what_came(server, form):
    server.script = [Answer(EVIL)]

    done = subprocess.run([*MODULE, *form, "hi"], capture_output=True, check=True)

    assert done.stdout == f"{EVIL}\n".encode()


def test_s9_an_error_of_a_provider_is_a_text(server):
    server.script = [Status(400, body={"error": {"message": EVIL}})]

    nothing_is_obeyed(shown("say hi", code=1))


def test_s9_a_template_and_its_answer_are_texts(server, tmp_path):
    (tmp_path / "t.md").write_text("hi")
    server.script = [Answer(EVIL), Answer(EVIL)]

    nothing_is_obeyed(shown("run", "./t.md"))
    nothing_is_obeyed(shown("run", "./t.md", "--no-stream"))


@pytest.mark.parametrize("plain", [True, False])
def test_s9_a_chat_shows_texts_and_what_llmkit_draws(server, monkeypatch, plain):
    server.script = [Answer(f"{EVIL}\n\n[bank](https://evil.example) **bold**")]
    monkeypatch.setenv("TERM", "dumb" if plain else "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)

    text = shown("chat", typed="hi\n/cost\n/exit\n")

    drawn = DRAWN.sub("", text).replace("\r", "")  # rich and readline move to the beginning of a line
    nothing_is_obeyed(drawn)
    assert "title" in drawn
    assert "https://evil.example" in drawn


# -- what is kept ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("words", ["list", "search owls", "show {id}", "export {id}", "list --json"])
def test_s9_a_session_is_shown_as_texts(store, words):
    chat = ChatModel(llmkit.presets.Preset(model=f"openai/{EVIL}"), store=store, backend=ScriptedBackend(EVIL))
    chat.add_messages([{"role": "user", "content": f"owls {EVIL}"}])
    chat.run()
    chat.rename(EVIL)

    text = shown("sessions", *words.format(id=chat.session_uuid).split())

    nothing_is_obeyed(text)
    assert text.strip()


@pytest.mark.parametrize("words", ["usage", "usage --csv", "usage --json", "usage --plot --by model,tag"])
def test_s9_usage_is_shown_as_texts(store, words):
    ledger = Ledger(store.url, durable=True)
    options = {"ledger": ledger, "tags": [EVIL, "=1+1"], "backend": ScriptedBackend(reply("x"))}
    llmkit.ask("hi", model=f"openai/{EVIL}", **options)

    text = shown(*words.split())

    nothing_is_obeyed(text)
    assert "openai" in text


def test_usage_as_csv_is_no_program_for_a_spreadsheet_nor_for_a_terminal(store):
    tags = ["=1+1", "+1", "-1", "@SUM(A1)", "\tx", "a=b", EVIL, 'a"b,c']
    ledger = Ledger(store.url)
    llmkit.ask("hi", model="openai/gpt-4o", ledger=ledger, tags=tags, backend=ScriptedBackend(reply("x")))

    (lines,) = report.summarise(ledger, ["tag"])
    text = report.as_csv(lines, ["tag"])

    nothing_is_obeyed(text.replace("\r\n", "\n"))
    for cell in ("'=1+1,", "'+1,", "'-1,", "'@SUM(A1),", "'?x,", "\na=b,", '"a""b,c"'):
        assert cell in text


def test_a_budget_has_a_name_that_can_be_shown(store):
    for name in ("a\x1b]0;x\x07", "a\nb", "a\u202eb", "\x9b2J"):
        with pytest.raises(ConfigError, match="name cannot be"):
            Budget(name=name, limit_usd=1)
    Budgets(store).set(Budget(name="für Ausgaben <script>", limit_usd=1, scope={"tag": EVIL}))

    nothing_is_obeyed(shown("budget", "list"))
    nothing_is_obeyed(shown("budget", "show", "für Ausgaben <script>", "--json"))


@pytest.mark.parametrize("words", ["list", "show p", "explain p", "check", "show p --json", "trust presets/p.yaml"])
def test_s9_a_preset_is_shown_as_texts(tmp_path, words):
    (tmp_path / "presets").mkdir()
    text = f"description: {json.dumps(EVIL)}\nmodel: {json.dumps('openai/' + EVIL)}\nsystem: {json.dumps(EVIL)}\n"
    (tmp_path / "presets" / "p.yaml").write_text(text)
    (tmp_path / "presets" / "q.yaml").write_text(f"{json.dumps(EVIL)}: 1\nmodel: 5\n")
    (tmp_path / "presets" / "\x1b]0;x\x07.yaml").write_text("model: openai/gpt-4o\n")

    nothing_is_obeyed(shown("presets", *words.split(), code=1 if words == "check" else 0))


def test_s9_a_job_is_shown_as_texts(store):
    from llmkit import LLM

    job = LLM("openai/gpt-4o", store=store, backend=ScriptedBackend(EVIL)).run_async("hi", name=EVIL)
    job_id = str(job.url)
    with contextlib.suppress(TimeoutError):
        LLM("openai/gpt-4o", store=store).sync_poll(job_id, timeout=10)

    nothing_is_obeyed(shown("runs", "list"))


def test_s9_settings_and_wrong_words_are_shown_as_texts():
    subprocess.run([*MODULE, "config", "set", "model.default_system_message", EVIL], check=True, capture_output=True)

    nothing_is_obeyed(shown("config", "list"))
    nothing_is_obeyed(shown("config", "get", "model.default_system_message"))
    nothing_is_obeyed(shown("config", "get", EVIL, code=2))
    nothing_is_obeyed(shown("-p", EVIL, "x", code=2))
    nothing_is_obeyed(shown("presets", EVIL, code=2))


# -- streams that are full, or closed -------------------------------------------------------------------------------


def with_streams(words, redirected):
    """Return what `llmkit WORDS` did with its streams as a shell redirects them."""
    command = shlex.join([*MODULE, *words])
    return subprocess.run(["sh", "-c", f"{command} {redirected}"], capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    "words",
    [["-n", "hi"], ["-n", "--json", "hi"], ["presets", "list"], ["--help"], ["--version"], ["usage", "-h"]],
)
def test_a_full_disk_is_told_in_a_line(words):
    done = with_streams(words, "</dev/null >/dev/full")

    assert done.returncode == 1
    assert done.stderr == "llmkit: the output cannot be written: No space left on device\n"


def test_where_nobody_can_be_told_the_exit_code_says_it():
    assert with_streams(["-n", "-o", "temprature", "0", "hi"], "</dev/null 2>/dev/full").returncode == 2


@pytest.mark.parametrize("words", [["-n", "hi"], ["presets", "list"]])
def test_a_closed_stdout_is_like_dev_null(words):
    done = with_streams(words, "</dev/null >&-")

    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("words", [[], ["hi"], ["chat"]])
def test_a_closed_stdin_is_like_dev_null(words):
    closed, empty = with_streams(words, "<&-"), with_streams(words, "</dev/null")

    assert "Traceback" not in closed.stderr
    assert (closed.returncode, closed.stdout) == (empty.returncode, empty.stdout)


def test_a_message_does_not_go_to_stdout_because_stderr_is_closed():
    done = with_streams(["--json", "--save", "new", "hi"], "</dev/null 2>&-")

    assert json.loads(done.stdout)["model"]


@pytest.mark.parametrize("locale", ["C", "C.UTF-8"])
@pytest.mark.parametrize(
    ("words", "told"),
    [(["-n", "hi"], "; attach a file with -a -"), (["keys", "set", "openai"], ""), (["chat", "-n"], "")],
)
def test_bytes_on_stdin_that_are_no_text_are_told_in_any_locale(tmp_path, monkeypatch, locale, words, told):
    monkeypatch.delenv("PYTHONIOENCODING")
    monkeypatch.setenv("LC_ALL", locale)
    (tmp_path / "bytes").write_bytes(b"\xff\xfe\x00")

    done = with_streams(words, f"<{tmp_path}/bytes")

    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines()[-1] == f"llmkit: stdin is not text{told}"


@pytest.mark.parametrize(
    "words",
    [("sessions", "show", "a\udcff"), ("-n", "-m", "openai/a\udcff", "hi"), ("-n", "--budget", "a\udcff", "hi")],
)
def test_an_argument_that_is_no_text_is_told(words):
    done = run(words)

    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(r"llmkit: '(openai/)?a\\udcff' is not text\n", done.stderr)


def test_a_file_whose_name_is_no_text_is_read(server, tmp_path):
    (tmp_path / "dog\udcff.json").write_text('{"type": "object"}')
    server.script = [Answer("{}")]

    assert run(["-n", "--schema", "dog\udcff.json", "a dog"], cwd=tmp_path).stdout == "{}\n"


INTERRUPTED = """
import signal, sys

class Finder:
    def find_spec(name, *_):
        if name == {name!r}:
            signal.raise_signal(signal.SIGINT)

sys.meta_path.insert(0, Finder)
from llmkit.cli import main

main()
"""


@pytest.mark.parametrize("name", ["llmkit.cli.terminal", "llmkit.config.trust", "llmkit.cli.quick", "typer"])
def test_control_c_during_the_start_is_quiet(name):
    code = INTERRUPTED.format(name=name)
    done = subprocess.run([sys.executable, "-c", code, "models"], capture_output=True, text=True, check=False)

    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")
