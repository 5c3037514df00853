"""Learns where a provider is and how it knows its callers: by which variables, in which header."""

from __future__ import annotations

import os
import re
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from llmkit.core.types import Request
from llmkit.providers.litellm.connections import NO_KEY
from llmkit.providers.routes.dialects import ANTHROPIC, DIALECTS, GEMINI, OPENAI, dialect_of
from llmkit.providers.routes.learning import probes
from llmkit.providers.routes.learning.observe import KEY, NOWHERE, Observer, Sent
from llmkit.providers.routes.route import Access, form_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from llmkit.providers.routes.learning.probes import Probe
    from llmkit.providers.routes.route import Route

MADE_UP = "a-model-nobody-knows"
_SERVER = "https://probe.invalid/v1"
NEEDED = {
    "azure": "https://probe.invalid",
    **dict.fromkeys(("ai21", "litellm_proxy", "lm_studio", "xinference"), _SERVER),
}
"""Addresses for providers that have none of their own."""
_OTHER_KEYS = ("sk-ant-oat",)
"""Beginnings of keys that LiteLLM takes for something else than a key."""
_ELSEWHERE = "https://probe.invalid/some/v1"
_FORMS = tuple(f"https://probe.invalid{path}{end}" for path in ("", "/some", "/v1", "/some/v1") for end in ("", "/"))
VERSION = re.compile(r"v\d\w*$")
"""The version of an interface, at the end of an address."""
_FILES = frozenset({"SSLKEYLOGFILE"})
"""Variables that would be written to."""
_EFFORTS = ("MINIMAL", "LOW", "MEDIUM", "HIGH", "XHIGH", "MAX")
_KINDS_OF_GEMINI = ("FLASH", "FLASH_LITE", "PRO")
_AT_IMPORT = {
    ANTHROPIC: [
        "DEFAULT_ANTHROPIC_CHAT_MAX_TOKENS",
        "DEFAULT_MAX_TOKENS",
        *(f"DEFAULT_REASONING_EFFORT_{word}_THINKING_BUDGET" for word in _EFFORTS),
    ],
    GEMINI: [
        "DEFAULT_MAX_RECURSE_DEPTH",
        *(f"DEFAULT_REASONING_EFFORT_{word}_THINKING_BUDGET" for word in ("DISABLE", *_EFFORTS)),
        *(f"DEFAULT_REASONING_EFFORT_MINIMAL_THINKING_BUDGET_GEMINI_2_5_{word}" for word in _KINDS_OF_GEMINI),
    ],
}
"""Variables that LiteLLM reads when it is imported, and that change its defaults."""
_KEY_OF_VARIABLE = "sk-{}-seen"


class UnlearnableError(Exception):
    """LiteLLM does not send a format of `dialects` to this provider, or not in a way that can be seen."""


def observer_of(provider: str, wanted: Callable[[], bool] = lambda: True) -> Observer:
    """Return an observer that sees what LiteLLM sends to a provider, as long as that is *wanted*.

    Raises:
        UnlearnableError: none does.
    """
    for kind in ("handler", "sdk"):
        observer = Observer(kind, wanted)
        sent = observer.sent(request_of(provider, MADE_UP))
        if sent is not None:
            return observer
    raise UnlearnableError(f"what LiteLLM sends to {provider} cannot be seen")


def access_of(provider: str, observer: Observer, model: str = MADE_UP) -> Access:
    """Return where a provider is, and how it knows its callers.

    Raises:
        UnlearnableError: it is no server of a known format with a key in a header.
    """
    sent = observer.sent(request_of(provider, model))
    if sent is None or _dialect(sent) is None:
        raise UnlearnableError(f"{provider} speaks no format that is known")
    elsewhere = observer.sent(replace(request_of(provider, model), api_base=_ELSEWHERE))
    if elsewhere is None or not elsewhere.url.startswith(_ELSEWHERE):
        raise UnlearnableError(f"{provider} does not take another address")
    path = elsewhere.url.removeprefix(_ELSEWHERE)
    found = access_with(provider, model, observer, sent, path)
    return _by_model(found, provider, model, observer) if f"/{model}" in path else found


