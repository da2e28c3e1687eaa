"""The time of an attempt is over when it says, whether it gets its timer at once or after a moment."""

from __future__ import annotations

import asyncio

import pytest

from jobd.engine.holdings import Run
from jobd.engine.limits import MOMENT, TimeLimits
from tests.factories import claimed
from tests.signals import eventually


class Watch:
    """Limits, and what they told."""

    def __init__(self) -> None:
        self.over: list[tuple[Run, float]] = []
        self.lasting: list[Run] = []
        loop = asyncio.get_running_loop()
        self.limits = TimeLimits(loop, over=self._over, lasts=self.lasting.append)

    def _over(self, run: Run) -> None:
        self.over.append((run, asyncio.get_running_loop().time()))

    def begin(self, seconds: float) -> Run:
        run = Run(claimed())
        run.holds_slot = True
        self.limits.set(run, seconds)
        return run

    async def looked(self) -> None:
        """Wait until every run that goes on has its timer."""
        last = self.begin(60)

        async def armed() -> bool:
            return last.timer is not None

        await eventually(armed)
        self.end(last)

    def end(self, run: Run) -> None:
        run.closed, run.holds_slot = True, False
        self.limits.clear(run)


@pytest.mark.parametrize("seconds", [0.0, MOMENT / 2, MOMENT, 2 * MOMENT, 3 * MOMENT, 600.0])
async def test_the_timer_of_a_run_that_outlives_the_moment_ends_when_its_time_does(seconds: float):
    watch = Watch()
    before = asyncio.get_running_loop().time()
    run = watch.begin(seconds)
    assert before + seconds <= run.ends_at <= asyncio.get_running_loop().time() + seconds
    if seconds >= 2 * MOMENT:
        assert run.timer is None
        await watch.looked()
    assert run.timer is not None
    assert run.timer.when() == pytest.approx(run.ends_at, abs=1e-6)
    watch.end(run)


async def test_short_and_long_limits_end_in_the_order_of_their_ends_and_never_before():
    watch = Watch()
    runs = [watch.begin(seconds) for seconds in (0.25, 0.03, 0.12, 0.0, 0.09)]

    async def over() -> int:
        return len(watch.over)

    await eventually(over, until=lambda count: count == len(runs))
    assert [run for run, _ in watch.over] == sorted(runs, key=lambda run: run.ends_at)
    resolution = 0.002  # uvloop counts whole milliseconds
    assert all(at >= run.ends_at - resolution for run, at in watch.over)


async def test_a_run_that_ended_within_the_moment_never_gets_a_timer():
    watch = Watch()
    run = watch.begin(0.1)
    watch.end(run)
    await watch.looked()
    assert run.timer is None
    assert run not in watch.lasting


async def test_a_run_that_ends_later_loses_its_timer():
    watch = Watch()
    ends, goes_on = watch.begin(1.0), watch.begin(1.1)
    await watch.looked()
    assert watch.lasting[:2] == [ends, goes_on]
    watch.end(ends)

    async def over() -> int:
        return len(watch.over)

    await eventually(over)
    assert [run for run, _ in watch.over] == [goes_on]
