"""Asks a provider which models it has, which costs nothing: so a key is checked, and a server on this machine found."""

from __future__ import annotations

import json
from typing import Any

from llmkit.errors import AuthenticationError, ConfigError, ProviderError
from llmkit.providers.routes.table import table
from llmkit.providers.transport import shared
from llmkit.providers.transport.addresses import TransportError
from llmkit.providers.transport.http import HttpRequest, Wire

TIMEOUT_S = 10.0
_REFUSED = frozenset({401, 403})


def models_at(provider: str, key: str) -> list[str]:
    """Return the names of a provider's models, as it lists them for this key.

    Raises:
        ConfigError: it has no such list, or its address is not known.
        AuthenticationError: it refuses the key.
        ProviderError: it answers with something else, or not at all.
    """
    known = table().provider(provider)
    base = known.access.usual_base() if known is not None else ""
    if known is None or not base or "{model}" in known.access.path:
        raise ConfigError(f"{provider} cannot be asked without a call that costs")
    headers = [(known.access.key_header, known.access.key_format.format(key)), *known.access.headers.items()]
    path = "/v1/models" if known.access.path.startswith("/v1/") else "/models"
    request = HttpRequest(method="GET", url=base.rstrip("/") + path, headers=headers, timeout_s=TIMEOUT_S)
    wire = Wire(seen=True)
    try:
        content = shared.blocking().open(request, wire).read()
        names = _names(json.loads(content)) if wire.status == 200 else []  # noqa: PLR2004 - HTTP's number
    except TransportError as error:
        raise ProviderError(
            f"{provider} does not answer at {wire.origin or base}: {error}", provider=provider
        ) from None
    except ValueError:
        raise ProviderError(f"{provider} does not answer with a list of models", provider=provider) from None
    if wire.status in _REFUSED:
        raise AuthenticationError(f"{provider} refuses the key", provider=provider, status_code=wire.status)
    if wire.failed_status is not None:
        raise ProviderError(f"{provider} answers {wire.status} to this", provider=provider, status_code=wire.status)
    return names


def _names(data: Any) -> list[str]:
    listed = data.get("data") if isinstance(data, dict) else data
    if not isinstance(listed, list):
        raise ValueError  # noqa: TRY004 - as for what is not JSON
    return sorted(str(entry["id"]) for entry in listed if isinstance(entry, dict) and entry.get("id"))
