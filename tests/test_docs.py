"""The README's Python code runs as it stands there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
BLOCKS = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)


@pytest.mark.parametrize("code", BLOCKS, ids=[f"block {number}" for number in range(1, len(BLOCKS) + 1)])
def test_the_code_of_the_readme_runs(code, capsys):
    exec(compile(code, "README.md", "exec"), {"__name__": "__main__"})

    printed = capsys.readouterr().out
    if "capital of France" in code:
        assert printed.count("Paris") == 2
    if "except llmkit.ProviderError" in code:
        assert printed.startswith("APIConnectionError None True None no connection to http://127.0.0.1:9")


def test_the_preset_of_the_readme_is_one(tmp_path):
    from llmkit import presets

    yaml = re.search(r"```yaml\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)[1]
    (tmp_path / "brief.yaml").write_text(yaml)

    assert presets.load(str(tmp_path / "brief.yaml")).system == "Answer in one short sentence."
