"""One error tree: complete over LiteLLM's, picklable, and free of secrets."""

from __future__ import annotations

import inspect
import pickle
import re

import pytest

from llmkit import errors
from llmkit.providers.failures import CLASSES, NOT_FROM_CALLS, redact


def test_every_exception_class_of_litellm_is_mapped():
    """A new class in LiteLLM makes this fail: decide what it becomes, or why a call cannot raise it."""
    import litellm.exceptions

    theirs = {
        name
        for name, value in vars(litellm.exceptions).items()
        if inspect.isclass(value) and issubclass(value, BaseException) and value.__module__ == "litellm.exceptions"
    }

    assert theirs == CLASSES.keys() | NOT_FROM_CALLS
    assert not CLASSES.keys() & NOT_FROM_CALLS


PROVIDER_ERRORS = [
    value for value in vars(errors).values() if inspect.isclass(value) and issubclass(value, errors.ProviderError)
]


@pytest.mark.parametrize("kind", PROVIDER_ERRORS, ids=lambda kind: kind.__name__)
def test_an_error_survives_pickling(kind):
    error = kind("it broke", provider="openai", model="gpt-4o", retry_after_s=3.0, partial="half")

    copy = pickle.loads(pickle.dumps(error))

    assert type(copy) is kind
    assert str(copy) == "it broke"
    assert (copy.provider, copy.model, copy.retry_after_s, copy.partial) == ("openai", "gpt-4o", 3.0, "half")
    assert copy.status_code == error.status_code
    assert copy.retryable == error.retryable


def test_what_can_be_caught_as_what():
    assert issubclass(errors.Timeout, TimeoutError)
    assert issubclass(errors.ProviderError, ValueError)  # llmax raised a ValueError when its tries were spent
    assert issubclass(errors.UnknownPresetError, KeyError)
    assert str(errors.UnknownPresetError("no preset 'x'")) == "no preset 'x'"


def test_the_tree_in_the_docstring_is_the_tree():
    drawn = set(re.findall(r"^[ │├└─]*(\w+)", errors.__doc__, re.MULTILINE))

    for name, value in vars(errors).items():
        if inspect.isclass(value):
            assert name in drawn, f"{name} is missing in the drawing"


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("wrong key sk-proj-abcdefgh1234 given", "wrong key sk-[key] given"),
        ("Authorization: Bearer abcdefgh.ijkl", "Authorization: Bearer [key]"),
        ('{"api_key": "abcdefghijkl"}', '{"api_key": "[key]"}'),
        ("the key my-own-secret is wrong", "the key [key] is wrong"),
        ("Check the keyboard of the tokenizer", "Check the keyboard of the tokenizer"),
    ],
)
def test_secrets_are_taken_out_of_messages(text, clean):
    assert redact(text, "my-own-secret") == clean
