from __future__ import annotations

import pytest

from router.breaker import Breaker, BreakerState, fingerprint
from router.config import BreakerConfig
from router.request import GenerateRequest
from router.types import RawImage
from tests.doubles import Clock


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def breaker(clock: Clock) -> Breaker:
    return Breaker(BreakerConfig(failures=3, reset_s=30), clock)


def fail(breaker: Breaker, *fingerprints: int | None) -> None:
    for each in fingerprints:
        breaker.failed("It broke.", each)


def test_it_opens_after_failures_of_distinct_requests_in_a_row(breaker: Breaker) -> None:
    fail(breaker, 1, 2)
    assert breaker.state is BreakerState.CLOSED
    fail(breaker, 3)
    assert breaker.state is BreakerState.OPEN
    assert breaker.is_open


def test_one_request_counts_once_however_often_it_is_repeated(breaker: Breaker) -> None:
    fail(breaker, *[7] * 100)
    assert breaker.state is BreakerState.CLOSED


def test_failures_that_no_request_can_be_blamed_for_all_count(breaker: Breaker) -> None:
    fail(breaker, None, None, None)
    assert breaker.is_open


def test_a_success_begins_the_row_anew(breaker: Breaker) -> None:
    fail(breaker, 1, 2)
    breaker.succeeded()
    fail(breaker, 1, 2)
    assert not breaker.is_open
    fail(breaker, 3)
    assert breaker.is_open, "what failed in an earlier row counts again"


def test_a_request_that_began_before_does_not_close_an_open_breaker(breaker: Breaker) -> None:
    fail(breaker, 1, 2, 3)
    breaker.succeeded()
    assert breaker.is_open


def test_it_says_why_and_when_it_is_tried_again(breaker: Breaker, clock: Clock) -> None:
    assert breaker.why_not() is None
    fail(breaker, 1, 2, 3)
    clock.now += 12
    assert breaker.why_not() == "It broke; it is tried again in 18 s."


def test_a_probe_is_due_when_the_time_is_over(breaker: Breaker, clock: Clock) -> None:
    fail(breaker, 1, 2, 3)
    clock.now += 29.9
    assert not breaker.probe_due
    clock.now += 0.1
    assert breaker.probe_due
    assert breaker.is_open, "time alone lets no request pass"


def test_after_a_good_probe_one_success_closes_it(breaker: Breaker) -> None:
    fail(breaker, 1, 2, 3)
    breaker.probe_succeeded()
    assert breaker.state is BreakerState.HALF_OPEN
    breaker.succeeded()
    assert breaker.state is BreakerState.CLOSED
    fail(breaker, 4, 5)
    assert not breaker.is_open


@pytest.mark.parametrize("failures", [1, 3])
def test_after_a_good_probe_one_new_failure_opens_it_again(clock: Clock, failures: int) -> None:
    breaker = Breaker(BreakerConfig(failures=failures, reset_s=30), clock)
    fail(breaker, *range(failures))
    breaker.probe_succeeded()
    fail(breaker, 0)
    assert breaker.state is BreakerState.HALF_OPEN, "a request that failed before is no news"
    fail(breaker, 99)
    assert breaker.is_open


def test_a_bad_probe_begins_the_time_anew(breaker: Breaker, clock: Clock) -> None:
    breaker.trip("The library is missing.")
    clock.now += 30
    breaker.trip("The library is missing.")
    assert not breaker.probe_due


def test_a_good_probe_of_a_closed_breaker_changes_nothing(breaker: Breaker) -> None:
    breaker.probe_succeeded()
    assert breaker.state is BreakerState.CLOSED


def test_repr_tells_the_state(breaker: Breaker) -> None:
    assert repr(breaker) == "<Breaker closed, 0 failures in a row>"
    fail(breaker, 1, 2, 3)
    assert repr(breaker) == "<Breaker open, 3 failures in a row>"


def test_a_fingerprint_is_of_the_work_asked_for() -> None:
    image = RawImage(1, 1, b"abc")
    first = GenerateRequest.of(prompt="a", seed=1, image=image, deadline_s=5.0)
    assert fingerprint(first) == fingerprint(GenerateRequest.of(prompt="a", seed=2, image=image))
    assert fingerprint(first) != fingerprint(GenerateRequest.of(prompt="a", seed=1))
    assert fingerprint(first) != fingerprint(GenerateRequest.of(prompt="b", seed=1, image=image))
