"""The Python code of the README and of the documents runs as it stands there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = [
    ROOT / "README.md",
    *(ROOT / "docs" / f"{name}.md" for name in ("client", "presets", "backend", "chat", "ledger")),
]
BLOCKS = [
    pytest.param(code, id=f"{page.name} {number}")
    for page in PAGES
    for number, code in enumerate(re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL), 1)
]


@pytest.mark.parametrize("code", BLOCKS)
def test_the_code_of_the_documents_runs(code, capsys):
    exec(compile(code, "document", "exec"), {"__name__": "__main__"})

    printed = capsys.readouterr().out
    assert printed.count("Paris") >= code.count("capital of France")
    if "except llmkit.ProviderError" in code:
        assert printed.startswith("APIConnectionError None True None no connection to http://127.0.0.1:9")


def test_the_preset_of_the_readme_is_one(tmp_path):
    from llmkit import presets

    yaml = re.search(r"```yaml\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)[1]
    (tmp_path / "brief.yaml").write_text(yaml)

    assert presets.load(str(tmp_path / "brief.yaml")).system == "Answer in one short sentence."
