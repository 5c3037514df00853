"""httpx's functions for servers on this machine: without reading certificates for each request, which takes
30 ms, and with the patience that a busy machine wants."""

from __future__ import annotations

import contextlib

import httpx


def client(**settings):
    return httpx.Client(**{"verify": False, "trust_env": False, "timeout": 60, **settings})


def request(method, url, **arguments):
    with client() as one:
        return one.request(method, url, **arguments)


def get(url, **arguments):
    return request("GET", url, **arguments)


def post(url, **arguments):
    return request("POST", url, **arguments)


def delete(url, **arguments):
    return request("DELETE", url, **arguments)


@contextlib.contextmanager
def stream(method, url, **arguments):
    with client() as one, one.stream(method, url, **arguments) as response:
        yield response
