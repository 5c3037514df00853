"""Make the pictures of docs/pictures: the two pages in headless Chromium, and the terminal, all from the real program.

The numbers are seeded, so that a picture changes when the program does. Providers are played by a server on loopback;
the embedded model answers for itself. To add one: a function that yields names and files, in `PICTURES`.
"""

from __future__ import annotations

import contextlib
import io
import os
import pty
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.append(str(Path(__file__).parents[1] / "tests" / "support"))

from server import Answer, ScriptedServer

from llmkit import Budget, Budgets
from llmkit.money.ledger import LedgerRow
from llmkit.store import Store
from llmkit.store import ledger as rows_of_store

if TYPE_CHECKING:
    from collections.abc import Iterator

PICTURES = Path(__file__).parent / "pictures"
PROGRAM = (sys.executable, "-m", "llmkit")
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
WINDOWS: dict[str, dict[str, Any]] = {
    "": {"viewport": {"width": 1280, "height": 800}},
    "-phone": {"viewport": {"width": 390, "height": 844}},
    "-dark": {"viewport": {"width": 1280, "height": 800}, "color_scheme": "dark"},
}
WIDE = 106  # columns of the terminal
DAY_S = 86400.0
QUESTION = "How do I read a large CSV file without running out of memory?"
ANSWER = """Read it in **chunks**, and keep only what you need of each:

```python
import pandas as pd

total = 0
for chunk in pd.read_csv("sales.csv", chunksize=100_000):
    total += chunk.query("region == 'EU'")["amount"].sum()
print(total)
```

| way | memory | when |
|---|---:|---|
| `chunksize=` | one chunk | sums, filters |
| DuckDB | a limit you set | SQL over files |
"""
MODELS = {  # US dollars per thousand tokens, and how often it is asked
    "openai/gpt-4o": (0.006, 60),
    "anthropic/claude-sonnet-5-5": (0.009, 30),
    "openai/gpt-4o-mini": (0.0004, 90),
    "mistral/mistral-small": (0.0003, 25),
    "local/smollm2": (0.0, 20),
}
PRESETS = {
    "writer": ("Clear answers, with code where it helps", "You answer {{ audience }} in {{ language }}."),
    "review": ("Finds faults in a diff, the worst first", "You review code."),
}


def main() -> None:
    """Make all pictures, or those whose function is named."""
    PICTURES.mkdir(exist_ok=True)
    for make in (terminal, usage_page, serve_page):
        if sys.argv[1:] and make.__name__ not in sys.argv[1:]:
            continue
        with tempfile.TemporaryDirectory() as folder, _home(Path(folder)) as home:
            for file in make(home):
                print(file.relative_to(Path.cwd()) if file.is_relative_to(Path.cwd()) else file)


# -- the pages ---------------------------------------------------------------------------------------------------------


def usage_page(home: Path) -> Iterator[Path]:
    """The page of `llmkit usage --html`, and of a server's /usage."""
    _seed(home)
    page = home / "usage.html"
    subprocess.run([*PROGRAM, "usage", "--since", "30d", "--html", str(page)], check=True, stdout=subprocess.DEVNULL)
    for name, settings in WINDOWS.items():
        with _browser(**settings) as shown:
            shown.goto(page.as_uri())
            yield _shot(shown, f"usage{name}")


def serve_page(home: Path) -> Iterator[Path]:
    """The page of `llmkit serve` with a conversation on it."""
    _seed(home)
    short = Answer("`git revert HEAD` makes a new commit that undoes the last one.", usage=_usage(31, 18))
    long = Answer(ANSWER, usage=_usage(58, 213), end="slow", delay_s=0.015)
    with ScriptedServer(short, *[long] * len(WINDOWS)) as provider:
        _presets(home, f"{provider.url}/v1")
        with _served(*PRESETS) as address:
            for name, settings in WINDOWS.items():
                with _browser(**settings) as shown:
                    shown.goto(address)
                    if not name:
                        _ask(shown, "How do I undo my last commit?")
                        shown.click("#anew")
                        shown.mouse.move(640, 5)
                    _ask(shown, QUESTION)
                    shown.evaluate("document.activeElement.blur()")
                    yield _shot(shown, f"serve{name}")


@contextlib.contextmanager
def _browser(**settings: Any) -> Iterator[Any]:
    if BROWSER is None:
        sys.exit("there is no Chromium here to make pictures with")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=BROWSER, args=["--no-sandbox", "--hide-scrollbars"])
        yield browser.new_page(**settings)
        browser.close()


def _ask(page: Any, question: str) -> None:
    page.fill("#prompt", question)
    page.keyboard.press("Enter")
    page.wait_for_selector("article.assistant footer:has-text('tokens')")
    page.wait_for_selector("#list [aria-current]", state="attached")
    page.locator("#stop").wait_for(state="hidden")


def _shot(page: Any, name: str) -> Path:
    file = PICTURES / f"{name}.png"
    page.wait_for_timeout(300)
    page.screenshot(path=str(file))
    return file


@contextlib.contextmanager
def _served(*names: str) -> Iterator[str]:
    line = [*PROGRAM, "serve", *names, "--port", "8000"]
    with subprocess.Popen(line, stderr=subprocess.PIPE, text=True) as process:
        try:
            while "serving at " not in (said := process.stderr.readline()):  # type: ignore[union-attr]
                if not said:
                    sys.exit("llmkit serve did not start")
            yield said.strip().rpartition(" ")[2]
        finally:
            process.terminate()


# -- the terminal ------------------------------------------------------------------------------------------------------


