"""The keyword arguments of calls, for editors and type checkers; `core.params` has the same names, as a test compares.

A parameter that is not listed here reaches the provider in `extra_body={…}`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypedDict

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Mapping, Sequence

    from pydantic import BaseModel

    from llmkit.core.retry import Retry
    from llmkit.money.budgets import Budget
    from llmkit.money.ledger import Ledger
    from llmkit.store import Store

Tool: TypeAlias = "Callable[..., Any] | Mapping[str, Any] | str"
"""A Python function, which is called for the model; an OpenAI-style schema; or `module:function`."""
Attachment: TypeAlias = "str | os.PathLike[str] | Mapping[str, Any]"
"""A path, a URL, or an OpenAI-style message part."""


class ProviderParams(TypedDict, total=False):
    """What goes to the provider unchanged."""

    # OpenAI's, which most providers have
    temperature: float | None
    top_p: float | None
    max_tokens: int | None
    max_completion_tokens: int | None
    stop: str | Sequence[str] | None
    seed: int | None
    n: int | None
    frequency_penalty: float | None
    presence_penalty: float | None
    logit_bias: Mapping[str, float] | None
    logprobs: bool | None
    top_logprobs: int | None
    response_format: Any
    tool_choice: str | Mapping[str, Any] | None
    parallel_tool_calls: bool | None
    reasoning_effort: str | None
    verbosity: str | None
    service_tier: str | None
    stream_options: Mapping[str, Any] | None
    metadata: Mapping[str, Any] | None
    modalities: Sequence[str] | None
    audio: Mapping[str, Any] | None
    prediction: Mapping[str, Any] | None
    web_search_options: Mapping[str, Any] | None
    prompt_cache_key: str | None
    prompt_cache_retention: str | None
    safety_identifier: str | None
    user: str | None
    function_call: str | Mapping[str, Any] | None
    thinking: Mapping[str, Any] | None
    # of single providers and servers
    top_k: int | None
    min_p: float | None
    top_a: float | None
    repetition_penalty: float | None
    repeat_penalty: float | None
    stop_sequences: Sequence[str] | None
    cache_control: Mapping[str, Any] | None
    chat_template_kwargs: Mapping[str, Any] | None
    enable_thinking: bool | None
    thinking_budget: int | None
    reasoning: Any
    include_reasoning: bool | None
    enable_search: bool | None
    safety_settings: Sequence[Mapping[str, Any]] | None
    guided_json: Any
    guided_regex: str | None
    guided_choice: Sequence[str] | None
    guided_grammar: str | None
    grammar: str | None
    json_schema: Any
    keep_alive: str | float | None
    num_ctx: int | None
    num_predict: int | None
    mirostat: int | None
    documents: Sequence[Any] | None
    citations: Any
    plugins: Sequence[Any] | None
    provider: Mapping[str, Any] | None
    transforms: Sequence[str] | None
    models: Sequence[str] | None
    route: str | None
    random_seed: int | None
    safe_prompt: bool | None
    search_parameters: Mapping[str, Any] | None
    search_domain_filter: Sequence[str] | None
    search_recency_filter: str | None
    # LiteLLM's settings for one call
    api_version: str | None
    base_url: str | None
    base_model: str | None
    organization: str | None
    custom_llm_provider: str | None
    drop_params: bool | None
    additional_drop_params: Sequence[str] | None
    allowed_openai_params: Sequence[str] | None
    extra_body: Mapping[str, Any] | None
    extra_headers: Mapping[str, str] | None
    headers: Mapping[str, str] | None


class _Policies(ProviderParams, total=False):
    timeout: float | None
    retry: Retry | int | None
    max_rounds: int
    tags: Sequence[str]


class _Places(TypedDict, total=False):
    api_key: str | None
    api_base: str | None
    variables: Mapping[str, Any] | None
    budget: Budget | str | Sequence[Budget | str] | None
    store: Store | str | os.PathLike[str] | None


class TurnOptions(_Policies, total=False):
    """The keyword arguments of a turn of a `ChatModel`, which takes its tools by name; see `ChatModel.run`."""

    schema: type[BaseModel] | Mapping[str, Any] | None
    budget: Budget | str | Sequence[Budget | str] | None
    attachments: Attachment | Sequence[Attachment]


class CallOptions(_Policies, total=False):
    """The keyword arguments of a call of a `MultiAIClient`; see `MultiAIClient.invoke`."""

    tools: Tool | Sequence[Tool] | None
    functions: Sequence[Mapping[str, Any]] | None
    attachments: Attachment | Sequence[Attachment]


class AskOptions(CallOptions, _Places, total=False):
    """The keyword arguments of `llmkit.ask`, which has no client that keeps them."""

    ledger: Ledger | bool | str | None
    session: str


class MapOptions(_Policies, _Places, total=False):
    """The keyword arguments of `llmkit.map`: those of a call, and those of the job."""

    tools: Tool | Sequence[Tool] | None
    prompt: str | None
    column: str | None
    key: str | None
    out: str | os.PathLike[str] | None
    job: str | None
    at_once: int | Literal["auto"]
    workers: int
    engine: Literal["dask"] | None
    address: str | None
    rpm: float | None
    tpm: float | None
    max_usd: float | None
    retry_errors: bool


class MediaOptions(TypedDict, total=False):
    """The keyword arguments of calls that are no chats: embeddings, audio and images."""

    delay: float | None
    tries: int | None
    retry: Retry | int | None
    timeout: float | None
    tags: Sequence[str]
    batch: int
    dimensions: int | None
    encoding_format: str | None
    input_type: str | None
    response_format: Any
    instructions: str | None
    speed: float | None
    n: int | None
    size: str | None
    quality: str | None
    style: str | None
    background: str | None
    moderation: str | None
    output_format: str | None
    output_compression: int | None
    user: str | None
    drop_params: bool | None
    extra_body: Mapping[str, Any] | None
    extra_headers: Mapping[str, str] | None


class TranscribeOptions(MediaOptions, total=False):
    """The keyword arguments of a transcription."""

    language: str | None
    prompt: str | None
    temperature: float | None
    timestamp_granularities: Sequence[Literal["word", "segment"]] | None
    include: Sequence[str] | None
    duration: float | None
