"""What a caller may give as prompt, messages and attachments, and what is refused before anything is sent."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest

import llmkit
from llmkit import InvalidRequestError
from llmkit.testing import ScriptedBackend

PNG = b"\x89PNG\r\n\x1a\n" + bytes(8)
WAV = b"RIFF\x24\x00\x00\x00WAVEfmt "
WEBP = b"RIFF\x24\x00\x00\x00WEBPVP8 "


def asked(call, prompt, **options):
    """Ask a scripted model and return the messages that reached it."""
    backend = ScriptedBackend("ok")
    call(llmkit, "ask", prompt, model="openai/gpt-4o", backend=backend, **options)
    return [dict(message) for message in backend.requests[0].messages]


def refused(call, prompt, **options):
    """Ask, and return what the caller is told; nothing may have been sent."""
    backend = ScriptedBackend("ok")
    with pytest.raises(InvalidRequestError) as caught:
        call(llmkit, "ask", prompt, model="openai/gpt-4o", backend=backend, **options)
    assert backend.requests == []
    return str(caught.value)


def test_a_string_is_a_users_message_below_the_system_message(call):
    assert asked(call, "Hi", system="Be brief.") == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hi"},
    ]


def test_messages_go_as_they_are_and_stay_as_they_are(call):
    messages = [
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "Look"}], "name": "ann", "unknown": 1},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"id": "1", "type": "function", "function": {"name": "f"}}],
        },
        {"role": "tool", "tool_call_id": "1", "content": "42"},
    ]
    before = json.dumps(messages)

    assert asked(call, messages, attachments=["https://example.org/a.png"], system="S")[1:4] == messages[:3]
    assert json.dumps(messages) == before


@pytest.mark.parametrize(
    ("prompt", "told"),
    [
        ("", "the prompt is empty"),
        (" \n", "the prompt is empty"),
        ([], "the list of messages is empty"),
        ({"role": "user", "content": "x"}, "must be a string or a list of messages, not dict"),
        (7, "must be a string or a list of messages, not int"),
        (None, "must be a string or a list of messages, not NoneType"),
        (["hello"], "message 0 is no message but str"),
        ([{"role": "user", "content": "x"}, {"content": "x"}], "message 1 has no role"),
        ([{"role": "robot", "content": "x"}], "message 0 has an unknown role 'robot' (one of system, developer, user"),
        ([{"role": "user"}], "message 0 (user) has no content"),
        ([{"role": "user", "content": []}], "message 0: content must be a string or a list of parts"),
        ([{"role": "user", "content": 3}], "message 0: content must be a string or a list of parts"),
        ([{"role": "user", "content": ["x"]}], "message 0, part 0 is no part: it needs a type"),
        ([{"role": "user", "content": [{"type": "text"}]}], "message 0, part 0 is of type 'text' and has no 'text'"),
        (
            [{"role": "user", "content": [{"type": "text", "text": "x"}, {"type": "smell"}]}],
            "message 0, part 1 has an unknown type 'smell'",
        ),
    ],
)
def test_what_is_no_message_is_refused_by_its_index(call, prompt, told):
    assert told in refused(call, prompt)


@pytest.mark.parametrize(
    ("name", "data", "part"),
    [
        ("dot.png", PNG, {"type": "image_url", "image_url": {"url": "data:image/png;base64,{}"}}),
        ("no-ending", PNG, {"type": "image_url", "image_url": {"url": "data:image/png;base64,{}"}}),
        ("wrong.txt", b"\xff\xd8\xff\xe0", {"type": "image_url", "image_url": {"url": "data:image/jpeg;base64,{}"}}),
        ("a.gif", b"GIF89a", {"type": "image_url", "image_url": {"url": "data:image/gif;base64,{}"}}),
        ("a.webp", WEBP, {"type": "image_url", "image_url": {"url": "data:image/webp;base64,{}"}}),
        ("a.wav", WAV, {"type": "input_audio", "input_audio": {"data": "{}", "format": "wav"}}),
        ("a.mp3", b"ID3\x03", {"type": "input_audio", "input_audio": {"data": "{}", "format": "mp3"}}),
        (
            "a.pdf",
            b"%PDF-1.7",
            {"type": "file", "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,{}"}},
        ),
        ("a.txt", "Grüße".encode(), {"type": "text", "text": "a.txt:\nGrüße"}),
    ],
)
def test_a_file_joins_the_last_message_in_the_shape_of_its_kind(call, tmp_path, name, data, part):
    (tmp_path / name).write_bytes(data)
    wanted = json.loads(json.dumps(part).replace("{}", base64.b64encode(data).decode()))

    for source in (name, tmp_path / name):
        assert asked(call, "What is this?", attachments=[source]) == [
            {"role": "user", "content": [{"type": "text", "text": "What is this?"}, wanted]}
        ]


@pytest.mark.parametrize(
    ("url", "part"),
    [
        ("https://example.org/a.png?size=1", "image_url"),
        ("http://example.org/picture", "image_url"),
        ("data:image/png;base64,AAAA", "image_url"),
    ],
)
def test_a_url_is_passed_on_and_not_fetched(call, url, part):
    assert asked(call, "What is this?", attachments=[url])[0]["content"][1] == {"type": part, part: {"url": url}}


def test_an_attachment_alone_is_a_prompt(call):
    part = {"type": "text", "text": "from a program"}

    assert asked(call, "", attachments=[part]) == [{"role": "user", "content": [part]}]


def test_an_attachment_that_cannot_be_read_is_named(call, tmp_path):
    (tmp_path / "noise.bin").write_bytes(b"\x00\xfe\xff\x80")

    assert refused(call, "x", attachments=["missing.png"]) == (
        "cannot read the attachment missing.png: No such file or directory"
    )
    assert "cannot read the attachment ." in refused(call, "x", attachments=[Path()])
    assert "noise.bin" in refused(call, "x", attachments=["noise.bin"])


def test_one_attachment_needs_no_list(call, tmp_path):
    (tmp_path / "a.txt").write_text("42")
    part = {"type": "text", "text": "a.txt:\n42"}

    for alone in ("a.txt", Path("a.txt"), part):
        assert asked(call, "", attachments=alone) == [{"role": "user", "content": [part]}]


def test_one_tool_needs_no_list(call):
    def dice() -> int:
        """Throw dice."""
        return 4

    def tools_of(tools):
        backend = ScriptedBackend("ok")
        call(llmkit, "ask", "x", model="openai/gpt-4o", backend=backend, tools=tools)
        return backend.requests[0].params["tools"]

    assert tools_of(dice) == tools_of([dice])
    assert tools_of(tools_of(dice)[0]) == tools_of([dice])
    assert tools_of("os:getcwd") == tools_of(["os:getcwd"])


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"attachments": PNG}, "attachments must be a path, a URL or a message part, not bytes"),
        ({"attachments": 5}, "attachments must be a path, a URL or a message part, not int"),
        ({"attachments": ["https://example.org/a.png", PNG]}, "attachment 1 must be a path, a URL or a message part"),
        ({"attachments": [{"url": "x"}]}, "attachment 0 is no part: it needs a type"),
        ({"attachments": [{"type": "image_url"}]}, "attachment 0 is of type 'image_url' and has no 'image_url'"),
        ({"attachments": [{"type": "file", "file": {"file_data": PNG}}]}, "attachment 0.file.file_data"),
        ({"tools": 5}, "tools must be a list of functions or mappings, not int"),
        ({"user": object()}, "user"),
        ({"metadata": {"who": {1, 2}}}, "metadata"),
        ({"timeout": 0}, "timeout"),
        ({"timeout": "soon"}, "timeout"),
        ({"timeout": float("nan")}, "timeout"),
        ({"stream": True}, "use stream or astream"),
        ({"num_retries": 2}, "use retry=Retry(tries=…)"),
        ({"max_retries": 2}, "use retry=Retry(tries=…)"),
        ({"messages": []}, "give the messages as the first argument"),
    ],
)
def test_options_that_cannot_be_sent_are_refused_by_name(call, options, told):
    assert told in refused(call, "x", **options)


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        ("openai:gpt-4o", "openai/gpt-4o"),
        ("openai/gpt-4o", "openai/gpt-4o"),
        ("openrouter/meta/llama:free", "openrouter/meta/llama:free"),
        ("ft:gpt-4o:me", "ft:gpt-4o:me"),
    ],
)
def test_a_model_may_be_written_with_a_colon(call, given, sent):
    backend = ScriptedBackend("ok")

    call(llmkit, "ask", "x", model=given, backend=backend)

    assert backend.requests[0].model == sent


@pytest.mark.parametrize("model", ["", " ", 3])
def test_a_model_that_is_no_name_is_refused(call, model):
    with pytest.raises(InvalidRequestError, match="the model must be a name like openai/gpt-4o"):
        call(llmkit, "ask", "x", model=model, backend=ScriptedBackend())
