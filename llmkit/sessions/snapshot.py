"""The preset of a session: chosen when it is created, stored without secrets, and loaded again."""

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
    """Return the preset as a session stores it, without secrets."""
    snapshot, lost = preset.snapshot()
    if lost:
        advice = "later calls of it take the environment's key"
        warnings.warn(f"the session does not keep {', '.join(lost)}, a secret; {advice}", stacklevel=4)
    return snapshot


def kept(session: SessionInfo, name: str | Preset, version: str | int) -> Preset:
    """Return the preset a session was created with."""
    from llmkit.presets import Preset, is_path

    if not isinstance(name, str | Preset):
        raise InvalidRequestError(f"a session goes on with its preset's name or a Preset, not {name!r}")
    preset_name, _, at = name.partition("@") if isinstance(name, str) else (name.name, "", "")
    version = (int(at) if at.isdecimal() else at) if at else version
    preset_name = Path(preset_name).stem if is_path(preset_name) else preset_name
    if preset_name != session.preset:
        raise InvalidRequestError(
            f"session {session.id} was made with the preset {session.preset!r}, not {preset_name!r}"
        )
    if version not in {DEPLOY, "latest", session.version}:
        raise InvalidRequestError(f"session {session.id} was made with version {session.version}, not {version!r}")
    return Preset(**session.snapshot, name=session.preset, version=session.version)
