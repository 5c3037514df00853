"""A log of requests and answers, for one user of a backend; without keys."""

from __future__ import annotations

import itertools
import json
import os
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmkit.config.secrets import masked, redact
from llmkit.core.engine import Backend
from llmkit.core.types import Open, Reply, Send, Sleep
from llmkit.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable

    from llmkit.config import Config
    from llmkit.core.types import AsyncSource, Request, Source, Step


_numbers = itertools.count(1)


class LoggingBackend(Backend):
    """Executes steps with another backend, and writes each request, answer, error and wait to a file.

    This does not use Python's `logging`: it works however the program configures that, and for this user only.
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
        """Execute a step and log it."""
        log_result = self._log_step(step)
        try:
            return log_result(self._inner.do(step))
        except Exception as error:
            log_result(error)
            raise

    async def ado(self, step: Step) -> Any:
        """Execute a step, awaiting it, and log it."""
        log_result = self._log_step(step)
        try:
            return log_result(await self._inner.ado(step))
        except Exception as error:
            log_result(error)
            raise

    def _log(self, text: str) -> None:
        """Append a line; the file is open only while that happens."""
        with open(self._file, "a", encoding="utf-8", opener=_private) as file:
            file.write(f"{datetime.now().astimezone().isoformat(timespec='milliseconds')} {text}\n" if text else "")

    def _noted(self, text: str) -> str:
        """Append a line; return why that failed, or "" if it did not."""
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            self._log(text)
        except (OSError, ValueError) as error:
            return f"debug.log.filepath: {self._file} cannot be written ({getattr(error, 'strerror', None) or error})"
        return ""

    def _log_step(self, step: Step) -> Callable[[Any], Any]:
        """Log the request; return a function that logs its result."""
        if isinstance(step, Sleep):
            self._noted(f"wait {step.seconds:.3f} s")
        if not isinstance(step, Send | Open):
            return lambda result: result
        from llmkit.providers.failures import secrets_of  # with all of the transport: a log is seldom wanted

        number, request = next(_numbers), step.request
        secrets = secrets_of(request)
        if fault := self._noted(f"request {number}: {redact(_question(request), *secrets)}"):
            raise ConfigError(fault)  # nothing is sent yet

        def log_result(result: Any) -> Any:
            if isinstance(step, Open) and not isinstance(result, Reply | Exception):
                self._noted(f"answer {number}: a stream")
                return _LoggedStream(result, log_result)
            text = f"{type(result).__name__}: {result}" if isinstance(result, Exception) else _answer(result)
            fault = self._noted(f"answer {number}: {redact(text, *secrets)}")
            if fault and isinstance(result, Reply):  # a reply that was paid is not lost to a full disk
                return replace(result, warnings=(*result.warnings, fault))
            return result

        return log_result


class _LoggedStream:
    """An open stream whose answer is logged once it is read."""

    def __init__(self, source: Any, log_result: Callable[[Any], Any]) -> None:
        self._source = source
        self._log_result = log_result

    def __getattr__(self, name: str) -> Any:
        return getattr(self._source, name)

    def reply(self) -> Any:
        return self._log_result(self._source.reply())


def with_log(backend: Backend, settings: Config) -> Backend:
    """Return *backend*, with a log of what it does if the settings ask for one."""
    if not settings.get("debug.log.enabled"):
        return backend
    named = settings.get("debug.log.filepath")
    return LoggingBackend(backend, Path(named).expanduser() if named else settings.data_dir / "debug.log")


def _private(file: str, flags: int) -> int:
    return os.open(file, flags, 0o600)  # prompts and answers are the user's own


def _question(request: Request) -> str:
    fields = {
        "model": request.model,
        "api_base": masked(request.api_base),
        "timeout_s": request.timeout_s,
        "messages": [dict(message) for message in request.messages],
        "params": masked(dict(request.params)),
    }
    return json.dumps(fields, ensure_ascii=False, default=str)


def _answer(reply: Reply) -> str:
    usage = reply.usage
    fields = {
        "model": reply.model,
        "finish_reason": reply.finish_reason,
        "text": reply.text,
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "cost_usd": usage.cost_usd,
        "latency_s": round(reply.latency_s, 4),
        "warnings": reply.warnings,
    }
    return json.dumps(fields, ensure_ascii=False, default=str)
