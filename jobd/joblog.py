"""One log line for what happened to a job or to the daemon; payloads and results are never in it.

Subscribes to `events`. What goes well is told at debug, since it is most of it: metrics count it.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from jobd import events as happened
from jobd.events import Events

LEVELS = {
    "succeeded": logging.DEBUG,
    "unknown_kind": logging.DEBUG,
    "snoozed": logging.INFO,
    "cancelled": logging.INFO,
    "interrupted": logging.INFO,
    "failed": logging.WARNING,
    "timed_out": logging.WARNING,
    "discarded": logging.WARNING,
}


class JobLog:
    """Writes a line for each event from `level` upwards, from the moment it is made."""

    def __init__(self, events: Events, log: Any, *, level: int) -> None:
        self._log = log
        self._level = level
        self._unknown: set[str] = set()
        self._untold = frozenset(outcome for outcome, severity in LEVELS.items() if severity < level)
        if level <= logging.DEBUG:
            events.subscribe(happened.JobStarted, self._started)
        events.subscribe_batches(happened.JobFinished, self._finished)
        events.subscribe(happened.RunStale, self._stale)
        events.subscribe(happened.EndRefused, self._refused)
        events.subscribe(happened.LateResult, self._late)
        events.subscribe(happened.UniqueKeyLost, self._key_lost)
        events.subscribe(happened.UnknownKind, self._unknown_kind)
        events.subscribe(happened.JobsRescued, self._rescued)
        events.subscribe(happened.JobsExpired, self._expired)
        events.subscribe(happened.LeaseLost, self._lease_lost)
        events.subscribe(happened.DatabaseLost, self._database_lost)
        events.subscribe(happened.DatabaseBack, self._database_back)
        events.subscribe(happened.ListenerChanged, self._listener)
        events.subscribe(happened.ScheduleFired, self._schedule_fired)
        events.subscribe(happened.ScheduleFaulty, self._schedule_faulty)
        events.subscribe(happened.ScheduleDropped, self._schedule_dropped)
        events.subscribe(happened.ScheduleTaken, self._schedule_taken)
        events.subscribe(happened.LeaderChanged, self._leader)
        events.subscribe(happened.DutyFailed, self._duty_failed)

    def _started(self, event: happened.JobStarted) -> None:
        self._log.debug("job started", **_job(event), wait_seconds=round(event.wait_seconds, 4))

    def _finished(self, events: Sequence[happened.JobFinished]) -> None:
        for event in events:
            if event.state != "dead" and event.outcome in self._untold:
                continue
            severity = logging.WARNING if event.state == "dead" else LEVELS.get(event.outcome, logging.INFO)
            if severity >= self._level:
                seconds = None if event.run_seconds is None else round(event.run_seconds, 4)
                said = {"state": str(event.state), "seconds": seconds, "reason": event.reason}
                self._log.log(severity, f"job {event.outcome}", **_job(event), **said)

    def _schedule_fired(self, event: happened.ScheduleFired) -> None:
        severity = logging.DEBUG if event.outcome == "ran" else logging.WARNING
        if severity >= self._level:
            said = {"count": event.count, "late_seconds": round(event.late_seconds, 3)}
            self._log.log(severity, f"occurrence {event.outcome}", schedule=event.schedule_id, **said)

    def _schedule_faulty(self, event: happened.ScheduleFaulty) -> None:
        self._log.error(
            "a schedule cannot be computed and rests until it is changed",
            schedule=event.schedule_id,
            detail=event.fault,
        )

    def _schedule_dropped(self, event: happened.ScheduleDropped) -> None:
        said = "a schedule is no longer declared: it is paused; remove it, or resume it to keep it"
        self._log.warning(said, schedule=event.schedule_id, owner=event.owner)

    def _schedule_taken(self, event: happened.ScheduleTaken) -> None:
        said = "a schedule was declared elsewhere until now; if both go on, give one of them an id of its own"
        self._log.warning(said, schedule=event.schedule_id, owner=event.owner, before=event.before)

    def _stale(self, event: happened.RunStale) -> None:
        said = "claim lost, nothing written: the job was rescued or ended elsewhere"
        self._log.warning(said, **_job(event), claim_no=event.claim_no)

    def _refused(self, event: happened.EndRefused) -> None:
        said = "the end of a run could not be stored in any form; the job goes back to the queue"
        self._log.error(said, **_job(event), detail=event.detail)

    def _late(self, event: happened.LateResult) -> None:
        said = "ignored what a handler did after its job had ended"
        self._log.warning(said, **_job(event), detail=event.detail)

    def _key_lost(self, event: happened.UniqueKeyLost) -> None:
        said = "a job goes on without its unique key, which another one took while it ran"
        self._log.info(said, job_id=str(event.id))

    def _unknown_kind(self, event: happened.UnknownKind) -> None:
        if event.kind not in self._unknown:
            self._unknown.add(event.kind)
            said = "no handler here for a kind; its jobs go back and are left to other workers"
            self._log.warning(said, kind=event.kind, queue=event.queue)

    def _rescued(self, event: happened.JobsRescued) -> None:
        self._log.warning("jobs of lost workers put back", jobs=event.count, dead=event.dead)

    def _expired(self, event: happened.JobsExpired) -> None:
        said = "jobs that waited passed their deadline and were dropped"
        self._log.warning(said, jobs=event.count, kind=event.kind, queue=event.queue)

    def _lease_lost(self, event: happened.LeaseLost) -> None:
        self._log.error("lease lost", detail=event.detail)

    def _database_lost(self, event: happened.DatabaseLost) -> None:
        said = "database lost, trying again until it is back"
        self._log.warning(said, service=event.service, detail=event.detail)

    def _database_back(self, event: happened.DatabaseBack) -> None:
        self._log.info("database is back", service=event.service, after_seconds=round(event.seconds, 3))

    def _listener(self, event: happened.ListenerChanged) -> None:
        (self._log.info if event.up else self._log.warning)(event.detail)

    def _leader(self, event: happened.LeaderChanged) -> None:
        self._log.info("leads now" if event.leading else "leads no longer", term=event.term)

    def _duty_failed(self, event: happened.DutyFailed) -> None:
        self._log.error("could not see to the partitions of the history", detail=event.detail)


def _job(event: Any) -> dict[str, Any]:
    return {"job_id": str(event.id), "kind": event.kind, "queue": event.queue, "attempt": event.attempt}