def _by_model(found: Access, provider: str, model: str, observer: Observer) -> Access:
    """Return how a provider is reached that has models, versions for them, and streams in its addresses."""
    elsewhere = observer.sent(replace(request_of(provider, model), api_base=_ELSEWHERE), stream=True)
    if elsewhere is None or not elsewhere.url.startswith(_ELSEWHERE):
        raise UnlearnableError(f"{provider} does not take another address for streams")
    paths = [path.replace(model, "{model}") for path in (found.path, elsewhere.url.removeprefix(_ELSEWHERE))]
    return replace(found, base=VERSION.sub("{version}", found.base), path=paths[0], stream_path=paths[1])


def access_with(provider: str, model: str, observer: Observer, sent: Sent, path: str) -> Access:
    """Return where a provider is, from its usual request and what follows the address in it.

    Raises:
        UnlearnableError: it takes the key in another way than in a header.
    """
    dialect = _dialect(sent) or OPENAI
    is_anywhere = NOWHERE in sent.url or provider in NEEDED
    holders = [name for name, value in sent.headers.items() if KEY in value]
    if len(holders) != 1:
        raise UnlearnableError(f"{provider} takes its key in another way than in one header")
    others = {name: value for name, value in sent.headers.items() if name not in {holders[0], "content-type"}}
    keys, bases, avoided = _variables(provider, model, observer, holders[0])
    without = observer.sent(request_of(provider, model, key=None))
    stand_in = _stand_in(sent.headers[holders[0]], without.headers.get(holders[0], "") if without else "")
    return Access(
        dialect=dialect,
        base="" if is_anywhere or not sent.url.endswith(path) else sent.url.removesuffix(path),
        base_variables=bases,
        path=path,
        forms=[form_of(base) for base in _FORMS if _is_joined(base, path, provider, model, observer)],
        key_variables=keys,
        needs_key=without is None or stand_in == NO_KEY,
        keyless=stand_in if stand_in != NO_KEY else "",
        key_header=holders[0],
        key_format=sent.headers[holders[0]].replace(KEY, "{}"),
        other_keys=[each for each in _OTHER_KEYS if _is_another(each + KEY, provider, model, observer, sent)],
        headers=others,
        avoided=[*avoided, *_AT_IMPORT.get(dialect, ())],
    )


def _stand_in(keyed: str, keyless: str) -> str:
    """Return what stands in the place of the key in a header without one."""
    before, _, after = keyed.partition(KEY)
    is_alike = keyless.startswith(before) and keyless.endswith(after)
    return keyless.removeprefix(before).removesuffix(after) if is_alike else ""


def _is_joined(base: str, path: str, provider: str, model: str, observer: Observer) -> bool:
    """Return whether an address of this form is followed by the path and nothing else is done to it."""
    sent = observer.sent(replace(request_of(provider, model), api_base=base))
    expected = base.rstrip("/") + path.replace("{model}", model)
    return sent is not None and sent.url.partition("?")[0] == expected


def steps(route: Route, observer: Observer) -> list[Callable[[], bool]]:
    """Return what has to be so that a provider is still where a route says, and knows its callers in the same way.

    Addresses and keys that the route leaves to LiteLLM may have become usual ones.
    """
    return [
        partial(_is_without_key, route, observer),
        *(partial(_is_of_form, route, base, observer) for base in _FORMS),
        *(partial(_is_key_of_form, route, beginning, observer) for beginning in _OTHER_KEYS),
    ]


def _is_without_key(route: Route, observer: Observer) -> bool:
    request = request_of(route.provider, route.model, key=None)
    ours, theirs = route.request(request, stream=False), observer.fresh().sent(request)
    if ours is not None:
        return Sent.of(ours) == theirs
    if theirs is None or not route.access.needs_key:
        return True
    return theirs.headers.get(route.access.key_header) == route.access.key_format.format(NO_KEY)


def _is_of_form(route: Route, base: str, observer: Observer) -> bool:
    is_left_out = form_of(base) not in route.access.forms
    return is_left_out or _is_joined(base, route.access.path, route.provider, route.model, observer)


def _is_key_of_form(route: Route, beginning: str, observer: Observer) -> bool:
    usual = observer.sent(request_of(route.provider, route.model))
    if usual is None or beginning in route.access.other_keys:
        return usual is not None
    return not _is_another(beginning + KEY, route.provider, route.model, observer, usual)


