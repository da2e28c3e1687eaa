"""From what a handler did to what is written of it: outcomes, verdicts, and how long an attempt may take.

Whatever it was (a value, an exception, a swallowed cancellation) becomes one outcome, and
`lifecycle.judge` turns that into the verdict. Rules come from the job, else from its handler, else
from the settings.
"""

from __future__ import annotations

import asyncio
import json
import math
import random
from datetime import UTC, datetime, timedelta
from typing import Any

from jobd import lifecycle as life
from jobd.backoff import Backoff
from jobd.engine.holdings import GENTLE, Run, Stop
from jobd.errors import ClaimLost
from jobd.events import Events, LateResult
from jobd.job import Claimed, FinishedRun
from jobd.outcomes import Cancel, Discard, RetryAfter, Snooze
from jobd.payload import encode_result
from jobd.registry import Handler
from jobd.storable import encode_error, storable_text

MAX_REASON = 500
# Many runs take longer than the mean.
MARGIN = 1.1
SUCCEEDED = life.Succeeded()


class Judge:
    """Knows the defaults; keeps nothing of a run."""

    def __init__(
        self,
        *,
        events: Events,
        default_timeout: timedelta,
        default_max_attempts: int,
        max_result: int,
        rng: random.Random,
    ) -> None:
        self._events = events
        self._default_seconds = default_timeout.total_seconds()
        self._default_max_attempts = default_max_attempts
        self._default_backoff = Backoff()
        self._max_result = max_result
        self._rng = rng

    def unstarted(self, claim: Claimed, waited: float, usual: float | None) -> life.Outcome | None:
        """Why not to begin after it waited here, for so many seconds; None: begin.

        Its deadline that drops it passed meanwhile. Or it comes before the end of a run of the `usual`
        length, which would be stopped there and have taken a slot from one that can make it; unless the
        job never had the time.
        """
        left = _left(claim) - waited
        if left <= 0:
            return life.NotStarted()
        if usual is None or left >= MARGIN * usual or claim.delay_tolerance is None:
            return None
        if claim.delay_tolerance.total_seconds() < 2 * usual:
            return None
        return life.Hopeless(timedelta(seconds=left))

    def seconds(self, claim: Claimed, handler: Handler, waited: float = 0.0) -> float:
        """The time limit of one attempt that begins after it waited here; policy `drop` also ends it at
        the deadline."""
        limit = claim.timeout or handler.timeout
        seconds = self._default_seconds if limit is None else limit.total_seconds()
        return min(seconds, max(_left(claim) - waited, 0.0))

    def returned(self, run: Run, result: Any) -> life.Outcome:
        """The handler returned."""
        if run.stop is Stop.LOST:
            return life.Lost()
        if run.recorded:
            if result is not None:
                self._events.emit(self._late(run, "returned a result; use ctx.set_result"))
            return life.Recorded()
        if result is None:
            return SUCCEEDED
        text, _changed = encode_result(result, max_bytes=self._max_result)
        return life.Succeeded(text)

    def raised(self, run: Run, error: BaseException, *, seconds: float) -> life.Outcome:
        """The handler raised; also SystemExit, KeyboardInterrupt and cancellation."""
        try:
            return self._outcome_of(run, error, seconds)
        except Exception as broken:  # a Snooze, say, whose subclass left its fields out
            return self._failed(run, broken)

    def verdict(self, run: Run, outcome: life.Outcome) -> FinishedRun | None:
        """What shall be written, or None."""
        claim, handler = run.claim, run.handler
        if type(outcome) is life.Succeeded:
            return life.success(claim, outcome)
        return life.judge(
            claim,
            outcome,
            backoff=self._backoff(claim, handler),
            max_attempts=claim.max_attempts
            or (handler.max_attempts if handler else None)
            or self._default_max_attempts,
            rng=self._rng,
        )

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

    def _failed(self, run: Run, error: BaseException, delay: timedelta | None = None) -> life.Failed:
        written = self._error(run, error)
        return life.Failed(
            json.dumps(written), f"{written['type']}: {written['message']}"[:MAX_REASON], delay
        )

    def _error(self, run: Run, error: BaseException) -> dict[str, Any]:
        return encode_error(error, attempt=run.claim.attempt, at=datetime.now(UTC))

    def _late(self, run: Run, detail: str) -> LateResult:
        return LateResult(run.claim.id, run.claim.kind, run.claim.queue, run.claim.attempt, detail)

    def _backoff(self, claim: Claimed, handler: Handler | None) -> Backoff:
        if claim.backoff is not None:
            try:
                return Backoff.from_json(json.loads(claim.backoff))
            except Exception:  # written by hand in SQL; the job must not suffer
                return self._default_backoff
        return (handler.backoff if handler else None) or self._default_backoff


def _left(claim: Claimed) -> float:
    """How many seconds after its claim a job may still begin."""
    if claim.deadline_policy == "drop" and claim.delay_tolerance is not None:
        return (claim.deadline_at - claim.claimed_at).total_seconds()
    return math.inf
