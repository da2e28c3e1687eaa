"""Makes the ends of runs durable, in batches that grow only while a write is under way.

A flush starts as soon as none is in flight: when idle, a job's end is written at once; when busy,
the next batch collects while this one is being written. Runs that succeeded, nearly all, go apart
from the others, in cheaper statements: one for queues that keep them, one for those that do not. A
verdict is kept until the database has answered for it, through any outage. One bad row never holds up
the others: a batch that is refused is halved until the culprit stands alone, and that one is stored in
a form that is always storable.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import time
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar
from uuid import UUID

from jobd.engine.holdings import Holdings, Run
from jobd.engine.recovery import Recovery
from jobd.errors import JobdError, PartitionMissing, Refused, Transient
from jobd.events import EndRefused, Events, JobFinished, RunStale
from jobd.fleet import Fleet
from jobd.job import FinishedRun, JobState
from jobd.lifecycle import OUTCOMES, WAITING, NotStarted
from jobd.store import Store

T = TypeVar("T")

BATCH_ROWS = 1000
BATCH_BYTES = 4 * 1024 * 1024
TRANSIENT_TRIES = 20
# Nothing began, so nobody is told that it ended.
NOT_STARTED = OUTCOMES[NotStarted]


@dataclass(slots=True)
class Ending:
    """A run's verdict on its way to the database."""

    run: Run
    verdict: FinishedRun
    outcome: str
    seconds: float | None
    tries: int = 0
    # Reduced to what any database stores, since it was refused as it came.
    bare: bool = False


