"""Keeps this process's lease, and stops its handlers when the lease cannot be kept.

On the control thread, on a connection of its own, so that no handler can keep it from beating. At
each beat it compares what the database believes to run here with what is held: claims that nobody
holds go back unburned, runs whose claim is gone are stopped. It is the last role to end.

    no beat confirmed until lapse - safety: fence (stop every handler)
    ... until the lapse, and a handler still runs: on_lapse (a standalone daemon exits)
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import timedelta
from uuid import UUID

from jobd.engine.holdings import Holdings, Run, Stop
from jobd.engine.lease import Lease
from jobd.engine.recovery import Recovery
from jobd.errors import JobdError
from jobd.events import Events, LeaseLost, LeaseRenewed
from jobd.fleet import Fleet, Registration
from jobd.store import Store


class Heartbeat:
    """Registers, beats, compares, resigns."""

    def __init__(
        self,
        store: Store,
        fleet: Fleet,
        *,
        declare: Callable[[], Awaitable[None]],
        process: Registration,
        lease: Lease,
        beat: timedelta,
        holdings: Holdings,
        events: Events,
        rng: random.Random,
        stop_run: Callable[[Run, Stop], None],
        stop_all: Callable[[Stop], None],
        handlers_running: Callable[[], bool],
        on_confirmed: Callable[[], None],
        on_lapse: Callable[[], None],
    ) -> None:
        """`declare` tells what code and settings say of limits, before anything is claimed.

        `stop_run` and `stop_all` take effect on the work loop; they are called from this thread.
        """
        self._store = store
        self._fleet = fleet
        self._declare = declare
        self._process = process
        self._lease = lease
        self._beat = beat.total_seconds()
        self._holdings = holdings
        self._events = events
        self._stop_run = stop_run
        self._stop_all = stop_all
        self._handlers_running = handlers_running
        self._on_confirmed = on_confirmed
        self._on_lapse = on_lapse
        self._recovery = Recovery("heartbeat", events=events, rng=rng)
        self._registered: UUID | None = None
        # Since when.
        self._unheld: dict[tuple[UUID, int], float] = {}
        self._unknown: set[tuple[UUID, int]] = set()
        self._hurry = asyncio.Event()

    def hurry(self) -> None:
        """Beat now: something may have changed that a beat would notice."""
        self._hurry.set()

    async def run(self) -> None:
        """Beat until cancelled."""
        while True:
            self._hurry.clear()
            pause = self._beat
            try:
                async with asyncio.timeout(max(self._beat, 1.0)):
                    await self._once()
                self._recovery.succeeded()
            except (JobdError, TimeoutError) as outage:
                pause = min(self._recovery.failed(outage), self._beat)
            try:
                async with asyncio.timeout(pause):
                    await self._hurry.wait()
            except TimeoutError:
                pass

    async def watch(self) -> None:
        """Fence when the lease runs out, until cancelled. Needs no database."""
        fenced_at: float | None = None
        lapse_told = False
        while True:
            if self._registered is None:
                await asyncio.sleep(0.1)
            elif (left := self._lease.until_fence) > 0:
                fenced_at, lapse_told = None, False
                await asyncio.sleep(min(left, 0.5))
            elif fenced_at is None:
                fenced_at = self._lease.clock()
                self._events.emit(LeaseLost("no beat was confirmed in time; handlers are stopped"))
                self._stop_all(Stop.FENCE)
            elif (
                self._lease.until_lapse <= 0
                # A process that was suspended wakes up past its lapse: its handlers get that time, too.
                and self._lease.clock() - fenced_at >= self._lease.safety
                and not lapse_told
                and self._handlers_running()
            ):
                lapse_told = True
                self._on_lapse()
            else:
                await asyncio.sleep(0.05)

    async def stopping(self) -> None:
        """Let others see that this worker claims nothing more. Best effort."""
        if self._registered is not None:
            async with asyncio.timeout(2):
                await self._fleet.stopping(self._registered)

    async def resign(self) -> None:
        """Give back whatever still runs here, and the row. Best effort: a lease also ends by itself."""
        # Also when no registration was confirmed: one whose answer was cut off may have made the row.
        worker_id = self._lease.worker_id
        left = await self._fleet.running_of(worker_id)
        if left:
            await self._store.release([(claim.id, claim.claim_no) for claim in left])
        await self._fleet.resign(worker_id)

    async def _once(self) -> None:
        sent = self._lease.clock()
        if self._registered is None:
            until = await self._fleet.register(
                replace(self._process, worker_id=self._lease.worker_id), lease=self._lease.period
            )
            # Before it counts as done: until the queues say what they keep, it is tried again.
            await self._fleet.declare_queues(self._process.queues, self._process.keeps)
            await self._declare()
            self._registered = self._lease.worker_id
        else:
            beaten = await self._fleet.beat(self._registered, lease=self._lease.period)
            if beaten is None:
                self._taken_for_dead()
                return
            until = beaten
        was_valid = self._lease.valid
        self._lease.confirm(sent)
        self._events.emit(LeaseRenewed(until))
        if not was_valid:
            self._on_confirmed()
        await self._compare(self._registered)

    def _taken_for_dead(self) -> None:
        """Another daemon rescued our jobs. What runs here must stop; then we begin anew, as somebody else."""
        self._events.emit(LeaseLost("another daemon took this worker for dead and its jobs over"))
        self._registered = None
        self._lease.renew_identity()
        self._stop_all(Stop.LOST)
        self._hurry.set()

    async def _compare(self, worker_id: UUID) -> None:
        held_before = {(run.claim.id, run.claim.claim_no) for run in self._holdings.runs()}
        believed = await self._fleet.running_of(worker_id)
        # Before the look at what is held: what starts after this is late, and asks whether it may.
        now = self._lease.clock()
        running = {(claim.id, claim.claim_no) for claim in believed}
        held = {(run.claim.id, run.claim.claim_no): run for run in self._holdings.runs()}
        for claim in believed:
            run = held.get((claim.id, claim.claim_no))
            if run is not None and claim.cancel_requested and run.stop is None:
                self._stop_run(run, Stop.CANCEL)
        # Twice in a row each: a claim's answer, or a flush's, may just be on its way. A claim is given one
        # whole beat, however many come in a hurry: for so long it may be started without another look.
        unheld = {key: self._unheld.get(key, now) for key in running - held.keys()}
        orphaned = {key for key, since in unheld.items() if now - since >= self._beat}
        if orphaned:
            await self._store.release(sorted(orphaned))
        self._unheld = {key: since for key, since in unheld.items() if key not in orphaned}
        unknown = {
            key
            for key in held_before & held.keys() - running
            if (held[key].active or not held[key].closed) and not held[key].recorded
        }
        for key in unknown & self._unknown:
            self._stop_run(held[key], Stop.LOST)
        self._unknown = unknown
