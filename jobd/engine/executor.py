"""Runs handlers: hold, begin, call, close; and stop, for whoever has a reason.

Each run is one task. Whatever a handler does (return, raise, exit, swallow a cancellation, never come
back) ends as one outcome, and its verdict goes to the finisher. A slot is free when the handler has
ended, not when its end is durable.

    start -> (hold until a slot is free) -> begin -> call -> close -> finisher
      stop(why): a run that is held is closed; the task of one that began is cancelled; if it does not
      end within a grace it is abandoned: the run is closed without it and a coroutine's slot is free
      again; a thread keeps its slot while it lives, and at a shutdown or a fence its job too
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence

from jobd import lifecycle as life
from jobd.engine.calling import Caller
from jobd.engine.finisher import Finisher
from jobd.engine.holdings import GENTLE, Holdings, Run, Stop
from jobd.engine.judging import Judge
from jobd.engine.limits import TimeLimits
from jobd.engine.slots import Slots
from jobd.events import Events, JobStarted, UnknownKind
from jobd.job import CURRENT, Claimed
from jobd.registry import Handler, Registry

ABANDON_GRACE = 5.0
# A claim that waited this long for a slot goes back: an idle worker may take it.
HOLD_LIMIT = 0.5
# What was claimed goes back at once when it is that many times as much as would be claimed now.
SURPLUS = 8


class Executor:
    """Starts claims; gives their endings to the finisher. Lives on the work loop."""

    def __init__(
        self,
        *,
        registry: Registry,
        caller: Caller,
        finisher: Finisher,
        holdings: Holdings,
        slots: Slots,
        judge: Judge,
        events: Events,
        freed: Callable[[], None],
    ) -> None:
        """`freed` is called whenever a slot came free."""
        self._registry = registry
        self._caller = caller
        self._finisher = finisher
        self._holdings = holdings
        self._judge = judge
        self._events = events
        self._freed = freed
        self._loop = asyncio.get_running_loop()
        self._limits = TimeLimits(
            self._loop, over=lambda run: self.stop(run, Stop.TIMEOUT), lasts=self._lasts
        )
        self._held: deque[Run] = deque()
        # Not in a task group: one handler that swallows its cancellation would hold the whole group.
        self._going: set[Run] = set()
        self._filling = False
        self._looking = False
        self.slots = slots
        # Handlers that swallowed their cancellation and run on without a slot.
        self.abandoned = 0

    @property
    def busy(self) -> int:
        """How many handlers run in a slot."""
        return self.slots.busy

    def start(self, claims: Sequence[Claimed], *, limited: bool = False) -> None:
        """Begin runs in this order as slots are free; give back what has no handler or, after all, no room.

        What comes beyond the free slots is held, as long as its kind is known to be quick. `limited`: that
        they were claimed under limits over all daemons, of which each has used up a part already.
        """
        for claim in claims:
            handler = self._registry.get(claim.kind)
            run = Run(claim, handler, limited=limited)
            self._holdings.add(run)
            if handler is None:
                self._events.emit(UnknownKind(claim.kind, claim.queue))
                self._close(run, life.KindUnknown())
            elif not self.slots.admits(claim, handler):
                self._close(run, life.NotStarted())
            else:
                self.slots.take(claim)
                self.slots.held += 1
                self._held.append(run)
        if claims:
            self.slots.prefetch.expect({claim.kind for claim in claims})
        self._fill()
        if self.slots.held > self.slots.may_wait:
            self._return_surplus()
        if self._held and not self._looking:
            self._looking = True
            self._loop.call_later(HOLD_LIMIT / 2, self._look_at_held)

    def stop(self, run: Run, why: Stop) -> None:
        """Stop a run; the first reason counts, but a lost claim overrides it."""
        asked_only = run.stop in GENTLE and self._caller.in_thread(run)
        if run.closed or (
            run.stop is not None
            # Beats say it again and again, and the grace counts from the first.
            and (run.stop is Stop.LOST or (why is not Stop.LOST and (why in GENTLE or not asked_only)))
        ):
            return
        run.stop = why
        if run.task is None:
            self._let_go(run, life.NotStarted() if why in GENTLE else self._cancelled(run))
            return
        if run.context is not None:
            run.context.ask_to_stop()
        if why in GENTLE and self._caller.in_thread(run):
            # It goes on whatever we do: until it ends, or the process does, nobody else may run its job.
            return
        if not run.task.done():
            run.task.cancel()
            if run.entered:
                self._limits.clear(run)
                run.timer = self._loop.call_later(ABANDON_GRACE, self._abandon, run)
            else:  # its code will never be entered
                self._handler_ended(run, self._cancelled(run))

    def stop_all(self, why: Stop) -> None:
        """Stop every run that is going on or waits for a slot."""
        for run in [*self._held, *self._going]:
            self.stop(run, why)

    def give_back_held(self) -> None:
        """Hand back what waits for a slot: nothing more shall begin."""
        for run in list(self._held):
            self.stop(run, Stop.SHUTDOWN)

    def leave(self) -> None:
        """Hand back the jobs whose threads go on: the process is about to end."""
        for run in list(self._going):
            if run.active and not run.closed and run.task is not None:
                run.task.cancel()

    def _fill(self) -> None:
        """Begin what is held while slots are free."""
        self._filling = False
        held, slots = self._held, self.slots
        begun = []
        while held and slots.busy < slots.total:
            run = held.popleft()
            if run.closed:
                continue
            waited = time.monotonic() - run.started
            # Where nothing waits for the slot it may as well be tried.
            usual = None
            if run.claim.delay_tolerance is not None and held and not run.limited:
                usual = slots.prefetch.usual(run.claim.kind)
            unstarted = self._judge.unstarted(run.claim, waited, usual)
            if waited > HOLD_LIMIT or unstarted is not None:
                self._let_go(run, unstarted or life.NotStarted())
                continue
            slots.held -= 1
            self._begin(run, waited)
            begun.append((run.claim, waited))
        if begun and self._events.wants(JobStarted):
            self._events.emit_all([_started(claim, waited) for claim, waited in begun])

    def _begin(self, run: Run, waited: float) -> None:
        handler = run.handler
        assert handler is not None
        self.slots.busy += 1
        run.holds_slot = run.active = True
        run.started += waited
        run.waited = waited
        seconds = self._judge.seconds(run.claim, handler, waited)
        self._limits.set(run, seconds)
        self._going.add(run)
        run.task = self._loop.create_task(self._execute(run, handler, seconds), name=handler.task_name)

    async def _execute(self, run: Run, handler: Handler, seconds: float) -> None:
        """Call the handler; whatever happens is an outcome, so that no handler can end the daemon."""
        run.entered = True
        CURRENT.set(run.claim)
        try:
            outcome = self._judge.returned(run, await self._caller.call(run, handler, timeout=seconds))
        except BaseException as error:
            outcome = self._judge.raised(run, error, seconds=seconds)
        self._handler_ended(run, outcome)

    def _handler_ended(self, run: Run, outcome: life.Outcome) -> None:
        self._going.discard(run)
        run.active = self._caller.still_in_thread(run, lambda: self._release_slot(run))
        if not run.active:
            # What the handler kept there goes with it.
            run.context = None
            self._release_slot(run)
        self._close(run, outcome)

    def _abandon(self, run: Run) -> None:
        """The handler swallowed its cancellation: end the run without it."""
        if run.closed or run.task is None or run.task.done():
            return
        self._release_slot(run)
        self.abandoned += 1
        run.task.add_done_callback(self._came_back)
        self._close(run, self._cancelled(run))

    def _came_back(self, _: asyncio.Task[None]) -> None:
        self.abandoned -= 1

    def _cancelled(self, run: Run) -> life.Outcome:
        seconds = 0.0 if run.handler is None else self._judge.seconds(run.claim, run.handler)
        return self._judge.raised(run, asyncio.CancelledError(), seconds=seconds)

    def _look_at_held(self) -> None:
        """Give back what has waited too long."""
        late = time.monotonic() - HOLD_LIMIT
        for run in self._held:
            if run.started < late:
                self._let_go(run, life.NotStarted())
        self._held = deque(run for run in self._held if not run.closed)
        self._looking = bool(self._held)
        if self._looking:
            self._loop.call_later(HOLD_LIMIT / 2, self._look_at_held)

    def _return_surplus(self) -> None:
        """Give back at once what is not known to get a slot in a moment: the last of each kind first."""
        waiting: Counter[str] = Counter()
        for run in self._held:
            if not run.closed:
                kind = run.claim.kind
                waiting[kind] += 1
                # With a margin: how long a kind takes is known roughly, and giving back costs, too.
                if waiting[kind] > SURPLUS * self.slots.may_wait_of(kind):
                    self._let_go(run, life.NotStarted())

    def _lasts(self, run: Run) -> None:
        run.lasts = True
        self.slots.lasting += 1

    def _let_go(self, run: Run, outcome: life.Outcome) -> None:
        """End a run that never began. Who fills slots finds it closed."""
        if not run.closed:
            self.slots.held -= 1
            self.slots.give_back(run.claim)
            self._close(run, outcome)

    def _close(self, run: Run, outcome: life.Outcome) -> None:
        """Give the verdict, once."""
        if run.closed:
            return
        run.closed = True
        self._limits.clear(run)
        verdict = self._judge.verdict(run, outcome)
        if verdict is None:
            self._finisher.skip(run, life.OUTCOMES[type(outcome)])
        else:
            self._finisher.put(run, verdict, life.OUTCOMES[type(outcome)])

    def _release_slot(self, run: Run) -> None:
        if not run.holds_slot:
            return
        run.holds_slot = False
        run.active = False
        self.slots.busy -= 1
        self.slots.lasting -= run.lasts
        self.slots.give_back(run.claim)
        kind, seconds = run.claim.kind, time.monotonic() - run.started
        # One that was stopped would have taken longer.
        if run.stop is None or seconds > (self.slots.prefetch.usual(kind) or math.inf):
            self.slots.prefetch.learn(kind, seconds)
        if not self._filling:
            # Not at once: the slots of all handlers that end in this turn of the loop are filled together.
            self._filling = True
            self._loop.call_soon(self._fill_and_tell)

    def _fill_and_tell(self) -> None:
        self._fill()
        self._freed()


def _started(claim: Claimed, waited: float) -> JobStarted:
    late = None
    if claim.delay_tolerance is not None and claim.attempt == 1:
        late = waited > (claim.deadline_at - claim.claimed_at).total_seconds()
    waited += max((claim.claimed_at - max(claim.run_at, claim.created_at)).total_seconds(), 0.0)
    return JobStarted(claim.id, claim.kind, claim.queue, claim.attempt, waited, late)
