"""The parameters of a call: which names exist, which are likely typos, and which values can be sent.

One check for every surface: `ask`, the clients, presets, `-o` on the command line, and the server.
"""

from __future__ import annotations

import json
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from llmkit.errors import InvalidRequestError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

ARGUMENTS = frozenset({"model", "preset", "system", "backend"})
OPTIONS = frozenset(
    {
        "attachments",
        "budget",
        "ledger",
        "max_rounds",
        "retry",
        "schema",
        "session",
        "store",
        "tags",
        "timeout",
        "tools",
        "variables",
    }
)
"""What llmkit itself takes with a call; none of it goes to a provider except `tools`."""

JOB = frozenset(
    """
    address at_once column engine job key max_usd out prompt retry_errors rpm store tpm workers
    """.split()  # noqa: SIM905 - as below
)
"""What `llmkit.map` takes besides the options of its calls."""

STANDARD = frozenset(
    """
    audio background dimensions encoding_format frequency_penalty function_call functions include input
    input_type instructions language logit_bias logprobs max_completion_tokens max_tokens metadata modalities
    moderation n output_compression output_format parallel_tool_calls prediction presence_penalty prompt
    prompt_cache_key prompt_cache_retention quality reasoning_effort response_format safety_identifier seed
    service_tier size speed stop store stream_options style temperature thinking timestamp_granularities
    tool_choice top_logprobs top_p user verbosity voice web_search_options duration batch
    """.split()  # noqa: SIM905 - sixty lines less
)
"""OpenAI's parameters for chats, embeddings, audio and images."""

OTHERS = frozenset(
    """
    add_generation_prompt allowed_token_ids bad_words best_of cache_control cache_prompt cachedContent
    chat_template chat_template_kwargs citation_options citations compound_custom connectors documents
    dry_multiplier echo enable_search enable_thinking format generationConfig grammar guided_choice
    guided_decoding_backend guided_grammar guided_json guided_regex ignore_eos include_reasoning
    include_stop_str_in_output json_schema keep_alive languages length_penalty logits_processors min_p min_tokens
    mirostat mirostat_eta mirostat_tau models n_keep n_predict n_probs num_beams num_ctx num_gpu num_predict num_thread
    options plugins preamble prompt_logprobs prompt_mode prompt_truncate_len provider random_seed raw_mode
    reasoning reasoning_format reasoning_split repeat_last_n repeat_penalty repetition_penalty return_images
    return_related_questions return_token_ids route safe_mode safe_prompt safety_settings search_context_size
    search_domain_filter search_mode search_parameters search_queries_only search_recency_filter
    skip_special_tokens spaces_between_special_tokens stop_sequences stop_token_ids structured_outputs suffix
    tfs_z thinking_budget top_a top_k top_n transforms truncate truncate_prompt_tokens typical_p usage
    use_beam_search videos xtc_probability xtc_threshold
    """.split()  # noqa: SIM905 - sixty lines less
)
"""Parameters of single providers and servers. Other names go to the provider too, unless they resemble one here."""

SETTINGS = frozenset(
    """
    additional_drop_params allowed_openai_params api_base api_key api_version base_model base_url client
    custom_llm_provider default_headers deployment_id drop_params extra_body extra_headers extra_query headers
    max_retries messages mock_response num_retries organization request_timeout stream url id ttl cache caching
    order roles rpm tpm rust self tags weight verbose guardrails fallbacks model_list
    """.split()  # noqa: SIM905 - sixty lines less
)
"""LiteLLM's settings for one call, as far as their names resemble another one here."""

_KNOWN = ARGUMENTS | OPTIONS | STANDARD | OTHERS | SETTINGS
_RETRY, _ADDRESS = "use retry=Retry(tries=…)", "say api_base"
ELSEWHERE = {
    "stream": "use stream or astream, of llmkit or of the client",
    "messages": "give the messages as the first argument",
    "fallbacks": "they stand in a preset, or in MultiAIClient(fallbacks=…)",
    "model_list": "use MultiAIClient",
    **dict.fromkeys(("max_retries", "num_retries", "tries", "delay"), _RETRY),
    **dict.fromkeys(("endpoint", "url", "host", "api_url", "api_host"), _ADDRESS),
    **dict.fromkeys(("concurrency", "max_workers"), "say at_once, with llmkit.map"),
    "key": "say api_key",
    "request_timeout": "say timeout",
    "system_prompt": "say system",
    "default_headers": "say extra_headers",
    "extra_query": "LiteLLM cannot send it",
}
"""Words that nobody means for the provider's body, and what to say instead."""
_ACCESS = {"api_base", "api_key", "api_version", "base_url"}
_MEANT = sorted(
    ARGUMENTS | OPTIONS | STANDARD | _ACCESS | OTHERS - {"echo", "format", "models", "options", "route", "videos"}
)
MOST_STOPS = 4
"""How many entries of `stop` LiteLLM sends."""
_LIMITS = {"max_tokens", "max_completion_tokens"}
_LONG = 8
_SHORTEST = 3
OBJECTS = frozenset({"client", "shared_session", "azure_ad_token_provider", "file", "image", "mask", "logger_fn"})
"""Parameters that are Python objects by nature."""
_CLASSES = frozenset({"response_format"})
_SHAPES: dict[str, tuple[Any, str]] = {
    "cache": (dict, "a mapping"),
    "extra_body": (dict | None, "a mapping"),
    "functions": (list | tuple | None, "a list"),
}
"""Parameters that are taken apart on the way, which the provider cannot refuse."""


