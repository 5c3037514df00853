"""A log of what is sent and answered, for one user of a backend; keys are not in it."""

from __future__ import annotations

import itertools
import json
import os
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmkit.core.engine import Backend
from llmkit.core.secrets import masked, redact
from llmkit.core.types import Open, Reply, Send, Sleep
from llmkit.errors import ConfigError
from llmkit.providers.failures import secrets_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from llmkit.config import Config
    from llmkit.core.types import AsyncSource, Request, Source, Step


_numbers = itertools.count(1)


class LoggingBackend(Backend):
    """Does what another backend does, and writes each request, answer, error and wait to a file.

    This is not Python's `logging`, so that it works whatever the program does with that, and for this user only.
    """

    def __init__(self, inner: Backend, file: Path) -> None:
        self._inner = inner
        self._file = file
        if fault := self._noted(""):
            raise ConfigError(fault)

    def send(self, request: Request) -> Reply:
        """Send with the inner backend."""
        return self._inner.send(request)

    async def asend(self, request: Request) -> Reply:
        """Send with the inner backend."""
        return await self._inner.asend(request)

    def open(self, request: Request) -> Source:
        """Open with the inner backend."""
        return self._inner.open(request)

    async def aopen(self, request: Request) -> AsyncSource:
        """Open with the inner backend."""
        return await self._inner.aopen(request)

    def do(self, step: Step) -> Any:
        """Do a step, and write it down."""
        told = self._asked(step)
        try:
            return told(self._inner.do(step))
        except Exception as error:
            told(error)
            raise

    async def ado(self, step: Step) -> Any:
        """Do a step, awaited, and write it down."""
        told = self._asked(step)
        try:
            return told(await self._inner.ado(step))
        except Exception as error:
            told(error)
            raise

    def _log(self, text: str) -> None:
        """Add a line; the file is open only for so long."""
        with open(self._file, "a", encoding="utf-8", opener=_private) as file:
            file.write(f"{datetime.now().astimezone().isoformat(timespec='milliseconds')} {text}\n" if text else "")

    def _noted(self, text: str) -> str:
        """Add a line; say why that cannot be, or "" if it can."""
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            self._log(text)
        except (OSError, ValueError) as error:
            return f"debug.log.filepath: {self._file} cannot be written ({getattr(error, 'strerror', None) or error})"
        return ""

    def _asked(self, step: Step) -> Callable[[Any], Any]:
        """Write down what is asked, and return who writes down what comes of it."""
        if isinstance(step, Sleep):
            self._noted(f"wait {step.seconds:.3f} s")
        if not isinstance(step, Send | Open):
            return lambda result: result
        number, request = next(_numbers), step.request
        secrets = secrets_of(request)
        if fault := self._noted(f"request {number}: {redact(_question(request), *secrets)}"):
            raise ConfigError(fault)  # nothing is sent yet

        def told(result: Any) -> Any:
            if isinstance(step, Open) and not isinstance(result, Reply | Exception):
                self._noted(f"answer {number}: a stream")
                return _Read(result, told)
            text = f"{type(result).__name__}: {result}" if isinstance(result, Exception) else _answer(result)
            fault = self._noted(f"answer {number}: {redact(text, *secrets)}")
            if fault and isinstance(result, Reply):  # what was paid is not lost to a full disk
                return replace(result, warnings=(*result.warnings, fault))
            return result

        return told


class _Read:
    """An open stream of which the answer is written down when it is read."""

    def __init__(self, source: Any, told: Callable[[Any], Any]) -> None:
        self._source = source
        self._told = told

    def __getattr__(self, name: str) -> Any:
        return getattr(self._source, name)

    def __iter__(self) -> Any:
        return iter(self._source)

    def __aiter__(self) -> Any:
        return aiter(self._source)

    def reply(self) -> Any:
        return self._told(self._source.reply())


def traced(backend: Backend, settings: Config) -> Backend:
    """Return *backend*, with a log of what it does where the settings ask for one."""
    if not settings.get("debug.log.enabled"):
        return backend
    named = settings.get("debug.log.filepath")
    return LoggingBackend(backend, Path(named).expanduser() if named else settings.data_dir / "debug.log")


def _private(file: str, flags: int) -> int:
    return os.open(file, flags, 0o600)  # prompts and answers are the user's own


def _question(request: Request) -> str:
    asked = {
        "model": request.model,
        "api_base": masked(request.api_base),
        "timeout_s": request.timeout_s,
        "messages": [dict(message) for message in request.messages],
        "params": masked(dict(request.params)),
    }
    return json.dumps(asked, ensure_ascii=False, default=str)


def _answer(reply: Reply) -> str:
    usage = reply.usage
    told = {
        "model": reply.model,
        "finish_reason": reply.finish_reason,
        "text": reply.text,
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "cost_usd": usage.cost_usd,
        "latency_s": round(reply.latency_s, 4),
        "warnings": reply.warnings,
    }
    return json.dumps(told, ensure_ascii=False, default=str)
