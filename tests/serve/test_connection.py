"""What a connection writes, and when: seen by a transport that remembers what it is given."""

from __future__ import annotations

import asyncio

from uvicorn.server import ServerState

from llmkit.serve.connection import server_config

REQUEST = b"GET / HTTP/1.1\r\nhost: x\r\n%s\r\n"


class Remembering(asyncio.Transport):
    """A transport that sends to nobody."""

    def __init__(self):
        super().__init__()
        self.calls = []

    def write(self, data):
        self.calls.append(bytes(data))

    def close(self):
        self.calls.append("close")

    def abort(self):
        self.calls.append("abort")

    def is_closing(self):
        return bool({"close", "abort"} & set(self.calls[-1:]))

    def pause_reading(self):
        pass

    def resume_reading(self):
        pass


def calls(app, *incoming):
    """What a connection does with its transport when this comes in, each part in a turn of its own."""

    async def served():
        config = server_config(app)
        config.load()
        connection = config.http_protocol_class(config=config, server_state=ServerState(), app_state={})
        transport = Remembering()
        connection.connection_made(transport)
        for part in incoming:
            connection.data_received(part) if isinstance(part, bytes) else part(connection)
        for _ in range(20):
            await asyncio.sleep(0)
        connection.connection_lost(OSError())
        return transport.calls

    return asyncio.run(served())


def answering(*bodies, pause=False):
    """An application that answers with these parts."""

    async def app(_, __, send):
        await send({"type": "http.response.start", "status": 200, "headers": [(b"transfer-encoding", b"chunked")]})
        for body in bodies:
            if pause:
                await asyncio.sleep(0)
            await send({"type": "http.response.body", "body": body, "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    return app


def test_a_head_and_its_body_are_sent_together():
    (sent,) = calls(answering(b"hello"), REQUEST % b"")

    assert sent.startswith(b"HTTP/1.1 200 OK\r\n")
    assert sent.endswith(b"5\r\nhello\r\n0\r\n\r\n")


def test_a_piece_of_a_stream_does_not_wait_for_the_next():
    head, first, second = calls(answering(b"one", b"two", pause=True), REQUEST % b"")

    assert head.endswith(b"\r\n\r\n")
    assert (b"one" in first, b"two" in second) == (True, True)


def test_the_answer_is_sent_before_the_connection_is_closed():
    answer, closed = calls(answering(b"hello"), REQUEST % b"connection: close\r\n")

    assert answer.endswith(b"0\r\n\r\n")
    assert closed == "close"


def test_nothing_is_written_to_a_connection_that_is_broken_off():
    assert calls(answering(b"hello"), REQUEST % b"", lambda connection: connection.transport.abort()) == ["abort"]
