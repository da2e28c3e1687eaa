"""Decides what becomes of the occurrences of a schedule that are due: run, skipped, missed, or to wait.

due ─ within a pause ─────────────> skipped
    ├ waiting since before ───────> run, the oldest first, as there is room
    └ plan: grace and catch-up ─┬─> missed
                                └─> run, as there is room; else skipped, or to wait from now on
"""

from __future__ import annotations

import hashlib
import json
from collections import deque
from datetime import datetime, timedelta
from typing import cast

from jobd.errors import ConfigError
from jobd.ids import uuid7
from jobd.occurrences import Stretch, pass_over, plan
from jobd.schedule import Schedule
from jobd.schedule_rows import Decision, DueSchedule, Occurrence, ScheduleEntry
from jobd.terms import parsed

# How soon to look again where an occurrence waits for the one before it: after a sixtieth of the time
# that it has waited, within these.
QUEUE_LOOK = timedelta(seconds=1)
QUEUE_LOOK_MOST = timedelta(seconds=60)
# Parsed schedules that are kept.
REMEMBERED = 20_000


class Decider:
    """Remembers what it has parsed."""

    def __init__(self) -> None:
        self._parsed: dict[tuple[object, ...], Schedule] = {}

    def decision(self, due: DueSchedule) -> Decision:
        """What becomes of its occurrences up to now. One that cannot be computed rests, with its fault."""
        try:
            return self._decided(due)
        except ConfigError as error:
            fault = str(error)
        except OSError:  # The data of its zone could not be read just now.
            return due.decided(due.entry.decided_until, due_at=due.moment + QUEUE_LOOK_MOST)
        except Exception as error:  # Somebody wrote it by hand: it rests, and holds up no other.
            fault = f"{type(error).__name__}: {error}"
        return due.decided(due.entry.decided_until, due_at=None, fault=fault)

    def _decided(self, due: DueSchedule) -> Decision:
        entry = due.entry
        schedule = self._schedule(entry)
        first = schedule.next_after(entry.decided_until)
        runs_left = None if entry.max_runs is None else entry.max_runs - entry.runs
        ended = entry.ends_at is not None and first is not None and first > entry.ends_at
        if first is None or ended or (runs_left is not None and runs_left <= 0):
            return due.decided(entry.decided_until, due_at=None)
        if entry.passed_until is None or first > entry.passed_until:
            pass
        elif entry.passed_from is not None and first <= entry.passed_from:
            # What was due when the pause began is decided as it would have been then.
            due = due._replace(moment=entry.passed_from)
        else:
            passed = pass_over(schedule, first, entry.passed_until, ends_at=entry.ends_at, reason="paused")
            # What is due since then is decided by the next look, at once.
            return _told(due, passed.missed, [], due_at=passed.next_fire_at)
        if first > due.moment:
            return due.decided(entry.decided_until, due_at=first)
        room = max(entry.max_instances - len(due.unfinished), 0)
        if entry.queued_until is not None and first <= entry.queued_until:
            return _from_queue(due, schedule, first, room if runs_left is None else min(room, runs_left))
        made = plan(schedule, entry.policy, first, due.moment, runs_left=runs_left)
        fires = made.fires
        if entry.overlap == "replace":
            begin, over = fires[-entry.max_instances :], fires[: -entry.max_instances]
        else:
            begin, over = fires[:room], fires[room:]
        runs = [_run(due, *fire) for fire in begin]
        if over and (entry.overlap == "queue" or (entry.overlap == "skip" and len(fires) > 1)):
            # Those of a catch-up wait for each other as well.
            look = _next_look(due, over[0].fire_at, len(runs))
            return _told(due, made.missed, runs, due_at=look, queued_until=due.moment)
        skipped = [Occurrence(fire.fire_at, fire.fire_at, 1, "skipped", "overlap") for fire in over]
        last = runs_left is not None and len(runs) >= runs_left
        return _told(due, made.missed, [*skipped, *runs], due_at=None if last else made.next_fire_at)

    def _schedule(self, entry: ScheduleEntry) -> Schedule:
        key = (entry.id, entry.expression, entry.time_zone, entry.dst, entry.seconds, entry.anchor)
        schedule = self._parsed.get(key)
        if schedule is None:
            if len(self._parsed) >= REMEMBERED:
                self._parsed.clear()
            schedule = self._parsed[key] = parsed(entry)
        return schedule


def _from_queue(due: DueSchedule, schedule: Schedule, first: datetime, room: int) -> Decision:
    """Let the oldest run that wait, as there is room.

    With `queue` all that falls due meanwhile joins them; of more than `cap` the oldest are skipped. With
    `skip` they are what a catch-up brought, and what falls due until the last of them begins is skipped.
    """
    entry, until = due.entry, due.moment
    if entry.overlap != "queue":
        assert entry.queued_until is not None
        until = min(entry.queued_until, due.moment)
    waiting, over, moment = deque[datetime](), list[datetime](), cast("datetime | None", first)
    while moment is not None and moment <= min(until, entry.ends_at or until):
        waiting.append(moment)
        if len(waiting) > entry.cap:
            over.append(waiting.popleft())
        moment = schedule.next_after(moment)
    runs = [_run(due, waiting.popleft(), due.moment) for _ in range(min(room, len(waiting)))]
    stretch = Stretch(over[0], over[-1], len(over), "overlap") if over else None
    if waiting:
        look = _next_look(due, waiting[0], len(runs))
        return _told(due, stretch, runs, due_at=look, queued_until=until)
    if moment is not None and moment <= due.moment:
        late = pass_over(schedule, moment, due.moment, ends_at=entry.ends_at, reason="overlap")
        return _told(due, late.missed, runs, due_at=late.next_fire_at)
    return _told(due, stretch, runs, due_at=due.moment)


def _next_look(due: DueSchedule, oldest: datetime, begin: int) -> datetime:
    """When to look for room for the oldest that waits: who ends tells nobody. `begin` of them begin now."""
    waited = min(max((due.moment - oldest) / 60, QUEUE_LOOK), QUEUE_LOOK_MOST)
    return due.moment + max(waited, due.entry.stagger * begin)


def _told(
    due: DueSchedule,
    stretch: Stretch | None,
    occurrences: list[Occurrence],
    *,
    due_at: datetime | None,
    queued_until: datetime | None = None,
) -> Decision:
    if stretch is not None:
        outcome = "missed" if stretch.reason in ("catch_up", "misfire_grace") else "skipped"
        occurrences = [
            Occurrence(stretch.first, stretch.last, stretch.number, outcome, stretch.reason),
            *occurrences,
        ]
    until = max((run.last_at for run in occurrences), default=due.entry.decided_until)
    return due.decided(until, due_at=due_at, occurrences=occurrences, queued_until=queued_until)


def _run(due: DueSchedule, fire_at: datetime, run_at: datetime) -> Occurrence:
    headers = {"schedule": due.entry.id, "fire_at": fire_at.isoformat()}
    if due.last_success_at is not None:
        headers["last_success_at"] = due.last_success_at.isoformat()
    run_at += _jitter(due.entry, fire_at)
    return Occurrence(fire_at, fire_at, 1, "ran", None, uuid7(), run_at, json.dumps(headers))


def _jitter(entry: ScheduleEntry, fire_at: datetime) -> timedelta:
    """The same for an occurrence whoever computes it."""
    if not entry.jitter:
        return timedelta(0)
    digest = hashlib.blake2b(f"{entry.id} {fire_at.isoformat()}".encode(), digest_size=8).digest()
    return entry.jitter * (int.from_bytes(digest, "big") / 2**64)
