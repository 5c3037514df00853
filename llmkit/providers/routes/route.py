"""A route: how a provider's requests are made, in data. Frozen, readable as JSON, and without a secret."""

from __future__ import annotations

import json
import os
import re
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from llmkit.providers.routes import features
from llmkit.providers.routes.behaviour import HEADERS, QUERY, WITH, Behaviour
from llmkit.providers.routes.dialects import OPENAI, UnfamiliarError, dialect_of
from llmkit.providers.transport.http import HttpRequest
from llmkit.providers.transport.requests import check_header

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from llmkit.core.types import Request


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """Where a provider is, and how it knows its callers.

    Attributes:
        dialect: the protocol that it speaks.
        base: the usual address, or "" if it has none; `{version}` at its end stands for the behaviour's.
            `base_variables` name other ones, the first that is set counts.
        path: what follows the address; `{model}` in it stands for the model. `stream_path` follows it for streams, if
            that is another one.
        forms: of other addresses that are followed by the path, see `form_of`; LiteLLM changes those of other forms.
        query: what follows that, where no parameter says something else.
        key_variables: name the key, the first that is set counts.
        needs_key: whether LiteLLM sends nothing without one.
        keyless: what LiteLLM sends in the place of a key to those that need none, or "" for nothing.
        key_header: the header with the key; `{}` stands for it in `key_format`.
        other_keys: beginnings of keys that are sent in another way; requests with such a key are LiteLLM's.
        headers: what is sent besides.
        avoided: environment variables that LiteLLM would regard: while one is set, the route is not used.
    """

    dialect: str = OPENAI
    base: str = ""
    base_variables: Sequence[str] = ()
    path: str = "/chat/completions"
    stream_path: str = ""
    forms: Sequence[str] = ()
    query: Mapping[str, str] = field(default_factory=dict)
    key_variables: Sequence[str] = ()
    needs_key: bool = False
    keyless: str = ""
    key_header: str = "authorization"
    key_format: str = "Bearer {}"
    other_keys: Sequence[str] = ()
    headers: Mapping[str, str] = field(default_factory=dict)
    avoided: Sequence[str] = ()

    @property
    def is_avoided(self) -> bool:
        """Whether a variable is set with which LiteLLM sends something else than a route says."""
        return any(map(os.environ.get, self.avoided))

    def usual_base(self) -> str:
        """Return the address for those who name none: the environment's, else the usual one."""
        return _first_set(self.base_variables) or self.base


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """The way to one model of a provider.

    Attributes:
        provider, model: their names.
        access, behaviour: shared with the provider's other models, or those of them that behave alike.
        price: the model's entry in LiteLLM's map as far as it is needed, see `pricing`; empty if it has none.
    """

    provider: str
    model: str
    access: Access
    behaviour: Behaviour
    price: Mapping[str, Any] = field(default_factory=dict)

    def request(self, request: Request, *, stream: bool) -> HttpRequest | None:
        """Return the HTTP request for a request, or None if the route does not cover it.

        Raises:
            InvalidRequestError: the key, wherever it comes from, cannot stand in a header.
        """
        if not self.behaviour.covers(features.of_request(request, stream=stream)):
            return None
        key, base = self.key(request), self.base(request)
        if not key or not base or self.access.is_avoided:
            return None
        check_header("the API key", key)
        if base != self._usual_base and form_of(base) not in self.access.forms:
            return None
        url = _joined(base, (stream and self.access.stream_path) or self.access.path, self.model)
        if url is None or key.startswith(tuple(self.access.other_keys)):
            return None
        query, own_headers = self._beside(request)
        if query:
            url += f"?{urlencode(query)}"
        headers = {
            "content-type": "application/json",
            self.access.key_header: self.access.key_format.format(key),
            **self.access.headers,
            **own_headers,
        }
        try:
            body = dialect_of(self.access.dialect).body(self.behaviour, self.model, request, stream=stream)
        except UnfamiliarError:
            return None
        return HttpRequest(
            method="POST",
            url=url,
            headers=list(headers.items()),
            body=_encode(body).encode(),
            timeout_s=request.timeout_s,
            in_parts=stream,
        )

    def _beside(self, request: Request) -> tuple[dict[str, str], dict[str, str]]:
        """Return the query, and the headers that parameters are or bring with them."""
        query = dict(self.access.query)
        headers: dict[str, str] = {}
        for name, value in request.params.items():
            effect = self.behaviour.effects[features.of_param(name, value)]
            if effect == HEADERS:
                headers |= {str(header).lower(): text for header, text in value.items()}
            elif effect.startswith(WITH):
                headers |= json.loads(effect[len(WITH) :])
            elif effect.startswith(QUERY):
                query[effect[len(QUERY) :]] = value
        return query, headers

    def covers(self, request: Request, *, stream: bool) -> bool:
        """Return whether the route says what becomes of a request, whoever sends it."""
        if self.access.is_avoided:
            return False
        return self.behaviour.covers(features.of_request(request, stream=stream))

    def key(self, request: Request) -> str:
        """Return the key for a request, or what stands in its place, or ""."""
        return request.api_key or _first_set(self.access.key_variables) or self.access.keyless

    def base(self, request: Request) -> str:
        """Return the address for a request."""
        return request.api_base or _first_set(self.access.base_variables) or self._usual_base

    @property
    def _usual_base(self) -> str:
        return self.access.base.replace(_VERSION, self.behaviour.version)

    def as_json(self) -> str:
        """Return the route as JSON."""
        return json.dumps(asdict(self), indent=2)


_encode = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False).encode
_USUAL_BASE = re.compile(r"https?://[A-Za-z0-9_~:/\[\]%-][A-Za-z0-9._~:/\[\]%-]*")
_USUAL_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_PLACE, _VERSION = "{model}", "{version}"


def form_of(base: str) -> str:
    """Return how an address is written: whether it has a path, which ends with /v1, and a slash at its end."""
    path = base.partition("://")[2].partition("/")[2]
    named = path.rstrip("/")
    ends = "/" if base.endswith("/") else ""
    return ("none" if not named else "v1" if named == "v1" else ".../v1" if named.endswith("/v1") else "...") + ends


def can_hold(path: str, model: str) -> bool:
    """Return whether a model's name can stand in a path as it is, if there is a place for it."""
    return _PLACE not in path or _USUAL_NAME.fullmatch(model) is not None


@lru_cache(maxsize=256)
def _joined(base: str, path: str, model: str) -> str | None:
    """Return an address with its path, or None for addresses that are written in another way than usual."""
    base = base.rstrip("/")
    if not _USUAL_BASE.fullmatch(base) or "/." in base or base.endswith(path):
        return None
    if not can_hold(path, model):
        return None
    return base + path.replace(_PLACE, model)


def _first_set(names: Sequence[str]) -> str:
    return next((value for name in names if (value := os.environ.get(name))), "")
