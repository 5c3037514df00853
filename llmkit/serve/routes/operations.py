"""Operations of the API: a method and a path, the function that answers, and what the OpenAPI document says of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException
from starlette.requests import Request
from starlette.routing import Route

from llmkit.serve import allowlist
from llmkit.serve.body import FORM, JSON
from llmkit.serve.context import current
from llmkit.serve.errors import ServeError, nothing_at

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from pydantic import BaseModel
    from starlette.responses import Response
    from starlette.types import Receive, Scope, Send

    Answer: TypeAlias = "Callable[..., Awaitable[Response]]"

REFUSALS = (400, 401, 403, 404, 409, 413, 429, 500, 502, 503, 504)


class Operation(Route):
    """A method at a path.

    Args:
        method: `GET`, `POST` or `DELETE`.
        path: with its parameters in braces.
        answer: gets the request, and the body if there is one, and returns the response.
        body: what the body must be, or None for no body.
        sent_as: the content type of the body.
        tag: the group in the document, or "" to leave the operation out of it.
        statuses: of answers that are no errors.
        returns: the content types of an answer.
        headers: headers of the request, with their descriptions.
        refusals: the statuses of errors.
    """

    def __init__(
        self,
        method: str,
        path: str,
        answer: Answer,
        *,
        body: type[BaseModel] | None = None,
        sent_as: str = JSON,
        tag: str = "",
        statuses: tuple[int, ...] = (200,),
        returns: tuple[str, ...] = (JSON,),
        headers: Mapping[str, str] | None = None,
        refusals: tuple[int, ...] = REFUSALS,
    ) -> None:
        super().__init__(path, answer, methods=[method], include_in_schema=bool(tag))
        self.methods = {method}  # no HEAD beside GET: it would ask the model, and pay
        self.method, self.body, self.sent_as, self.tag = method, body, sent_as, tag
        self.statuses, self.returns, self.headers, self.refusals = statuses, returns, headers or {}, refusals

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or say that the path does not take this method."""
        current().route = self.path
        if scope["method"] != self.method:
            others = [other.method for other in scope["router"].routes if other.path == self.path]
            raise nothing_at(scope["path"], allowed=", ".join(others))
        request = Request(scope, receive)
        try:
            given = () if self.body is None else (await self._read(self.body, request),)
            response = await self.endpoint(request, *given)
        finally:
            if self.sent_as == FORM:
                await request.close()  # its files
        await response(scope, receive, send)

    async def _read(self, kind: type[BaseModel], request: Request) -> Any:
        """Return the body.

        Raises:
            ServeError: it is not what it must be; the field is named.
        """
        if self.sent_as == FORM:
            try:
                form = await request.form()
            except (MultiPartException, HTTPException) as error:  # the second in another application
                raise ServeError(400, "the request cannot be read") from error
            known = kind.model_fields  # one that is empty counts as left out
            given = {name: value for name, value in form.multi_items() if value != "" or name not in known}
            return allowlist.read(kind, given)
        data = current().data
        if not isinstance(data, dict):
            raise ServeError(400, "the body must be a JSON object, sent as application/json", code="invalid_value")
        return allowlist.read(kind, data)


class Operations(list[Operation]):
    """Operations with the beginning of a path and a tag in common."""

    def __init__(self, prefix: str = "", *, tag: str = "") -> None:
        super().__init__()
        self._prefix, self._tag = prefix, tag

    def get(self, path: str, **details: Any) -> Callable[[Answer], Answer]:
        """Add what is decorated, for GET; *details* as `Operation` has them."""
        return self._adding("GET", path, details)

    def post(self, path: str, **details: Any) -> Callable[[Answer], Answer]:
        """Add what is decorated, for POST."""
        return self._adding("POST", path, details)

    def delete(self, path: str, **details: Any) -> Callable[[Answer], Answer]:
        """Add what is decorated, for DELETE."""
        return self._adding("DELETE", path, details)

    def _adding(self, method: str, path: str, details: dict[str, Any]) -> Callable[[Answer], Answer]:
        def add(answer: Answer) -> Answer:
            self.append(Operation(method, self._prefix + path, answer, **{"tag": self._tag, **details}))
            return answer

        return add


async def nowhere(scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG001 - ASGI's
    """Refuse a path that no operation has, and WebSockets."""
    if scope["type"] == "http":
        raise nothing_at(scope["path"])
    await send({"type": "websocket.close", "code": 1000})
