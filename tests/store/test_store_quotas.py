"""Quotas in the store: who may send when, whoever asks."""

from __future__ import annotations

import pytest

from llmkit.store import quotas
from llmkit.store.quotas import Quota


@pytest.fixture
def quota(store):
    """Call a function of `quotas` in a transaction."""

    def call(function, *args):
        with store.database.writing() as connection:
            return function(connection, *args)

    return call


def taken(call, quota, now, most=1, ahead_s=float("inf")):
    """Take all places that are offered, and return when they are."""

    def take(connection):
        starts, _ = quotas.offered(connection, [quota], now, most, ahead_s)
        quotas.take(connection, [quota], starts, now)
        return starts

    return call(take)


def test_a_minute_has_so_many_places_and_all_may_be_taken_at_once(quota):
    of_preset = Quota("preset:p", 3)

    assert taken(quota, of_preset, 1000.0, most=5) == [1000.0] * 3
    assert taken(quota, of_preset, 1010.0) == [1060.0]
    assert taken(quota, of_preset, 1061.0, most=2) == [1061.0, 1061.0]  # two of the first three; the third was taken
    assert taken(quota, of_preset, 1062.0) == [1120.0]


def test_in_no_minute_start_more_than_that(quota):
    of_preset, now, starts = Quota("preset:p", 5), 1000.0, []
    for step in range(40):
        starts += taken(quota, of_preset, now, most=1 + step % 3, ahead_s=0.5)
        now += 7.3

    assert all(sum(first <= start < first + 60 for start in starts) <= 5 for first in starts)
    assert len(starts) >= 5 * int((now - 1000) / 60)


def test_an_even_quota_spreads_them(quota):
    even = Quota("map:1", 60, is_even=True)

    assert taken(quota, even, 1000.0, most=9, ahead_s=2.5) == [1000.0, 1001.0, 1002.0]
    assert taken(quota, even, 1000.1, most=9, ahead_s=2.5) == []
    assert taken(quota, even, 1003.0, most=2) == [1003.0, 1004.0]


def test_places_that_are_not_taken_are_free(quota):
    even = Quota("map:1", 60, is_even=True)

    quota(lambda connection: quotas.offered(connection, [even], 1000.0, 9))

    assert taken(quota, even, 1000.0) == [1000.0]


@pytest.mark.parametrize(("is_even", "wait_s"), [(False, 60.0), (True, 118.0)])
def test_tokens_that_were_used_make_the_next_request_wait(quota, is_even, wait_s):
    of_tokens = Quota("q", tokens=150, is_even=is_even)

    quota(quotas.use, of_tokens, 100, 1000.0)
    assert taken(quota, of_tokens, 1000.0) == [1000.0 if not is_even else 1038.0]
    quota(quotas.use, of_tokens, 200, 1000.0)

    assert taken(quota, of_tokens, 1000.0) == [1000.0 + wait_s]
    assert taken(quota, of_tokens, 1130.0) == [1130.0]


def test_several_quotas_hold_together(quota):
    def offered(connection):
        both = [Quota("a", 60, is_even=True), Quota("b", 2)]
        starts, again_s = quotas.offered(connection, both, 1000.0, 9)
        quotas.take(connection, both, starts, 1000.0)
        return starts, again_s

    assert quota(offered) == ([1000.0, 1001.0], 0.0)
    assert quota(offered) == ([1060.0, 1061.0], 60.0)


def test_a_pause_is_heard_by_all(quota):
    model = Quota("model:m")

    quota(quotas.pause, model, 1007.0)
    quota(quotas.pause, model, 1003.0)

    assert quota(quotas.heard, [model, Quota("other")], 1000.0) == (7.0, False)
    assert taken(quota, model, 1000.0) == [1007.0]
    assert quota(quotas.heard, [Quota("other")], 1000.0)[0] == 0.0


def test_a_refusal_teaches_the_rate_that_was_taken(quota):
    model = Quota("model:m")

    quota(quotas.slow_down, model, 999.9, 50, 1.0, 1000.0)
    quota(quotas.pause, model, 1001.0)
    first, second = taken(quota, model, 1001.0, most=2)
    assert (first, round(1 / (second - first), 1)) == (1001.0, 47.5)

    # until it is refused again it grows, twice as much every 3.5 s; then it stays below what was taken
    now, starts = 1001.0, []
    while now < 1006.0:
        starts += taken(quota, model, now, most=9, ahead_s=0.1)
        now += 0.05
    last = sum(now - 1 < start <= now for start in starts)
    assert last > 90
    quota(quotas.slow_down, model, now, 0, 1.0, now)
    first, second = taken(quota, model, now, most=2)
    assert 0.9 * last <= 1 / (second - first) < last


def test_refusals_of_what_was_sent_before_the_pause_ended_say_nothing_new(quota):
    model = Quota("model:m")
    quota(quotas.slow_down, model, 999.9, 50, 1.0, 1000.0)
    quota(quotas.pause, model, 1001.0)

    quota(quotas.slow_down, model, 1000.9, 5, 1.0, 1000.95)

    first, second = taken(quota, model, 1001.0, most=2)
    assert round(1 / (second - first), 1) == 47.5


def test_a_learned_rate_is_forgotten_by_and_by(quota):
    model = Quota("model:m")
    quota(quotas.slow_down, model, 999.9, 2, 1.0, 1000.0)

    first, second = taken(quota, model, 1600.0, most=2)

    assert second - first < 1e-6
    assert quota(quotas.heard, [model], 1700.0) == (0.0, False)
