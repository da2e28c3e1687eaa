"""The lease as its process sees it: always a little shorter than the database does."""

from __future__ import annotations

from datetime import timedelta

import pytest

from jobd.engine.lease import Lease


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_a_lease_begins_with_the_first_confirmed_beat():
    lease = Lease(period=timedelta(seconds=30), clock=Clock())
    assert (lease.valid, lease.age) == (False, None)
    lease.confirm(1000.0)
    assert (lease.valid, lease.age) == (True, 0.0)


def test_it_counts_from_when_the_beat_was_sent_and_ends_before_the_database_believes_so():
    clock = Clock()
    lease = Lease(period=timedelta(seconds=30), clock=clock)
    lease.confirm(1000.0)
    clock.now = 1027.9
    assert lease.until_fence > 0
    clock.now = 1028.0
    assert not lease.valid
    assert (lease.until_fence, lease.until_lapse) == (0.0, 2.0)


@pytest.mark.parametrize(("period", "safety"), [(30, 2.0), (10, 2.0), (5, 1.0), (1, 0.2)])
def test_the_safety_before_the_lapse_is_two_seconds_or_a_fifth(period: float, safety: float):
    assert Lease(period=timedelta(seconds=period)).safety == safety


def test_a_new_identity_has_no_lease():
    clock = Clock()
    lease = Lease(period=timedelta(seconds=30), clock=clock)
    lease.confirm(1000.0)
    before = lease.worker_id
    assert lease.renew_identity() == lease.worker_id != before
    assert not lease.valid
