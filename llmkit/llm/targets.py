"""Where a run of `LLM` goes: a preset or model here, a deployment of a client, or a remote service; and its streams."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any, Protocol

from llmkit.api import aask, astream, stream
from llmkit.errors import LlmkitError
from llmkit.providers.aixplain.response import ModelResponse, ResponseStatus, StreamChunk, of_error, of_reply
from llmkit.providers.litellm import sdk as litellm_sdk

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Mapping, Sequence

    from typing_extensions import Self

    from llmkit.client import MultiAIClient
    from llmkit.core.engine import Backend
    from llmkit.providers.aixplain.polled import Trip
    from llmkit.providers.aixplain.prompt import Utterance

FUNCTIONS = ("text-generation", "text_generation", "TEXT_GENERATION")


class Target(Protocol):
    """Where runs go."""

    async def answer(self, said: Utterance, tags: Sequence[str], timeout_s: float | None, trip: Trip) -> ModelResponse:
        """Return the answer, or raise."""

    def stream(self, said: Utterance, tags: Sequence[str], timeout_s: float) -> Any:
        """Return pieces with `content`, for `for`."""

    def astream(self, said: Utterance, tags: Sequence[str], timeout_s: float) -> Any:
        """Return pieces with `content`, for `async for`."""


class Here:
    """A preset by its name, or a LiteLLM model string, with what such a model gets where nothing else says so."""

    def __init__(
        self,
        name: str,
        api_key: str | None,
        options: Mapping[str, Any],
        usual: Mapping[str, Any],
        backend: Backend | None,
    ) -> None:
        self._model = name if "/" in name or ":" in name else None
        self._options = dict(options) | ({"api_key": api_key} if api_key else {})
        self._options |= {"backend": backend} if backend is not None else {}
        self._options |= {"preset": name} if self._model is None else {"model": name}
        self._usual = usual

    async def answer(self, said: Utterance, tags: Sequence[str], timeout_s: float | None, trip: Trip) -> ModelResponse:
        """Return the answer, or raise."""
        del trip
        began = time.monotonic()
        options = await asyncio.to_thread(self._all, said, tags, timeout_s)
        reply = await aask(said.messages(), system=said.context, **options)
        return of_reply(reply, time.monotonic() - began)

    def stream(self, said: Utterance, tags: Sequence[str], timeout_s: float) -> Any:
        """Return pieces."""
        return stream(said.messages(), system=said.context, **self._all(said, tags, timeout_s))

    def astream(self, said: Utterance, tags: Sequence[str], timeout_s: float) -> Any:
        """Return pieces."""
        return astream(said.messages(), system=said.context, **self._all(said, tags, timeout_s))

    def _all(self, said: Utterance, tags: Sequence[str], timeout_s: float | None) -> dict[str, Any]:
        usual = {} if self._model is None else dict(self._usual)
        if (
            usual
            and "temperature" not in said.params
            and not litellm_sdk.takes(str(self._model), temperature=usual["temperature"])
        ):
            del usual["temperature"]
        if "max_completion_tokens" in said.params:
            usual.pop("max_tokens", None)
        timeout = {} if timeout_s is None else {"timeout": timeout_s}
        return {**self._options, **usual, **timeout, **({"tags": tags} if tags else {}), **said.params}


class Deployed:
    """A deployment of a client, by its logical name."""

    def __init__(self, name: str, client: MultiAIClient) -> None:
        self._name, self._client = name, client

    async def answer(self, said: Utterance, tags: Sequence[str], timeout_s: float | None, trip: Trip) -> ModelResponse:
        """Return the answer, or raise."""
        del trip
        began = time.monotonic()
        reply = await self._client.ainvoke(
            said.messages(), self._name, said.context, **self._all(said, tags, timeout_s)
        )
        return of_reply(reply, time.monotonic() - began)

    def stream(self, said: Utterance, tags: Sequence[str], timeout_s: float) -> Any:
        """Return pieces."""
        return self._client.stream(said.messages(), self._name, said.context, **self._all(said, tags, timeout_s))

    def astream(self, said: Utterance, tags: Sequence[str], timeout_s: float) -> Any:
        """Return pieces."""
        return self._client.astream(said.messages(), self._name, said.context, **self._all(said, tags, timeout_s))

    @staticmethod
    def _all(said: Utterance, tags: Sequence[str], timeout_s: float | None) -> dict[str, Any]:
        timeout = {} if timeout_s is None else {"timeout": timeout_s}
        return {**timeout, **({"tags": tags} if tags else {}), **said.params}


class _Running:
    """What both colours of a stream share."""

    def __init__(self, pieces: Any) -> None:
        self._pieces = pieces
        self._began = time.monotonic()
        self._text: list[str] = []
        self._finish: str | None = None
        self._response: ModelResponse | None = None

    @property
    def response(self) -> ModelResponse:
        """What became of the run; IN_PROGRESS while chunks are still to come."""
        if self._response is not None:
            return self._response
        return ModelResponse(status=ResponseStatus.IN_PROGRESS, completed=False, data="".join(self._text))

    @property
    def status(self) -> ResponseStatus:
        """The status of `response`."""
        return self.response.status

    def _chunk(self, piece: Any) -> StreamChunk:
        text = piece.data if isinstance(piece, StreamChunk) else piece.content
        self._text.append(text)
        self._finish = piece.finish_reason or self._finish
        return StreamChunk(data=text, finish_reason=piece.finish_reason)

    def _ended(self, error: Exception | None = None) -> StreamChunk:
        run_time = time.monotonic() - self._began
        if error is not None:
            failure = of_error(error, run_time)
            self._response = ModelResponse(**{**dict(failure), "data": failure.data or "".join(self._text)})
            return StreamChunk(status=ResponseStatus.FAILED, error_message=self._response.error_message)
        reply = self._pieces.reply
        if reply is not None:
            self._response = of_reply(reply, run_time)
        else:
            self._response = ModelResponse(
                status=ResponseStatus.SUCCESS, data="".join(self._text), run_time=run_time, finish_reason=self._finish
            )
        return StreamChunk(status=ResponseStatus.SUCCESS, finish_reason=self._response.finish_reason)


class RunStream(_Running):
    """Chunks of a run, for `for`; also a context manager. It never raises: the last chunk tells a failure."""

    def __iter__(self) -> Iterator[StreamChunk]:
        """Yield the chunks."""
        try:
            for piece in self._pieces:
                yield self._chunk(piece)
        except LlmkitError as error:
            yield self._ended(error)
            return
        finally:
            self._pieces.close()
        yield self._ended()

    def __enter__(self) -> Self:
        """Return the stream."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the connection."""
        self._pieces.close()


class AsyncRunStream(_Running):
    """Chunks of a run, for `async for`; also an async context manager. It never raises."""

    async def __aiter__(self) -> AsyncIterator[StreamChunk]:
        """Yield the chunks."""
        try:
            async for piece in self._pieces:
                yield self._chunk(piece)
        except LlmkitError as error:
            yield self._ended(error)
            return
        finally:
            await self._pieces.aclose()
        yield self._ended()

    async def __aenter__(self) -> Self:
        """Return the stream."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close the connection."""
        await self._pieces.aclose()
