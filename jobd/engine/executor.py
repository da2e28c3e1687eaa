"""Runs handlers: start, call, judge, close; and stop, for whoever has a reason.

Each run is one task and at most two timers. Whatever a handler does (return, raise, exit, swallow a
cancellation, never come back) ends as one outcome, and `lifecycle.judge` turns that into what is
written. A slot is free when the handler has ended, not when its end is durable.

    start -> call -> judge -> close -> finisher
      stop(why): the task is cancelled; if it does not end within a grace it is abandoned: the run
      is closed without it and a coroutine's slot is free again; a thread keeps its slot while it lives,
      and at a shutdown or a fence its job too
"""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from jobd import lifecycle as life
from jobd.backoff import Backoff
from jobd.engine.calling import Caller
from jobd.engine.finisher import Finisher
from jobd.engine.holdings import Holdings, Run, Stop
from jobd.errors import ClaimLost
from jobd.events import Events, JobStarted, LateResult, UnknownKind
from jobd.job import CURRENT, Claimed
from jobd.outcomes import Cancel, Discard, RetryAfter, Snooze
from jobd.payload import encode_result
from jobd.registry import Handler, Registry
from jobd.storable import encode_error, storable_text

ABANDON_GRACE = 5.0
# A thread that is stopped for these is asked to end, and waited for.
GENTLE = (Stop.SHUTDOWN, Stop.FENCE)
MAX_REASON = 500


