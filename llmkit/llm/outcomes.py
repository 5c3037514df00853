"""The outcome of a run as a response: in time or too late, and whatever goes wrong."""

from __future__ import annotations

import time
from concurrent.futures import CancelledError
from typing import TYPE_CHECKING, Any

from llmkit.errors import LlmkitError
from llmkit.providers.aixplain.response import ModelResponse, failed, of_error
from llmkit.runs import worker

if TYPE_CHECKING:
    from collections.abc import Coroutine


def late(timeout_s: float, began: float, url: str) -> ModelResponse:
    """Return the response of a run that did not end in time."""
    goes_on = "; it goes on, and can be polled again" if url else ""
    message = f"there was no answer within {timeout_s:g} s{goes_on}"
    return failed("timeout", message, url=url, run_time=time.monotonic() - began, completed=not url)


def locally(call: Any) -> ModelResponse:
    """Return the function's result, or its error as a response."""
    try:
        response: ModelResponse = call()
    except LlmkitError as error:
        return of_error(error, 0.0)
    return response


async def as_response(work: Coroutine[Any, Any, ModelResponse]) -> ModelResponse:
    """Return the awaited result, or its error as a response."""
    began = time.monotonic()
    try:
        return await work
    except Exception as error:  # noqa: BLE001 - every failure is a response
        return of_error(error, time.monotonic() - began)


def result(work: Coroutine[Any, Any, ModelResponse]) -> ModelResponse:
    """Run the coroutine on the worker of this process, so that it can be dropped in time, and return its result."""
    future = worker().submit(work)
    try:
        response: ModelResponse = future.result()
    except CancelledError:
        return failed("cancelled", "the run was cancelled")
    finally:
        future.cancel()
    return response