def terminal(home: Path) -> Iterator[Path]:
    """The first commands of somebody new: an answer without a key, the key, models with prices, a quote."""
    del home
    os.environ.pop("OPENAI_API_KEY")
    os.environ["PYTHON_KEYRING_BACKEND"] = "keyring.backends.null.Keyring"
    key = ["keys", "set", "openai"]
    subprocess.run([*PROGRAM, *key], input="sk-of-nobody", text=True, check=True, stdout=subprocess.DEVNULL)
    os.environ["COLUMNS"] = str(WIDE)
    yield _typed(
        "terminal",
        ["llmkit", "What is the capital of France?"],
        ["llmkit", "keys"],
        ["llmkit", "models", "openai/gpt-4o-mini", "pdf"],
        ["llmkit", "quote", "-m", "openai/gpt-4o-mini", "-o", "max_tokens", "200", "Name a colour."],
    )


def _typed(name: str, *commands: list[str]) -> Path:
    """Run commands in a terminal, and draw what is seen there."""
    from rich.console import Console
    from rich.text import Text

    console = Console(record=True, width=WIDE, file=io.StringIO())
    for command in commands:
        shown = " ".join(f'"{word}"' if " " in word else word for word in command)
        console.print(Text.assemble(("$ ", "bold green"), shown))
        said = _output_of([*PROGRAM, *command[1:]]).replace(os.environ["HOME"], "~")
        console.print(Text.from_ansi(said))
    file = PICTURES / f"{name}.svg"
    # the letters of the reader's machine; a picture loads nothing from elsewhere
    drawn = re.sub(r"@font-face \{.*?\}\s*", "", console.export_svg(title="llmkit"), flags=re.DOTALL)
    file.write_text(drawn.replace("Fira Code, monospace", "ui-monospace, Menlo, Consolas, monospace"), encoding="utf-8")
    return file


def _output_of(command: list[str]) -> str:
    """Return what a command writes to a terminal."""
    ours, its = pty.openpty()
    seen = b""
    with subprocess.Popen(command, stdin=its, stdout=its, stderr=its):
        os.close(its)
        with contextlib.suppress(OSError):  # how Linux says that nobody has the other end any more
            while data := os.read(ours, 4096):
                seen += data
    os.close(ours)
    return seen.decode(errors="replace").replace("\r\n", "\n").rstrip("\n")


# -- the seeded home ---------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _home(folder: Path) -> Iterator[Path]:
    """A home folder of nobody's, with the embedded model's weights of this machine."""
    before = dict(os.environ)
    cache = before.get("LLMKIT_CACHE_DIR", str(Path.home() / ".cache" / "llmkit"))
    kept = {name: before[name] for name in ("PATH", "LANG", "TMPDIR") if name in before}
    os.environ.clear()
    os.environ.update(kept, HOME=str(folder), LLMKIT_CACHE_DIR=cache, TERM="xterm-256color", COLUMNS="88")
    os.environ["LLMKIT_DATABASE"] = f"sqlite:///{folder / 'llmkit.db'}"
    os.environ["OPENAI_API_KEY"] = "none"
    try:
        yield folder
    finally:
        os.environ.clear()
        os.environ.update(before)


def _usage(prompt: int, completion: int) -> dict[str, int]:
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


def _presets(home: Path, address: str) -> None:
    folder = home / "presets"
    folder.mkdir(exist_ok=True)
    os.environ["LLMKIT_PRESETS"] = str(folder)
    for name, (description, system) in PRESETS.items():
        lines = [f"description: {description}", "model: openai/gpt-4o", f"system: {system}"]
        lines += ["params:", f"  api_base: {address}"]
        if "{{" in system:
            lines += ["variables:", "  language: English", "  audience: colleagues"]
        (folder / f"{name}.yaml").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _seed(home: Path) -> None:
    """A month of a small team: weekdays and weekends, retries, errors, a model without a price."""
    dice, store, now = random.Random(7), Store(home / "llmkit.db"), time.time()
    made = []
    for ago in range(30):
        at = now - ago * DAY_S
        busy = 0.25 if time.gmtime(at).tm_wday >= 5 else 1.0
        for model, (price, often) in MODELS.items():
            for number in range(int(often * busy * dice.uniform(0.5, 1.2))):
                made += _call(dice, f"{ago}-{model}-{number}", model, price, at - dice.random() * 3600 * 4)
    with store.database.writing() as connection:
        rows_of_store.add_rows(connection, [asdict(row) for row in made])
    Budgets(store).set(Budget(name="team", limit_usd=60.0, period="month"))
    store.close()


def _call(dice: random.Random, call: str, model: str, price: float, at: float) -> Iterator[LedgerRow]:
    usual = dict.fromkeys(LedgerRow.__dataclass_fields__) | {"call": call, "asked": model, "deployment": model}
    usual |= {"at": at, "kind": "chat", "tags": (), "attempt": 1}
    if dice.random() < 0.03:
        yield LedgerRow(**usual | {"status": "RateLimitError", "latency_s": dice.uniform(0.1, 0.4)})
        usual["attempt"] = 2
    prompt, completion = dice.randrange(200, 4000), dice.randrange(50, 900)
    cached = prompt // 3 if dice.random() < 0.4 else 0
    usual |= {"prompt_tokens": prompt, "completion_tokens": completion, "cached_tokens": cached, "status": "ok"}
    cost = price * (prompt + completion * 3 - cached / 2) / 1000
    latency = dice.lognormvariate(0.3, 0.5) + completion / 400
    yield LedgerRow(**usual | {"cost_usd": cost, "source": "priced", "answered": model, "latency_s": latency})


if __name__ == "__main__":
    main()