def _dialect(sent: Sent | None) -> str | None:
    """Return the format of a request, by its path."""
    if sent is None:
        return None
    known = ((name, dialect_of(name)) for name in DIALECTS)
    return next((name for name, each in known if sent.url.endswith(each.PATH) and each.CONVERSATION in sent.body), None)


def _is_another(key: str, provider: str, model: str, observer: Observer, usual: Sent) -> bool:
    """Return whether a key is sent in another way than usual."""
    sent = observer.fresh().sent(request_of(provider, model, key=key))  # a client may keep its key
    headers = {name: value.replace(KEY, key) for name, value in usual.headers.items()}
    return sent is None or sent.headers != headers


def _variables(provider: str, model: str, observer: Observer, holder: str) -> tuple[list[str], list[str], list[str]]:
    """Return the environment variables that name the key, those that name the address, and others that matter."""
    keyless, keyed = request_of(provider, model, key=None), request_of(provider, model)
    with _watched_environment() as names:
        observer.fresh().sent(keyed)  # with a new client, which reads some too
        observer.sent(keyless)
        observer.sent(replace(keyed, api_base=None))
    keys, bases, avoided = [], [], []
    for name in sorted(names - _FILES):
        other = observer.fresh()  # what a variable says may stay with a client
        with _variable(name, _KEY_OF_VARIABLE.format(0)):
            sent = other.sent(keyless)
        if sent is not None and _KEY_OF_VARIABLE.format(0) in sent.headers.get(holder, ""):
            keys.append(name)
            continue
        with _variable(name, _ELSEWHERE):
            sent = other.sent(replace(keyed, api_base=None))
        if sent is not None and sent.url.startswith(_ELSEWHERE):
            bases.append(name)
            continue
        if _changes(name, provider, model, observer):
            avoided.append(name)
    return (
        _in_order(keys, _KEY_OF_VARIABLE.format, keyless, observer),
        _in_order(bases, lambda at: f"https://probe{at}.invalid/some/v1", replace(keyed, api_base=None), observer),
        avoided,
    )


def _changes(name: str, provider: str, model: str, observer: Observer) -> bool:
    """Return whether a variable changes what is sent, there or elsewhere."""
    keyed = request_of(provider, model)
    requests = (keyed, replace(keyed, api_base=_ELSEWHERE))
    usual = [observer.sent(request) for request in requests]
    for value in ("1", "true", _ELSEWHERE):
        other = observer.fresh()
        with _variable(name, value):
            if [other.sent(request) for request in requests] != usual:
                return True
    return False


def _in_order(names: Sequence[str], value_of: Any, request: Request, observer: Observer) -> list[str]:
    """Return variables in the order in which LiteLLM regards them."""
    left, ordered = list(names), []
    while left:
        values = {name: value_of(at) for at, name in enumerate(left)}
        with _variables_set(values):
            sent = observer.sent(request)
        shown = "" if sent is None else " ".join([sent.url, *sent.headers.values()])
        first = next((name for name, value in values.items() if value in shown), left[0])
        ordered.append(first)
        left.remove(first)
    return ordered


def request_of(provider: str, model: str, probe: Probe | None = None, key: str | None = KEY) -> Request:
    """Return the request of a probe, or the plainest one."""
    params = {**probe.needs, **probe.params} if probe is not None else {}
    messages = probe.messages if probe is not None else probes.HELLO
    return Request(
        model=f"{provider}/{model}",
        messages=messages,
        params=params,
        api_key=key,
        api_base=NEEDED.get(provider),
        timeout_s=30,
    )


class _Watched(dict[Any, Any]):
    """The variables of an environment; it remembers which were read."""

    def __init__(self, variables: Mapping[Any, Any]) -> None:
        super().__init__(variables)
        self.names: set[Any] = set()

    def __getitem__(self, name: Any) -> Any:
        self.names.add(name)
        return super().__getitem__(name)


@contextmanager
def _watched_environment() -> Iterator[set[str]]:
    """Collect the names of the environment variables that are read."""
    names: set[str] = set()
    around: Any = os.environ
    before = around._data  # noqa: SLF001 - there is no other way to see what is read
    watched = around._data = _Watched(before)  # noqa: SLF001
    try:
        yield names
    finally:
        around._data = before  # noqa: SLF001
        names |= {around.decodekey(name) for name in watched.names}


@contextmanager
def _variables_set(values: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _variable(name: str, value: str) -> Any:
    return _variables_set({name: value})
