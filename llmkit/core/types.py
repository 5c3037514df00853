"""The frozen values that every other module uses, and the steps of a flow.

Nothing in this module does anything: it defines data and what it means, and how a copy is made.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, Literal, Protocol, TypeAlias

if TYPE_CHECKING:
    from typing_extensions import TypeVar

    from llmkit.core.completion import Choice, ToolCall

    Parsed = TypeVar("Parsed", default=Any)
else:
    from typing import TypeVar

    Parsed = TypeVar("Parsed")

T = TypeVar("T")

Message: TypeAlias = Mapping[str, Any]
"""One OpenAI-style chat message: role, content (text or parts), and whatever else the role allows."""

UsageSource = Literal["priced", "estimated", "unpriced"]


def changed(item: T, **values: Any) -> T:
    """Return a frozen object with other values: what `dataclasses.replace` does, without a check, in half the time."""
    made = object.__new__(type(item))
    for name in item.__slots__:  # type: ignore[attr-defined]
        object.__setattr__(made, name, values[name] if name in values else getattr(item, name))
    return made


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """The tokens and the cost of one or more answers.

    Attributes:
        prompt_tokens: tokens sent, cached ones included.
        completion_tokens: tokens answered, reasoning included.
        total_tokens: the two together.
        cached_tokens: how many of the prompt's tokens the provider had in its cache.
        reasoning_tokens: how many of the answer's tokens the model used to think, if the provider says.
        cost_usd: price in US dollars, or None if no price is known. Never 0 for "unknown".
        source: "priced" from the provider's own counts; "estimated" where the provider gave no counts
            and the model's tokenizer counted; "unpriced" where the tokens are known and the price is not.
    """

    prompt_tokens: int = 0
    completion_tokens: int = 0
    total_tokens: int = 0
    cached_tokens: int = 0
    reasoning_tokens: int = 0
    cost_usd: float | None = None
    source: UsageSource = "unpriced"

    def __add__(self, other: Usage) -> Usage:
        """Return the sum; its price is known if both are, and the weaker source counts."""
        known = self.cost_usd is not None and other.cost_usd is not None
        weaker = max(self.source, other.source, key=("priced", "estimated", "unpriced").index)
        return Usage(
            prompt_tokens=self.prompt_tokens + other.prompt_tokens,
            completion_tokens=self.completion_tokens + other.completion_tokens,
            total_tokens=self.total_tokens + other.total_tokens,
            cached_tokens=self.cached_tokens + other.cached_tokens,
            reasoning_tokens=self.reasoning_tokens + other.reasoning_tokens,
            cost_usd=(self.cost_usd or 0.0) + (other.cost_usd or 0.0) if known else None,
            source=weaker,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """The prices of a model, in US dollars. None means no price is known, which is not the same as free.

    Attributes:
        prompt: for a token of the prompt.
        completion: for a token of the answer, or None if the model answers with no tokens (embeddings).
        cached: for a token of the prompt that the provider had in its cache; None for the same as `prompt`.
        minute: for a minute of audio; begun seconds count whole.
        character: for a character of text to speak.
        image: for an image.
    """

    prompt: float | None = None
    completion: float | None = None
    cached: float | None = None
    minute: float | None = None
    character: float | None = None
    image: float | None = None


Kind = Literal["chat", "embed", "transcribe", "speak", "image"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One request to a provider, complete and ready to be sent.

    Attributes:
        model: LiteLLM's `provider/model` string.
        kind: chat, embed, transcribe, speak or image.
        messages: the messages of a chat, as they are sent; empty for other kinds.
        params: the provider's other parameters (temperature, tools, input, …), by LiteLLM's names.
        timeout_s: seconds without an answer after which the call is given up.
        api_key: the provider's key; None to let LiteLLM read the provider's environment variable.
        api_base: the provider's address; None for its usual one.
        name: the model's logical name, by which the caller knows it, or "" for the model itself.
        price: the model's prices, or None to look them up in LiteLLM's map.
        priced_as: the model's name in LiteLLM's map, or "" for the model itself.
        price_source: where `price` comes from, or "" if it is not set.
        call: an id that all attempts of one call share, and `attempt` their number from 1; for the ledger.
        notes: warnings that the reply will carry.
    """

    model: str
    kind: Kind = "chat"
    messages: Sequence[Message] = ()
    params: Mapping[str, Any] = field(default_factory=dict, repr=False)
    timeout_s: float = 600.0
    api_key: str | None = field(default=None, repr=False)
    api_base: str | None = field(default=None, repr=False)  # a key may be part of it
    name: str = ""
    price: Price | None = None
    priced_as: str = ""
    price_source: str = ""
    call: str = ""
    attempt: int = 0
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class CallLabels:
    """The labels of a call: preset and session by name and id, and the caller's tags."""

    preset: str = ""
    session: str = ""
    tags: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply(Generic[Parsed]):
    """One complete answer. `str(reply)` is its text.

    Attributes:
        text: the text of the first choice, or "" if there is none.
        model: the model that answered, as the provider names it.
        finish_reason: "stop", "length", "tool_calls", "content_filter", …
        usage: tokens and price.
        latency_s: seconds from sending the request to the end of the answer.
        first_token_s: seconds until the first text of a stream, or None if not streamed.
        warnings: what went wrong without spoiling the answer, one sentence each.
        choices: OpenAI-style choices, `choices[0].message.content`.
        raw: the provider's answer as decoded JSON; of a stream, its chunks put together in OpenAI's format.
        name: the logical name of the model that answered; after a fallback it is not the requested one.
        parsed: the object that `schema=` requested.
        data: results that are not text: vectors, audio, images.
        messages: what this turn adds to the conversation: tool calls, their results, and finally the answer.
        over_limit: whether `increment_usage` returned False: the limit is reached with this answer.
        converter: makes LiteLLM's object of the reply, see `litellm`.
        rate_limits: what the provider says about its limits: the answer's headers with `ratelimit` in their names.
        route: "direct" if llmkit sent the request itself, "litellm" if LiteLLM did, "" for other providers.
    """

    text: str
    model: str = ""
    finish_reason: str | None = None
    usage: Usage = field(default_factory=Usage)
    latency_s: float = 0.0
    first_token_s: float | None = None
    warnings: tuple[str, ...] = ()
    choices: Sequence[Choice] = ()
    raw: Any = field(default=None, repr=False)
    name: str = ""
    parsed: Parsed = None  # type: ignore[assignment]  # no schema, and nothing parsed
    data: Any = field(default=None, repr=False)
    messages: Sequence[Message] = field(default=(), repr=False)
    over_limit: bool = False
    route: str = ""
    rate_limits: Mapping[str, str] = field(default_factory=dict, repr=False, compare=False)
    converter: Callable[[Reply], Any] | None = field(default=None, repr=False, compare=False)

    @property
    def content(self) -> str:
        """The same as `text`."""
        return self.text

    @property
    def tool_calls(self) -> Sequence[ToolCall]:
        """The tool calls of the first choice; empty if there are none."""
        return (self.choices[0].message.tool_calls or ()) if self.choices else ()

    def litellm(self) -> Any:
        """Return the answer as LiteLLM's `ModelResponse`; LiteLLM is imported for that.

        Raises:
            TypeError: the reply is no answer to a chat.
        """
        if self.converter is None:
            raise TypeError("only answers to chats can be LiteLLM's objects")
        return self.converter(self)

    def __str__(self) -> str:
        """The text of the answer."""
        return self.text


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """One chunk of a streamed answer.

    Attributes:
        content: new text, or "" for chunks that carry none (a role, a tool call, an end).
        reasoning: new text of the model's reasoning, if the provider shows it.
        tool_calls: OpenAI-style deltas of tool calls.
        finish_reason: set on the piece that ends the answer.
        index: the choice that the piece belongs to; 0 unless several answers were requested with `n`.
        raw: the chunk, in OpenAI's format.
    """

    content: str = ""
    reasoning: str = ""
    tool_calls: Sequence[Any] = ()
    finish_reason: str | None = None
    index: int = 0
    raw: Any = field(default=None, repr=False)

    @property
    def is_empty(self) -> bool:
        """Whether the piece adds nothing to the answer, like those that carry only a role or the usage."""
        return not (self.content or self.reasoning or self.tool_calls or self.finish_reason)

    def __str__(self) -> str:
        """The new text."""
        return self.content