class Executor:
    """Starts claims; gives their endings to the finisher. Lives on the work loop."""

    def __init__(
        self,
        *,
        registry: Registry,
        caller: Caller,
        finisher: Finisher,
        holdings: Holdings,
        events: Events,
        concurrency: int,
        suspect_from: int,
        queue_limits: Mapping[str, int],
        default_timeout: timedelta,
        default_max_attempts: int,
        max_result: int,
        rng: random.Random,
        freed: Callable[[], None],
    ) -> None:
        """`freed` is called whenever a slot came free."""
        self._registry = registry
        self._caller = caller
        self._finisher = finisher
        self._holdings = holdings
        self._events = events
        # Not in a task group: one handler that swallows its cancellation would hold the whole group.
        self._tasks: set[asyncio.Task[life.Outcome]] = set()
        self._concurrency = concurrency
        self._queue_limits = queue_limits
        self._default_timeout = default_timeout
        self._default_max_attempts = default_max_attempts
        self._default_backoff = Backoff()
        self._max_result = max_result
        self._rng = rng
        self._freed = freed
        self._busy_queues: Counter[str] = Counter()
        self._busy_kinds: Counter[str] = Counter()
        self.busy = 0
        # Jobs that one more crash would end run one at a time: see docs/decisions/0006.
        self.suspect_from = suspect_from
        self.suspects = 0
        # Handlers that swallowed their cancellation and run on without a slot.
        self.abandoned = 0

    @property
    def free(self) -> int:
        """How many more runs may start."""
        return self._concurrency - self.busy

    def room(self, queue: str) -> int:
        """How many more runs of this queue may start."""
        limit = self._queue_limits.get(queue)
        return self.free if limit is None else min(self.free, limit - self._busy_queues[queue])

    def kind_room(self, handler: Handler) -> int | None:
        """How many more runs of this kind may start; None: it has no limit of its own."""
        return None if handler.concurrency is None else handler.concurrency - self._busy_kinds[handler.kind]

    def start(self, claim: Claimed) -> None:
        """Begin a run, or give the claim back when there is no handler or, after all, no slot for it."""
        run = Run(claim)
        self._holdings.add(run)
        handler = self._registry.get(claim.kind)
        if handler is None:
            self._events.emit(UnknownKind(claim.kind, claim.queue))
            run.active = False
            self._close(run, None, life.KindUnknown())
            return
        room = self.kind_room(handler)
        if (room is not None and room <= 0) or self.room(claim.queue) <= 0:
            run.active = False
            self._close(run, handler, life.Interrupted("no slot was free"))
            return
        self._take_slot(run)
        if self._events.wants(JobStarted):
            waited = (claim.claimed_at - max(claim.run_at, claim.created_at)).total_seconds()
            self._events.emit(JobStarted(claim.id, claim.kind, claim.queue, claim.attempt, max(waited, 0.0)))
        seconds = self._seconds(claim, handler)
        loop = asyncio.get_running_loop()
        run.timers.append(loop.call_later(seconds, self.stop, run, Stop.TIMEOUT))
        task = loop.create_task(self._execute(run, handler, seconds), name=f"jobd:{claim.kind}")
        self._tasks.add(task)
        task.add_done_callback(lambda task: self._handler_ended(run, handler, task))
        run.task = task

    def stop(self, run: Run, why: Stop) -> None:
        """Stop a run; the first reason counts, but a lost claim overrides it."""
        asked_only = run.stop in GENTLE and self._caller.in_thread(run)
        if run.closed or (
            run.stop is not None and why is not Stop.LOST and (why in GENTLE or not asked_only)
        ):
            return
        run.stop = why
        self._caller.ask_to_stop(run)
        if why in GENTLE and self._caller.in_thread(run):
            # It goes on whatever we do: until it ends, or the process does, nobody else may run its job.
            return
        if run.task is not None and not run.task.done():
            run.task.cancel()
            loop = asyncio.get_running_loop()
            run.timers.append(loop.call_later(ABANDON_GRACE, self._abandon, run))

    def stop_all(self, why: Stop) -> None:
        """Stop every run that is going on."""
        for run in self._holdings.runs():
            if run.active:
                self.stop(run, why)

    def leave(self) -> None:
        """Hand back the jobs whose threads go on: the process is about to end."""
        for run in self._holdings.runs():
            if run.active and not run.closed and run.task is not None:
                run.task.cancel()

    async def _execute(self, run: Run, handler: Handler, seconds: float) -> life.Outcome:
        """Call the handler; whatever happens is an outcome, so that no handler can end the daemon."""
        CURRENT.set(run.claim)
        try:
            result = await self._caller.call(run, handler, timeout=seconds)
        except BaseException as error:  # also SystemExit, KeyboardInterrupt and cancellation
            try:
                return self._outcome_of(run, error, seconds)
            except Exception as broken:  # a Snooze, say, whose subclass left its fields out
                return self._failed(run, broken)
        if run.stop is Stop.LOST:
            return life.Lost()
        if run.recorded:
            if result is not None:
                self._events.emit(self._late(run, "returned a result; use ctx.set_result"))
            return life.Recorded()
        if result is None:
            return life.Succeeded()
        text, _changed = encode_result(result, max_bytes=self._max_result)
        return life.Succeeded(text)

    def _outcome_of(self, run: Run, error: BaseException, seconds: float) -> life.Outcome:
        if run.stop is Stop.LOST or isinstance(error, ClaimLost):
            return life.Lost()
        if run.recorded:
            if not isinstance(error, asyncio.CancelledError):
                summary = self._failed(run, error).summary
                self._events.emit(self._late(run, f"raised {summary} after its end"))
            return life.Recorded()
        match error:
            case Snooze():
                return life.Snoozed(error.delay, storable_text(error.reason, max_chars=MAX_REASON))
            case Cancel() if run.stop not in GENTLE:  # else it is what `raise_if_cancelled` raised
                return life.Cancelled(storable_text(error.reason, max_chars=MAX_REASON))
            case Discard():
                return life.Discarded(storable_text(error.reason, max_chars=MAX_REASON))
        match run.stop:
            case Stop.CANCEL:
                return life.Cancelled(Stop.CANCEL.value)
            case Stop.SHUTDOWN | Stop.FENCE:
                return life.Interrupted(run.stop.value)
            case Stop.TIMEOUT:
                late = TimeoutError(f"the handler did not end within {seconds:g} s")
                return life.TimedOut(json.dumps(self._error(run, late)), str(late))
        return self._failed(run, error, error.delay if isinstance(error, RetryAfter) else None)

    def _late(self, run: Run, detail: str) -> LateResult:
        return LateResult(run.claim.id, run.claim.kind, run.claim.queue, run.claim.attempt, detail)

    def _failed(self, run: Run, error: BaseException, delay: timedelta | None = None) -> life.Failed:
        written = self._error(run, error)
        return life.Failed(
            json.dumps(written), f"{written['type']}: {written['message']}"[:MAX_REASON], delay
        )

    def _handler_ended(self, run: Run, handler: Handler, task: asyncio.Task[life.Outcome]) -> None:
        self._tasks.discard(task)
        run.active = self._caller.still_in_thread(run, lambda: self._release_slot(run))
        if not run.active:
            self._release_slot(run)
        if task.cancelled():
            # Cancelled before its first step: the wrapper never ran.
            self._close(run, handler, self._outcome_of(run, asyncio.CancelledError(), 0.0))
        elif (bug := task.exception()) is not None:
            self._close(run, handler, self._failed(run, bug))
        else:
            self._close(run, handler, task.result())

    def _abandon(self, run: Run) -> None:
        """The handler swallowed its cancellation: end the run without it."""
        handler = self._registry.get(run.claim.kind)
        if run.closed or handler is None or run.task is None or run.task.done():
            return
        outcome = self._outcome_of(run, asyncio.CancelledError(), self._seconds(run.claim, handler))
        self._release_slot(run)
        self.abandoned += 1
        run.task.add_done_callback(self._came_back)
        self._close(run, handler, outcome)

    def _came_back(self, _: asyncio.Task[Any]) -> None:
        self.abandoned -= 1

    def _close(self, run: Run, handler: Handler | None, outcome: life.Outcome) -> None:
        """Give the verdict, once."""
        if run.closed:
            return
        run.closed = True
        for timer in run.timers:
            timer.cancel()
        verdict = life.judge(
            run.claim,
            outcome,
            backoff=self._backoff(run.claim, handler),
            max_attempts=run.claim.max_attempts
            or (handler.max_attempts if handler else None)
            or self._default_max_attempts,
            rng=self._rng,
        )
        if verdict is None:
            self._finisher.skip(run, life.OUTCOMES[type(outcome)])
        else:
            self._finisher.put(run, verdict, life.OUTCOMES[type(outcome)])

    def _take_slot(self, run: Run) -> None:
        self.busy += 1
        self._busy_queues[run.claim.queue] += 1
        self._busy_kinds[run.claim.kind] += 1
        self.suspects += run.claim.crashes >= self.suspect_from
        run.holds_slot = True

    def _release_slot(self, run: Run) -> None:
        if not run.holds_slot:
            return
        run.holds_slot = False
        run.active = False
        self.busy -= 1
        self._busy_queues[run.claim.queue] -= 1
        self._busy_kinds[run.claim.kind] -= 1
        self.suspects -= run.claim.crashes >= self.suspect_from
        self._freed()

    def _seconds(self, claim: Claimed, handler: Handler) -> float:
        """The time limit of one attempt; policy `drop` also ends it at the deadline."""
        seconds = (claim.timeout or handler.timeout or self._default_timeout).total_seconds()
        if claim.deadline_policy == "drop" and claim.delay_tolerance is not None:
            left = (claim.deadline_at - claim.claimed_at).total_seconds()
            seconds = min(seconds, max(left, 0.0))
        return seconds

    def _backoff(self, claim: Claimed, handler: Handler | None) -> Backoff:
        if claim.backoff is not None:
            try:
                return Backoff.from_json(json.loads(claim.backoff))
            except Exception:  # written by hand in SQL; the job must not suffer
                return self._default_backoff
        return (handler.backoff if handler else None) or self._default_backoff

    def _error(self, run: Run, error: BaseException) -> dict[str, Any]:
        return encode_error(error, attempt=run.claim.attempt, at=datetime.now(UTC))