class Finisher:
    """Takes verdicts with `put`, writes them in `run`."""

    def __init__(
        self,
        store: Store,
        *,
        holdings: Holdings,
        events: Events,
        rng: random.Random,
        terse_queues: Collection[str] = (),
        durable: Callable[[], None] = lambda: None,
        returned: Callable[[], None] = lambda: None,
    ) -> None:
        """`terse_queues` keep no successes. `durable` is called after each flush; `returned` when one gave
        back claims that never began."""
        self._store = store
        self._holdings = holdings
        self._events = events
        self._recovery = Recovery("finisher", events=events, rng=rng)
        self._durable = durable
        self._terse_queues = frozenset(terse_queues)
        self._returned = returned
        self._gave_back = False
        self._successes: deque[Ending] = deque()
        self._terse: deque[Ending] = deque()
        self._others: deque[Ending] = deque()
        self._writing = 0
        self._filled = asyncio.Event()
        self._empty = asyncio.Event()
        self._empty.set()

    def __len__(self) -> int:
        """How many verdicts are not durable yet."""
        return len(self._successes) + len(self._terse) + len(self._others) + self._writing

    def put(self, run: Run, verdict: FinishedRun, outcome: str) -> None:
        """Take a verdict; it is kept until it is durable."""
        if verdict.state is not JobState.SUCCEEDED:
            pending = self._others
        elif run.claim.queue in self._terse_queues:
            pending = self._terse
        else:
            pending = self._successes
        seconds = None if run.task is None else time.monotonic() - run.started
        pending.append(Ending(run, verdict, outcome, seconds))
        if not self._filled.is_set():
            self._empty.clear()
            self._filled.set()

    def skip(self, run: Run, outcome: str) -> None:
        """Let go of a run of which nothing is written: its end is durable already, or its claim is lost."""
        self._holdings.drop(run)
        claim = run.claim
        if run.recorded:
            state = JobState.SUCCEEDED.value
            seconds = time.monotonic() - run.started
            self._events.emit(
                JobFinished(claim.id, claim.kind, claim.queue, claim.attempt, state, outcome, seconds)
            )
        else:
            self._events.emit(RunStale(claim.id, claim.kind, claim.queue, claim.attempt, claim.claim_no))

    async def drained(self, timeout: float) -> bool:
        """Wait until nothing is left to write; False when `timeout` seconds did not suffice."""
        try:
            async with asyncio.timeout(timeout):
                await self._empty.wait()
        except TimeoutError:
            return False
        return True

    async def run(self) -> None:
        """Write until cancelled."""
        while True:
            await self._filled.wait()
            while self._successes or self._terse or self._others:
                for pending in (self._successes, self._terse, self._others):
                    if pending:
                        await self._flush(pending)
                self._durable()
                if self._gave_back:
                    self._gave_back = False
                    self._returned()
            self._filled.clear()
            self._empty.set()

    async def _flush(self, pending: deque[Ending]) -> None:
        batch = _take(pending)
        self._writing = len(batch)
        try:
            await self._write(batch)
        except BaseException:
            pending.extendleft(reversed(batch))
            raise
        finally:
            self._writing = 0

    async def _write(self, batch: Sequence[Ending]) -> None:
        """Make a batch durable, whatever it takes: all of them of one sort, as they were put."""
        try:
            states = await self._persist(lambda: self._states_of(batch), batch)
        except Refused as refusal:
            await self._write_apart(batch, refusal)
            return
        if missing := self._ended(batch, states):
            await self._look_again(missing)

    async def _states_of(self, batch: Sequence[Ending]) -> Mapping[UUID, JobState | None]:
        """Write a batch; return the state of each job that is not what its verdict says: None, not ours."""
        verdicts = [ending.verdict for ending in batch]
        if verdicts[0].state is JobState.SUCCEEDED:
            terse = batch[0].run.claim.queue in self._terse_queues
            succeed = self._store.succeed_tersely if terse else self._store.succeed
            return dict.fromkeys(await succeed(verdicts))
        states = await self._store.finish(verdicts)
        return {verdict.id: states.get(verdict.id) for verdict in verdicts}

    async def _look_again(self, missing: Sequence[Ending]) -> None:
        """Tell why these ids did not come back; what is still ours lost a race and is written again."""
        claims = [(ending.verdict.id, ending.verdict.claim_no) for ending in missing]
        ours = await self._persist(lambda: self._store.still_ours(claims), missing)
        again = []
        for ending in missing:
            if ending.verdict.id in ours:
                again.append(ending)
            elif ending.tries:
                # An earlier flush lost its answer: most likely that one ended the job.
                self._ended([ending], {})
            else:
                self._holdings.drop(ending.run)
                claim = ending.run.claim
                self._events.emit(RunStale(claim.id, claim.kind, claim.queue, claim.attempt, claim.claim_no))
        if again:
            await self._write(again)

    async def _persist(self, call: Callable[[], Awaitable[T]], batch: Sequence[Ending]) -> T:
        """Make a call until the database answers it; only a refusal of the values gets through."""
        conflicts = 0
        while True:
            try:
                answer = await call()
            except Transient as conflict:
                conflicts += 1
                if conflicts > TRANSIENT_TRIES:
                    await asyncio.sleep(self._recovery.failed(conflict))
            except PartitionMissing:
                await self._make_partitions()
            except Refused:
                raise
            except JobdError as outage:
                for ending in batch:
                    ending.tries += 1
                await asyncio.sleep(self._recovery.failed(outage))
            else:
                self._recovery.succeeded()
                return answer

    async def _make_partitions(self) -> None:
        with contextlib.suppress(JobdError):
            if await Fleet(self._store.door).ensure_partitions() >= 0:
                return
        await asyncio.sleep(0.05)  # another session is making them, or nobody can now

    async def _write_apart(self, batch: Sequence[Ending], refusal: Exception) -> None:
        """The database refuses something in this batch: find it, and let the rest pass."""
        if len(batch) > 1:
            half = len(batch) // 2
            await self._write(batch[:half])
            await self._write(batch[half:])
            return
        (ending,) = batch
        if ending.bare:
            # Let go of it: the next beat but one finds a claim that nobody holds and gives it back.
            self._holdings.drop(ending.run)
            claim = ending.run.claim
            self._events.emit(EndRefused(claim.id, claim.kind, claim.queue, claim.attempt, str(refusal)))
            return
        note = f"the end of this run could not be stored as it was: {refusal}".encode(
            "ascii", "replace"
        ).decode()
        error = {"type": "Refused", "message": note, "attempt": ending.run.claim.attempt}
        ending.verdict = ending.verdict._replace(
            reason=note[:500],
            result=None if ending.verdict.result is None else json.dumps({"lost": note}),
            error=json.dumps(error),
        )
        ending.bare = True
        await self._write([ending])

    def _ended(self, batch: Sequence[Ending], states: Mapping[UUID, JobState | None]) -> list[Ending]:
        """These are durable, as their verdicts or `states` say; return those that were not ours."""
        missing = []
        told = []
        wanted = self._events.wants(JobFinished)
        for ending in batch:
            run, verdict = ending.run, ending.verdict
            state = states.get(verdict.id, verdict.state) if states else verdict.state
            if state is None:
                missing.append(ending)
                continue
            self._holdings.drop(run)
            if ending.outcome == NOT_STARTED and state in WAITING:
                self._gave_back = True
            elif wanted:
                claim = run.claim
                told.append(
                    JobFinished(
                        claim.id,
                        claim.kind,
                        claim.queue,
                        claim.attempt,
                        state,
                        ending.outcome,
                        ending.seconds,
                        verdict.reason,
                    )
                )
        self._events.emit_all(told)
        return missing


def _take(pending: deque[Ending]) -> list[Ending]:
    """The next batch: as many as one flush may hold."""
    batch = [pending.popleft()]
    size = batch[0].verdict.size
    while pending and len(batch) < BATCH_ROWS:
        size += pending[0].verdict.size
        if size > BATCH_BYTES:
            break
        batch.append(pending.popleft())
    return batch
