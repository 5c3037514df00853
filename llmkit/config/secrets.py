"""Recognizes secrets by name or by look, and removes them from texts and values. The one place that knows."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit, urlunsplit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

KEY = "[key]"
NAMES = re.compile(
    r"(?i)(api[-_]?key|secret|passw(or)?d|passphrase|authorization|access[-_]?key|private[-_]?key|subscription[-_]?key"
    r"|cookie|(^|[a-z][-_])token$|^(x[-_])?key$)"
)
"""Names of parameters, headers and settings that are secrets."""
_SHORTEST = 8  # shorter ones occur in words that have nothing to do with them
_LOOKS = re.compile(
    # a word of a sentence has no digit in it
    r"\b((?:sk|pk|rk|csk)-)(?=[A-Za-z_\-.]{0,99}\d)[\w\-.]{8,}(?<!\.)"
    r"|\b(gsk_|xai-|pplx-|hf_|r8_|fw_|nvapi-|tgp_v1_|AIza|AKIA|ASIA|ya29\.|gh[a-z]_|github_pat_)[\w\-]{14,}"
    r"|\b(eyJ)[\w-]{8,400}\.[\w-]{4,}\.[\w-]*"
    r"|(?i:\b(bearer |basic ))(?=[A-Za-z_\-.]{0,99}\d)[\w\-.+/=]{8,}(?<!\.)"
    r"|(?i:(authorization[\"']?\s*[:=]\s*[\"']?(?:bearer|basic) ))[\w\-.+/=]{8,}(?<!\.)"
    r"|(-----BEGIN [A-Z ]*PRIVATE KEY-----)[^-]+"
)
_NAMED = re.compile(
    # as code has it, or in a sentence: there a word follows, or a key, which has a digit
    r"(?i)((?:api[-_ ]?key|secret|password|token|access[-_ ]?key)(?:[\"']?\s*=\s*[\"']?|[\"']?\s*:\s*[\"']))"
    r"(?!\[key\]|bearer\b)[^\s\"',;&)}\]]{8,}"
    r"|((?:api[-_ ]?key|secret|password|token|access[-_ ]?key):\s*)"
    r"(?!\[key\]|bearer\b)(?=[^\s\"',;&)}\]]{0,99}\d)[^\s\"',;&)}\]]{8,}"
)
_IN_URL = re.compile(
    r"(?i)(://)[^/\s@\"']+(?=@)"
    r"|([?&](?:[a-z0-9-]*key|[a-z0-9_-]*token|sig|signature|secret|password|code)=)[^&\s\"'#]+"
)
_REFERENCE = re.compile(r"\$\{[A-Za-z_]\w*\}|^os\.environ/[A-Za-z_]\w*$")
_NOTHING = re.compile(r"(?i)^\s*(bearer|basic|token|key)?\s*$")


def redact(text: str, *secrets: str | None) -> str:
    """Return *text* without the given secrets and without anything that looks like one."""
    for secret in secrets:
        if secret and len(secret) >= _SHORTEST:
            text = text.replace(secret, KEY)
    text = _IN_URL.sub(_replaced, text)
    text = _NAMED.sub(_replaced, text)
    return _LOOKS.sub(_replaced, text)


def masked(value: Any, name: str = "") -> Any:
    """Return a copy of *value* with its secrets masked, for display; a reference like `${NAME}` is not a secret."""

    def mask(key: str, text: str) -> str:
        return KEY if _is_named(key, text) else redact(text) if is_secret(key, text) else text

    return _walked(value, name, mask)


def secrets_in(value: Any, name: str = "") -> list[str]:
    """Return the secrets in a value: those named like one, and those in URLs."""
    secrets: list[str] = []

    def look(key: str, text: str) -> str:
        if _is_named(key, text):
            secrets.extend(part for part in text.split() if len(part) >= _SHORTEST)
        elif "://" in text:
            secrets.extend(_of_url(text))
        return text

    _walked(value, name, look)
    return secrets


def is_secret(name: str, text: str) -> bool:
    """Return whether a text is a plain secret: by its name, its look, or as a part of a URL."""
    rest = _REFERENCE.sub("", text)
    return _is_named(name, text) or redact(rest) != rest


def is_reference(text: str) -> bool:
    """Return whether a text is nothing but the name of a variable, as `${NAME}`."""
    return _REFERENCE.fullmatch(text) is not None


def without(text: str) -> str:
    """Return a URL without user, password and keys, or "" if the text is not a URL."""
    if "://" not in text:
        return ""
    parts = urlsplit(text)
    query = "&".join(part for part in parts.query.split("&") if not _IN_URL.search(f"?{part}"))
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2], query=query))


def _is_named(name: str, text: str) -> bool:
    """Return whether a text is named like a secret, and is more than references and the scheme of a header."""
    return NAMES.search(name) is not None and _NOTHING.match(_REFERENCE.sub("", text)) is None


def _replaced(match: re.Match[str]) -> str:
    if match[0].startswith("://") and match[0].endswith(":"):
        return match[0]  # a user without a password
    return f"{next((part for part in match.groups() if part), '')}{KEY}"


def _of_url(text: str) -> Iterator[str]:
    for match in _IN_URL.finditer(_REFERENCE.sub("", text)):
        secret = match[0].rpartition("=" if match[2] else ":")[2].lstrip("/")
        if len(secret) >= _SHORTEST:
            yield secret


def _walked(value: Any, name: str, change: Callable[[str, str], str]) -> Any:
    if isinstance(value, str):
        return change(name, value)
    if isinstance(value, dict):
        return {key: _walked(inner, str(key), change) for key, inner in value.items()}
    if type(value) in {list, tuple}:
        return type(value)(_walked(inner, name, change) for inner in value)
    return value
