"""The arguments offered to a model.py with a request, and the translation of its exceptions."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from starlette.exceptions import HTTPException
from starlette.requests import Request

from llmkit.errors import BudgetExceededError, ProviderError
from llmkit.serve.context import current
from llmkit.serve.errors import ServeError
from llmkit.serve.hosted.threads import PoolFullError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from starlette.types import Message

log = logging.getLogger("llmkit.serve")
OFFERED = ("payload_dict", "http_request", "model_meta", "requester", "system_context", "user_prompt")
"""The arguments that `predict` can declare; `init` and `cleanup` are offered `model_meta`."""
LOG = "; the server's log says why"
_SCOPE = (
    "type",
    "http_version",
    "method",
    "scheme",
    "server",
    "client",
    "root_path",
    "path",
    "raw_path",
    "query_string",
    "headers",
    "path_params",
)


@dataclass(frozen=True, slots=True)
class Requester:
    """The caller, as a model.py sees it: the name of the key, or "" if the server needs none."""

    id: str = ""
    roles: tuple[str, ...] = ()


class MissingFieldError(KeyError):
    """A field that the request does not have."""


class Payload(dict[str, Any]):
    """A request's body: a missing field is distinguished from a KeyError of the model's own."""

    def __missing__(self, key: str) -> Any:
        """Raise an error that says the request lacks a field."""
        raise MissingFieldError(key)


def missing_field(field: str) -> ServeError:
    """Return the error for a request that lacks a field."""
    return ServeError(400, f"the field {field!r} is missing", code="missing_field", param=str(field))


def detached(request: Any) -> Any:
    """Return a request for another event loop: it has its body, and nothing in it belongs to the server's loop."""
    if not isinstance(request, Request):
        return request
    context = current()
    messages: list[Message] = [
        {"type": "http.request", "body": getattr(request, "_body", b""), "more_body": False},
    ]

    async def receive() -> Message:
        if messages:
            return messages.pop()
        while not context.gone:  # noqa: ASYNC110 - an event would belong to the server's loop
            await asyncio.sleep(0.05)
        return {"type": "http.disconnect"}

    return Request({name: request.scope[name] for name in _SCOPE if name in request.scope}, receive)


@contextlib.contextmanager
def errors_of(model: str) -> Iterator[None]:
    """Translate the exceptions of a model.py; their messages may be secret, and are only logged.

    Raises:
        ServeError: 400 if the request lacks a field or a ValueError refuses it, 503 if the model is busy, an
            HTTPException's status, else 500.
    """
    try:
        yield
    except (ServeError, ProviderError, BudgetExceededError):
        raise
    except PoolFullError as error:
        why = f"the model {model} is busy: all its threads are taken"
        raise ServeError(503, why, code="overloaded", headers={"Retry-After": "1"}) from error
    except HTTPException as error:
        detail = error.detail if isinstance(error.detail, str) else json.dumps(error.detail, default=str)
        raise ServeError(error.status_code, detail, headers=error.headers) from error
    except MissingFieldError as error:
        raise missing_field(error.args[0]) from error
    except ValueError as error:
        log.warning("request %s: the model %s refused it", current().id, model, exc_info=error)
        raise ServeError(400, f"the model {model} does not take this request{LOG}", code="invalid_request") from error
    except Exception as error:
        log.exception("request %s: the model %s failed", current().id, model, exc_info=error)
        raise ServeError(500, f"the model {model} failed{LOG}", code="model_failed") from error
