"""The one exception by which anything in the server says no; the app puts it on the wire."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


class ServeError(Exception):
    """A request that is answered with an error.

    Attributes:
        status: of the HTTP answer.
        message: what happened, for the one who asked: no secret, no traceback.
        code: a short word for programs, such as `model_not_found`; "" for none.
        param: the field of the request that is wrong, None for no one field.
        headers: that go with the answer, such as `Retry-After`.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str = "",
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Keep what is to be told."""
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code
        self.param = param
        self.headers = dict(headers or {})
