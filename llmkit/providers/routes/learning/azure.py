"""Azure: its address has the deployment and the version, and its models are called as their owners like."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, urlsplit

from llmkit.providers.routes.behaviour import DROPPED, QUERY
from llmkit.providers.routes.learning.access import MADE_UP, NEEDED, UnlearnableError, access_with, request_of
from llmkit.providers.routes.learning.behaviour import predicts, with_param
from llmkit.providers.routes.learning.probes import Probe

if TYPE_CHECKING:
    from collections.abc import Callable

    from llmkit.providers.routes.learning.observe import Observer
    from llmkit.providers.routes.route import Access, Route

NAME = "azure"
VERSIONS = """
    2023-05-15 2023-12-01-preview 2024-02-01 2024-02-15-preview 2024-05-01-preview 2024-06-01 2024-08-01-preview
    2024-09-01-preview 2024-10-01-preview 2024-10-21 2024-12-01-preview 2025-01-01-preview 2025-02-01-preview
    2025-03-01-preview 2025-04-01-preview
""".split()  # noqa: SIM905 - shorter
"""The versions that people use; others go through LiteLLM."""


def access_of(observer: Observer) -> Access:
    """Return how Azure is reached.

    Raises:
        UnlearnableError: LiteLLM builds another address than it did.
    """
    sent = observer.sent(request_of(NAME, MADE_UP))
    if sent is None or not sent.url.startswith(NEEDED[NAME]) or MADE_UP not in sent.url:
        raise UnlearnableError("Azure is reached in another way")
    parts = urlsplit(sent.url)
    path = parts.path.replace(MADE_UP, "{model}")
    found = access_with(NAME, MADE_UP, observer, sent, path)
    return replace(found, query=dict(parse_qsl(parts.query)), needs_key=False)


def with_versions(route: Route, observer: Observer) -> Route:
    """Return a route that covers the versions, and the name of the model behind a deployment."""
    route = with_param(route, Probe("base_model=text", {"base_model": f"{NAME}/{route.model}"}), DROPPED, observer)
    for version in VERSIONS:
        route = with_param(route, _probe_of(version), f"{QUERY}api-version", observer)
    return route


def steps(route: Route, observer: Observer) -> list[Callable[[], bool]]:
    """Return what has to be so that the versions are covered as a route says."""
    asked = [(probe, request_of(NAME, route.model, probe)) for probe in map(_probe_of, VERSIONS)]
    return [
        partial(predicts, route, request, observer, stream=False)
        for probe, request in asked
        if probe.feature in route.behaviour.effects
    ]


def _probe_of(version: str) -> Probe:
    return Probe(f"api_version={version}", {"api_version": version})