class Source(Protocol):
    """An open stream, as a backend returns it: pieces, and at any time the reply so far.

    `complete` becomes true when the provider itself ended the answer.
    """

    complete: bool

    def reply(self) -> Reply:
        """Return what has arrived so far as one reply."""

    def next(self) -> Piece | None:
        """Return the next piece, or None after the last, or raise a ProviderError with the text so far in `partial`."""

    def close(self) -> None:
        """Close the connection."""


class AsyncSource(Protocol):
    """The async version of `Source`."""

    complete: bool

    def reply(self) -> Reply:
        """Return what has arrived so far as one reply."""

    async def anext(self) -> Piece | None:
        """Return the next piece, or None after the last, or raise a ProviderError with the text so far in `partial`."""

    async def aclose(self) -> None:
        """Close the connection."""


@dataclass(frozen=True, slots=True)
class Send:
    """Step: send the request once; the result is a Reply."""

    request: Request


@dataclass(frozen=True, slots=True)
class Open:
    """Step: send the request once and leave the answer open; the result is a Source or AsyncSource."""

    request: Request


@dataclass(frozen=True, slots=True)
class Next:
    """Step: read an open stream; the result is a Piece, or None after the last."""

    source: Any


@dataclass(frozen=True, slots=True)
class Close:
    """Step: close an open stream, whether or not it was read to its end."""

    source: Any


@dataclass(frozen=True, slots=True)
class Emit:
    """Step: hand a piece to the stream's reader. If the reader leaves instead, StreamLeft is raised."""

    piece: Any


class StreamLeft(BaseException):
    """The reader of a stream wants no more of it; only flows see this."""


@dataclass(frozen=True, slots=True)
class Sleep:
    """Step: wait."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Invoke:
    """Step: call a sync or async function; the result is what it returns.

    The async driver raises a TimeoutError after `patience_s` and lets the function go on; the blocking driver calls
    sync functions on the caller's own thread and waits. A brief function is tried on the event loop itself; it has no
    effect before something raises a MustWaitError. If the caller is cancelled while it runs on a thread, `undo` is
    called with its result.
    """

    function: Callable[..., Any]
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    patience_s: float | None = None
    is_brief: bool = False
    undo: Callable[[Any], Any] | None = None


Step: TypeAlias = "Send | Open | Next | Close | Emit | Sleep | Invoke | tuple[Invoke, ...]"
"""Invokes in a tuple run concurrently; the result is a list of their results, an exception where one was raised."""

Flow: TypeAlias = Generator[Step, Any, T]
"""A generator that yields steps, is sent their results, and returns a T."""
