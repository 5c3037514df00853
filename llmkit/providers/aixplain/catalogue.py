"""The models that can be run: the presets here, or those of a remote service."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from llmkit import presets
from llmkit.core.engine import drive
from llmkit.core.retry import Retry
from llmkit.errors import APIError
from llmkit.providers.litellm import sdk as litellm_sdk
from llmkit.providers.transport.addresses import origin
from llmkit.providers.transport.client import http
from llmkit.providers.transport.requests import JsonRequest, retried

if TYPE_CHECKING:
    from collections.abc import Mapping

_KNOWN = ("id", "name", "description", "supplier", "version", "pricing")


def find(model_id: str, at: str | None, api_key: str | None) -> dict[str, Any]:
    """Return the description of a model, as arguments of `LLM`.

    Raises:
        UnknownPresetError: it is neither a preset's name nor a LiteLLM model string.
        ProviderError: the service at *at* does not know it, or cannot be reached.
    """
    if at is not None:
        return _arguments(_of_service("GET", at, f"/sdk/models/{quote(model_id, safe='')}", None, api_key))
    if "/" in model_id and litellm_sdk.is_known(model_id):
        return {}
    preset = presets.load(model_id)
    return {"name": preset.name, "description": preset.description or ""}


def search(
    query: str, page_number: int, page_size: int, at: str | None, api_key: str | None
) -> tuple[list[dict[str, Any]], int]:
    """Return a page of models, as arguments of `LLM`, and how many there are in total.

    Raises:
        ProviderError: the service at *at* cannot be reached.
    """
    if at is not None:
        body = {"q": query, "pageNumber": page_number, "pageSize": page_size, "functions": ["text-generation"]}
        result = _of_service("POST", at, "/sdk/models/paginate", body, api_key)
        entries = result.get("items", result.get("results"))
        if not isinstance(entries, list):
            raise APIError(f"{at}: the answer has no list of models")
        return [_arguments(entry) for entry in entries], int(result.get("total", len(entries)))
    known = [presets.load(name) for name in presets.names()]
    words = query.lower()
    fitting = [model for model in known if words in f"{model.name} {model.model} {model.description or ''}".lower()]
    page = fitting[page_number * page_size : (page_number + 1) * page_size]
    return [{"id": model.name, "description": model.description or ""} for model in page], len(fitting)


def _of_service(method: str, at: str, path: str, body: Any, api_key: str | None) -> dict[str, Any]:
    request = JsonRequest(method=method, url=origin(at) + path, body=body, token=api_key or "", key_header="x-api-key")
    data = drive(retried(request, Retry(tries=3)), http()).data
    if not isinstance(data, dict):
        raise APIError(f"{at}: the answer is no JSON object")
    return data


def _arguments(entry: Mapping[str, Any]) -> dict[str, Any]:
    known = {key: entry[key] for key in _KNOWN if entry.get(key) is not None}
    return known | ({"cost": known.pop("pricing")} if "pricing" in known else {})
