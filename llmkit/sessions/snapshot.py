"""The preset of a session: chosen when it is made, kept without secrets, and found again."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmkit.errors import InvalidRequestError
from llmkit.prepare import with_default

if TYPE_CHECKING:
    from llmkit.presets import Preset
    from llmkit.store import SessionInfo

DEPLOY = "deploy"


def chosen(name: str | Preset, version: str | int) -> Preset:
    """Return the preset of a new session, with the model that answers it."""
    from llmkit import presets

    preset = presets.load(name, None if version == DEPLOY else version) if isinstance(name, str) else name
    if not isinstance(preset, presets.Preset):
        raise InvalidRequestError(f"a session is made with a preset's name or a Preset, not {name!r}")
    model, whole = with_default(None, preset)
    return whole.changed(model=model) if whole else presets.Preset(model=model)


def snapshot_of(preset: Preset) -> dict[str, Any]:
    """Return what a session keeps of its preset; secrets are not."""
    snapshot, lost = preset.snapshot()
    if lost:
        advice = "later calls of it take the environment's key"
        warnings.warn(f"the session does not keep {', '.join(lost)}, a secret; {advice}", stacklevel=4)
    return snapshot


def kept(found: SessionInfo, name: str | Preset, version: str | int) -> Preset:
    """Return the preset a session was made with."""
    from llmkit.presets import Preset, is_path

    if not isinstance(name, str | Preset):
        raise InvalidRequestError(f"a session goes on with its preset's name or a Preset, not {name!r}")
    asked, _, at = name.partition("@") if isinstance(name, str) else (name.name, "", "")
    version = (int(at) if at.isdecimal() else at) if at else version
    asked = Path(asked).stem if is_path(asked) else asked
    if asked != found.preset:
        raise InvalidRequestError(f"session {found.id} was made with the preset {found.preset!r}, not {asked!r}")
    if version not in {DEPLOY, "latest", found.version}:
        raise InvalidRequestError(f"session {found.id} was made with version {found.version}, not {version!r}")
    return Preset(**found.snapshot, name=found.preset, version=found.version)
