"""Every block of the README and of docs/ runs as it stands there, and the site is built of them without a warning."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from documents import Reader, blocks

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]
RUN_BY_CI = {("README.md", 1), ("README.md", 2)}
"""The two commands of the README: `.ci/run` runs them, on a clean clone."""
NOT_RUN = {
    "docs/howto/engines.md": 4,
    "docs/howto/from-aixplain.md": 2,
    "docs/howto/from-litellm.md": 2,
    "docs/howto/from-llm.md": 1,
    "docs/howto/from-llmax.md": 2,
    "docs/howto/from-lwe.md": 2,
    "docs/howto/from-practicus.md": 2,
    "docs/howto/from-promptmodel.md": 3,
    "docs/howto/keys.md": 1,
    "docs/howto/ollama.md": 5,
    "docs/howto/team.md": 2,
    "docs/llm.md": 1,
    "docs/map.md": 1,
    "docs/tutorial.md": 2,
}
"""How many blocks of a page do not run; each says why."""
LOOKS_LIKE_CODE = re.compile(r"^(\$ |llmkit |pip |curl |import |from \w+ import )", re.MULTILINE)
PLAIN = {"text", "diff"}


def named(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", PAGES, ids=named)
@pytest.mark.timeout(300)
def test_every_block_of_a_page_runs(page, tmp_path, monkeypatch, capsys):
    with Reader(tmp_path, monkeypatch, capsys) as reader:
        for block in blocks(page):
            plain = block.language in PLAIN and not block.says("file")
            if plain or block.reason or (page.name, block.number) in RUN_BY_CI:
                continue
            printed = reader.run(block)
            assert printed.count("Paris") >= block.code.count("capital of France?"), f"{block}: {printed}"


def test_blocks_that_do_not_run_are_few_and_say_why():
    found = Counter(named(page) for page in PAGES for block in blocks(page) if block.reason)

    assert found == NOT_RUN


def test_what_runs_is_no_plain_text():
    plain = [block for page in PAGES for block in blocks(page) if block.language in PLAIN]

    assert [str(block) for block in plain if LOOKS_LIKE_CODE.search(block.code)] == []


def test_ci_runs_the_two_commands_of_the_readme():
    first, second = blocks(ROOT / "README.md")[:2]
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")

    assert (first.language, second.language, first.words, second.words) == ("sh", "sh", "", "")
    assert "readme_command 1" in script
    assert "readme_command 2" in script


def test_the_constraints_are_the_versions_of_the_lock():
    """pip refuses hashes in constraints, and is not to replace itself more than it has to."""
    pinned = re.compile(r"^([a-z0-9]\S*==\S+)", re.MULTILINE)
    lock, constraints = (
        pinned.findall((ROOT / name).read_text(encoding="utf-8")) for name in ("requirements.lock", "constraints.txt")
    )

    assert constraints == [one for one in lock if not one.startswith("pip==")]
    assert len(constraints) > 100


def test_the_readme_does_without_the_site():
    """Its links are files of the checkout."""
    links = re.findall(r"\]\(([^)#]+)", (ROOT / "README.md").read_text(encoding="utf-8"))

    assert [link for link in links if not link.startswith("https://") and not (ROOT / link).exists()] == []


def test_the_reference_is_what_the_code_says():
    spec = importlib.util.spec_from_file_location("make_reference", DOCS / "make_reference.py")
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)

    written = {path.name: path.read_text(encoding="utf-8") for path in (DOCS / "reference").glob("*.md")}
    assert written == made.pages()


def test_the_site_is_built_without_a_warning(tmp_path):
    quiet = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}  # the theme's word about its successor
    line = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=False, env=quiet)
    pages = list((tmp_path / "site").rglob("*.html"))

    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr
    assert len(pages) >= len(list(DOCS.rglob("*.md")))
    foreign = re.compile(r"<(?:script|link|img)\b[^>]*\b(?:src|href)=\"?(?:https?:)?//[^\"]*\"?[^>]*>")
    loaded = {found for page in pages for found in foreign.findall(page.read_text(encoding="utf-8"))}
    assert {tag for tag in loaded if "canonical" not in tag} == set()
