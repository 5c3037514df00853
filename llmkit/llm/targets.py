"""Where `LLM` runs: a preset or model here, a deployment of a client, or a remote service; and its streams."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol

from llmkit.api import aask, astream, stream
from llmkit.core.call import emitted
from llmkit.core.engine import adrive, adrive_stream, drive_stream
from llmkit.core.streams import AsyncPieces, Pieces
from llmkit.errors import LlmkitError
from llmkit.providers.aixplain.response import ModelResponse, ResponseStatus, StreamChunk, of_error, of_reply
from llmkit.providers.litellm import sdk as litellm_sdk
from llmkit.providers.transport.client import http

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Generator, Mapping, Sequence

    from typing_extensions import Self

    from llmkit.client import MultiAIClient
    from llmkit.core.engine import Backend
    from llmkit.core.types import Flow
    from llmkit.providers.aixplain.polled import PollState, Remote
    from llmkit.providers.prompt import Prompt

FUNCTIONS = ("text-generation", "text_generation", "TEXT_GENERATION")


class Target(Protocol):
    """A place where runs are executed."""

    async def answer(
        self, prompt: Prompt, tags: Sequence[str], timeout_s: float | None, state: PollState, /
    ) -> ModelResponse:
        """Return the answer, or raise an error."""

    def stream(self, prompt: Prompt, tags: Sequence[str], timeout_s: float, /) -> Any:
        """Return an iterator over texts, or over pieces with `content`."""

    def astream(self, prompt: Prompt, tags: Sequence[str], timeout_s: float, /) -> Any:
        """Return an async iterator over texts, or over pieces with `content`."""


class ModelTarget:
    """A preset by name, a LiteLLM model string with the defaults of such a model, or a deployment of a client.

    Args:
        asked: return an answer, a stream and an awaited stream for messages and options.
        model: the model string whose defaults count, or None.
        chosen: what says who answers.
        options: what every call is given besides.
        usual: the defaults of a model.
    """

    def __init__(
        self,
        asked: tuple[Callable[..., Any], Callable[..., Any], Callable[..., Any]],
        model: str | None,
        chosen: Mapping[str, Any],
        options: Mapping[str, Any],
        usual: Mapping[str, Any],
    ) -> None:
        self._ask, self._stream, self._astream = asked
        self._model, self._chosen, self._options, self._usual = model, chosen, options, usual

    @classmethod
    def here(
        cls,
        name: str,
        api_key: str | None,
        options: Mapping[str, Any],
        usual: Mapping[str, Any],
        backend: Backend | None,
    ) -> Self:
        """Return the target that is a preset or a model string."""
        model = name if "/" in name or ":" in name else None
        chosen: dict[str, Any] = {"preset": name} if model is None else {"model": name}
        chosen |= {"backend": backend} if backend is not None else {}
        options = {**options, **({"api_key": api_key} if api_key else {})}
        return cls((aask, stream, astream), model, chosen, options, usual)

    @classmethod
    def of_client(cls, name: str, client: MultiAIClient) -> Self:
        """Return the target that is a deployment, by its logical name."""
        return cls((client.ainvoke, client.stream, client.astream), None, {"model": name}, {}, {})

    async def answer(
        self, prompt: Prompt, tags: Sequence[str], timeout_s: float | None, _state: PollState, /
    ) -> ModelResponse:
        """Return the answer, or raise an error."""
        began = time.monotonic()
        options = await asyncio.to_thread(self._all, prompt, tags, timeout_s)
        reply = await self._ask(prompt.messages(), system=prompt.context, **options)
        return of_reply(reply, time.monotonic() - began)

    def stream(self, prompt: Prompt, tags: Sequence[str], timeout_s: float, /) -> Any:
        """Return an iterator over pieces."""
        return self._stream(prompt.messages(), system=prompt.context, **self._all(prompt, tags, timeout_s))

    def astream(self, prompt: Prompt, tags: Sequence[str], timeout_s: float, /) -> Any:
        """Return an async iterator over pieces."""
        return self._astream(prompt.messages(), system=prompt.context, **self._all(prompt, tags, timeout_s))

    def _all(self, prompt: Prompt, tags: Sequence[str], timeout_s: float | None) -> dict[str, Any]:
        usual = {} if self._model is None else dict(self._usual)
        if (
            usual
            and "temperature" not in prompt.params
            and not litellm_sdk.takes(str(self._model), temperature=usual["temperature"])
        ):
            del usual["temperature"]
        if "max_completion_tokens" in prompt.params:
            usual.pop("max_tokens", None)
        more: dict[str, Any] = {} if timeout_s is None else {"timeout": timeout_s}
        more |= {"tags": tags} if tags else {}
        return {**self._options, **usual, **more, **prompt.params, **self._chosen}


class ServiceTarget:
    """A remote service with polled runs."""

    def __init__(self, remote: Remote) -> None:
        self._remote = remote

    async def answer(
        self, prompt: Prompt, _tags: Sequence[str], timeout_s: float | None, state: PollState, /
    ) -> ModelResponse:
        """Return the answer, or raise an error."""
        began = time.monotonic()
        response = await adrive(self._remote.answer(prompt, timeout_s, state), http())
        return response if response.run_time else replace(response, run_time=time.monotonic() - began)

    async def submit(self, prompt: Prompt) -> ModelResponse:
        """Start a run."""
        return await adrive(self._remote.submit(prompt), http())

    async def poll(self, url: str) -> ModelResponse:
        """Return the state of a run."""
        return await adrive(self._remote.poll(url), http())

    def stream(self, prompt: Prompt, _tags: Sequence[str], timeout_s: float, /) -> Any:
        """Return an iterator over texts."""
        return Pieces(drive_stream(self._texts(prompt, timeout_s), http()))

    def astream(self, prompt: Prompt, _tags: Sequence[str], timeout_s: float, /) -> Any:
        """Return an async iterator over texts."""
        return AsyncPieces(adrive_stream(self._texts(prompt, timeout_s), http()))

    def _texts(self, prompt: Prompt, timeout_s: float) -> Flow[None]:
        yield from emitted((yield from self._remote.opened(prompt, timeout_s)))


class _State:
    """The state of a streamed run."""

    def __init__(self, pieces: Any) -> None:
        self.pieces = pieces
        self.response: ModelResponse | None = None
        self.text: list[str] = []
        self._began = time.monotonic()
        self._finish: str | None = None

    def chunk(self, piece: Any) -> StreamChunk:
        """Return the chunk for a piece."""
        text = piece if isinstance(piece, str) else piece.content
        reason = getattr(piece, "finish_reason", None)
        self.text.append(text)
        self._finish = reason or self._finish
        return StreamChunk(data=text, finish_reason=reason)

    def failed(self, error: Exception) -> StreamChunk:
        """Return the last chunk of a run that failed."""
        failure = of_error(error, time.monotonic() - self._began)
        self.response = replace(failure, data=failure.data or "".join(self.text))
        return StreamChunk(status=ResponseStatus.FAILED, error_message=self.response.error_message)

    def succeeded(self) -> StreamChunk:
        """Return the last chunk of a run that succeeded."""
        run_time = time.monotonic() - self._began
        reply = getattr(self.pieces, "reply", None)
        if reply is not None:
            self.response = of_reply(reply, run_time)
        else:
            self.response = ModelResponse(
                status=ResponseStatus.SUCCESS, data="".join(self.text), run_time=run_time, finish_reason=self._finish
            )
        return StreamChunk(status=ResponseStatus.SUCCESS, finish_reason=self.response.finish_reason)


class _Responded:
    """What the sync and the async stream of a run share."""

    _state: _State

    @property
    def response(self) -> ModelResponse:
        """The outcome of the run; IN_PROGRESS while more chunks are to come."""
        if self._state.response is not None:
            return self._state.response
        return ModelResponse(status=ResponseStatus.IN_PROGRESS, completed=False, data="".join(self._state.text))

    @property
    def status(self) -> ResponseStatus:
        """The status of `response`."""
        return self.response.status


class RunStream(_Responded, Pieces[StreamChunk]):
    """Chunks of a run, for `for`; also a context manager. It never raises: the last chunk carries the error."""

    def __init__(self, pieces: Any) -> None:
        self._state = _State(pieces)
        super().__init__(_chunks(self._state))


class AsyncRunStream(_Responded, AsyncPieces[StreamChunk]):
    """Chunks of a run, for `async for`; also an async context manager. It never raises."""

    def __init__(self, pieces: Any) -> None:
        self._state = _State(pieces)
        super().__init__(_achunks(self._state))


def _chunks(state: _State) -> Generator[StreamChunk, None, None]:
    try:
        for piece in state.pieces:
            yield state.chunk(piece)
    except LlmkitError as error:
        yield state.failed(error)
        return
    finally:
        state.pieces.close()
    yield state.succeeded()


async def _achunks(state: _State) -> AsyncGenerator[StreamChunk, None]:
    try:
        async for piece in state.pieces:
            yield state.chunk(piece)
    except LlmkitError as error:
        yield state.failed(error)
        return
    finally:
        await state.pieces.aclose()
    yield state.succeeded()
