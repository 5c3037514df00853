"""Token counts by OpenAI's tokenizers, from the files that LiteLLM brings. Nothing is fetched, and no image looked at.

Other models' tokenizers are not at hand: for them the counts are estimates.
"""

from __future__ import annotations

import json
import os
from functools import lru_cache
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from llmkit.core.completion import ChoiceMessage
    from llmkit.core.types import Request

_MESSAGE_TOKENS = 4  # role and separators, about
_PICTURE_TOKENS = 765  # an image of 1024 by 1024 pixels at OpenAI
_SLICE = 8192  # characters; the tokenizer takes quadratic time for long words
_BEGINNINGS = ("gpt-4o", "gpt-4.1", "gpt-5", "chatgpt-4o", "o1", "o3", "o4", "ft:gpt-4o")
_FILES = ("litellm_core_utils", "tokenizers")


def count_text(model: str, text: str) -> int:
    """Return how many tokens a text has."""
    encoding = _encoding("o200k_base" if model.rpartition("/")[2].startswith(_BEGINNINGS) else "cl100k_base")
    return sum(len(encoding.encode_ordinary(text[at : at + _SLICE])) for at in range(0, len(text), _SLICE))


def count_messages(model: str, messages: Sequence[Mapping[str, Any]]) -> list[int]:
    """Return how many tokens each message has; an image counts as one of the usual size."""
    return [_count_message(model, message) for message in messages]


def estimated(request: Request, answers: Sequence[ChoiceMessage]) -> tuple[int, int]:
    """Return roughly how many tokens a chat's prompt and its answers have: texts, reasoning, tools and their calls."""
    beside = [request.params[name] for name in ("tools", "functions", "response_format") if request.params.get(name)]
    prompt = sum(count_messages(request.model, request.messages))
    return prompt + _count_json(request.model, beside), sum(_count_answer(request.model, each) for each in answers)


def _count_answer(model: str, message: ChoiceMessage) -> int:
    texts = (message.content, message.reasoning_content, message.refusal)
    calls = [call.function.model_dump() for call in message.tool_calls or ()]
    if message.function_call is not None:
        calls.append(message.function_call.model_dump())
    return sum(count_text(model, text) for text in texts if isinstance(text, str)) + _count_json(model, calls)


def _count_json(model: str, values: Sequence[Any]) -> int:
    return sum(count_text(model, json.dumps(value, default=str, ensure_ascii=False)) for value in values)


def _count_message(model: str, message: Mapping[str, Any]) -> int:
    parts = message.get("content") or ""
    texts = [parts] if isinstance(parts, str) else [part.get("text") or "" for part in parts]
    pictures = 0 if isinstance(parts, str) else sum(part.get("type") not in {"text", "refusal"} for part in parts)
    if calls := message.get("tool_calls"):
        texts.append(json.dumps([call.get("function") for call in calls], default=str))
    return _MESSAGE_TOKENS + sum(count_text(model, each) for each in texts) + _PICTURE_TOKENS * pictures


@lru_cache(maxsize=2)
def _encoding(name: str) -> Any:
    import tiktoken  # takes 0.1 s, and its files another 0.3 s

    found = find_spec("litellm")
    folders = (found.submodule_search_locations or ()) if found is not None else ()
    for folder in folders:
        os.environ.setdefault("TIKTOKEN_CACHE_DIR", os.path.join(folder, *_FILES))  # noqa: PTH118 - a text is wanted
    return tiktoken.get_encoding(name)