def check_params(params: Mapping[str, Any]) -> None:
    """Check that parameters can be sent, and that no name is a likely typo or the word for something else.

    Raises:
        InvalidRequestError: it names the parameter, and the place in its value.
    """
    refuse(params, ELSEWHERE, "here")
    for name, value in params.items():
        if meant := slip(name):
            raise InvalidRequestError(f"there is no parameter {name!r}; did you mean {meant!r}? (extra_body takes any)")
        if name in OBJECTS or (name in _CLASSES and isinstance(value, type)):
            continue
        check_value(value, name)
        kind, told = _SHAPES.get(name, (object, ""))
        if not isinstance(value, kind):
            raise InvalidRequestError(f"{name} must be {told}, not {type(value).__name__}")


def refuse(given: Iterable[str], elsewhere: Mapping[str, str], where: str) -> None:
    """Refuse the names that belong elsewhere; the mapping has what to say instead.

    Raises:
        InvalidRequestError: it names the first one.
    """
    for name in given:
        if advice := elsewhere.get(name):
            raise InvalidRequestError(f"{name} cannot be given {where}: {advice}")


def settings_beside(settings: Mapping[str, Any], params: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the settings without the limit of the answer, under either of its names, if the parameters have one."""
    if not _LIMITS & params.keys():
        return settings
    return {name: value for name, value in settings.items() if name not in _LIMITS}


@lru_cache(maxsize=1024)
def slip(name: str) -> str:
    """Return the known name that *name* is probably a typo of, or "" if it may be right.

    Up to two letters may differ in names of eight letters or more; swapping two neighbours counts as one.
    """
    return "" if name in _KNOWN else nearest(name, _MEANT)


def nearest(name: str, names: Iterable[str]) -> str:
    """Return the one of the names that *name* is probably a typo of, or "" if none is near."""
    if len(name) < _SHORTEST:
        return ""
    most = 1 if len(name) < _LONG else 2
    letters = set(name)
    near = (
        (distance(name, known), known)
        for known in names
        if abs(len(known) - len(name)) <= most and len(letters ^ set(known)) <= 2 * most
    )
    best = min(near, default=(most + 1, ""))
    return best[1] if best[0] <= most else ""


def distance(one: str, other: str) -> int:
    """Return the edit distance: letters to change, add, remove or swap with a neighbour to get *other*."""
    before: list[int] = []
    above: list[int] = []
    row = list(range(len(other) + 1))
    for at, letter in enumerate(one, start=1):
        before, above, row = above, row, [at]
        for to, wanted in enumerate(other, start=1):
            best = min(above[to] + 1, row[to - 1] + 1, above[to - 1] + (letter != wanted))
            if at > 1 and to > 1 and letter == other[to - 2] and one[at - 2] == wanted:
                best = min(best, before[to - 2] + 1)
            row.append(best)
    return row[-1]


_encode = json.JSONEncoder(allow_nan=False, ensure_ascii=False).encode


def check_value(value: Any, where: str) -> None:
    """Check that a value can be expressed in JSON.

    Raises:
        InvalidRequestError: the message names the place.
    """
    if value is None or isinstance(value, bool | int):
        return
    try:
        (value if isinstance(value, str) else _encode(value)).encode()
    except RecursionError:
        raise InvalidRequestError(f"{where} cannot be sent: it is nested too deeply") from None
    except (TypeError, ValueError) as error:
        place, why = _fault(value, where, set()) or (where, str(error))
        raise InvalidRequestError(f"{where} cannot be sent: {why if place == where else f'{place}: {why}'}") from None


def _fault(value: Any, where: str, above: set[int]) -> tuple[str, str] | None:
    """Return the first place in a value that JSON cannot express, and why."""
    if isinstance(value, str):
        return (where, "it has a half of a surrogate pair, which is no text") if _is_broken(value) else None
    if isinstance(value, float):
        return None if value - value == 0 else (where, f"{value} is no number in JSON")
    if value is None or isinstance(value, bool | int):
        return None
    if id(value) in above:
        return where, "it contains itself"
    items: Iterable[tuple[str, Any]]
    if isinstance(value, dict):
        strange = next((key for key in value if not isinstance(key, str | int | float | bool | None)), None)
        if strange is not None:
            return where, f"a key of it is no text but {type(strange).__name__}"
        items = ((f"{where}.{key}", item) for key, item in value.items())
    elif isinstance(value, list | tuple):
        items = ((f"{where}[{at}]", item) for at, item in enumerate(value))
    else:
        return where, f"{_kind(value)} cannot be said in JSON"
    return next(filter(None, (_fault(item, place, above | {id(value)}) for place, item in items)), None)


def _kind(value: Any) -> str:
    return f"the class {value.__name__}" if isinstance(value, type) else f"an object of type {type(value).__name__}"


def _is_broken(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False


def encodable(text: str) -> str:
    """Return an answer's text as one that can be encoded: halves of a surrogate pair are joined, a lone one is U+FFFD.

    What is no text is returned as it is.
    """
    if not isinstance(text, str) or text.isascii() or not _is_broken(text):
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


class Halves:
    """The pieces of one text, encodable: a half of a surrogate pair waits for the piece with the other one."""

    def __init__(self) -> None:
        self._waiting = ""

    def joined(self, piece: str, *, last: bool = False) -> str:
        """Return a piece with what waited for it; nothing waits after the last."""
        text, self._waiting = self._waiting + piece, ""
        if not last and "\ud800" <= text[-1:] <= "\udbff":
            text, self._waiting = text[:-1], text[-1]
        return encodable(text)
