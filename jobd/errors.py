"""What jobd raises when it is misused or cannot go on.

    JobdError
     |-- ConfigError            a setting is wrong (names setting, value, remedy)
     |-- HandlerError           a handler is declared wrongly
     |-- PayloadError           a payload cannot be stored or does not fit (names the path); a ValueError too
     |-- JobNotFound            no job has this id
     |-- WrongState             the job's state does not allow this verb
     |    `-- NotKept           it has ended, and its queue keeps too little to run it again
     |-- QueueUnknown           nobody ever served, paused or limited this queue
     |-- ScheduleNotFound       no schedule has this id
     |-- ScheduleExists         there is one of this id already
     |-- UniqueKeyTaken         another job holds the unique key
     |-- IdTaken                the id belongs to a job of another kind or tenant
     |-- TenantFull             no more jobs of this tenant may wait
     |-- ClaimLost              the run is no longer ours: another worker took the job over
     |-- WaitTimeout            the job had not ended when the waiting did; a TimeoutError too
     |-- DrainTimeout           jobs of a queue were at work when the waiting was over; a TimeoutError too
     |-- CallTimeout            a call on the database took longer than its limit; a TimeoutError too
     |-- DatabaseUnavailable    the database cannot be reached, or ended the connection
     |-- Transient              a deadlock or the like: the same call may succeed at once
     |    `-- Locked            somebody else holds what it needs for longer than it would wait
     |-- Refused                the database refuses the values themselves
     |-- PartitionMissing       the history has no partition for today
     `-- SchemaError            the schema in the database does not suit this jobd
          |-- SchemaOutdated    migrations are missing
          `-- SchemaTooNew      a newer jobd migrated it

How a run of a handler ended is never one of these: see `outcomes` and `lifecycle`. Every error
carries its facts as fields, and a text that says what to do next.
"""

from __future__ import annotations

from typing import Final
from uuid import UUID

# The value of a ConfigError about what was left out.
MISSING: Final = object()


class JobdError(Exception):
    """The root of everything that jobd raises on purpose."""


class ConfigError(JobdError):
    """A setting has a value that cannot work."""

    def __init__(self, setting: str, value: object, remedy: str) -> None:
        self.setting = setting
        self.value = None if value is MISSING else value
        self.remedy = remedy
        super().__init__(f"{setting}: {remedy}" if value is MISSING else f"{setting} = {value!r}: {remedy}")


class HandlerError(JobdError):
    """A handler is declared in a way that can never run."""


class PayloadError(JobdError, ValueError):
    """A payload cannot be stored, or does not fit the handler that is registered for it."""

    def __init__(self, path: str, problem: str, remedy: str = "") -> None:
        self.path = path
        self.problem = problem
        self.remedy = remedy
        super().__init__(f"payload {path}: {problem}" + (f"; {remedy}" if remedy else ""))


class JobNotFound(JobdError):
    """No job, waiting or finished, has this id."""

    def __init__(self, job_id: UUID) -> None:
        self.job_id = job_id
        super().__init__(
            f"no job {job_id}: it never existed, was deleted, or finished longer ago than history_retention "
            "(than a day, if its queue does not keep it)"
        )


class QueueUnknown(JobdError):
    """Nobody ever served, paused or limited this queue."""

    def __init__(self, queue: str) -> None:
        self.queue = queue
        super().__init__(f"no queue {queue!r} is known: `jobd queues list` shows those that are")


class ScheduleNotFound(JobdError):
    """No schedule has this id."""

    def __init__(self, schedule_id: str) -> None:
        self.schedule_id = schedule_id
        super().__init__(f"no schedule {schedule_id!r}: `jobd schedules list` shows those that there are")


class ScheduleExists(JobdError):
    """There is a schedule of this id already, and it was not to be replaced."""

    def __init__(self, schedule_id: str) -> None:
        self.schedule_id = schedule_id
        super().__init__(
            f"schedule {schedule_id!r} exists already: replace it (replace=True, --replace), "
            "or choose another id"
        )


class WrongState(JobdError):
    """The job exists, but its state does not allow what was asked."""

    def __init__(self, job_id: UUID, state: str, verb: str, allowed: str) -> None:
        self.job_id = job_id
        self.state = state
        self.verb = verb
        super().__init__(f"cannot {verb} job {job_id}: it is {state}, and {verb} takes {allowed}")


class NotKept(WrongState):
    """The job has ended, and with it went its payload: its queue does not keep such jobs."""

    def __init__(self, job_id: UUID, state: str, verb: str, queue: str) -> None:
        self.queue = queue
        super().__init__(
            job_id,
            state,
            verb,
            f"a job with its payload, which queue {queue!r} did not keep (setting queues.{queue}.keep): "
            "enqueue it anew, with another id",
        )


class UniqueKeyTaken(JobdError):
    """Another job of the same tenant and kind, `holder`, holds the unique key.

    `job_id` is the job that was to be retried, or None: none was made. `holder` is None where two jobs of one
    call have the key, and where nobody knows any more who has held it.
    """

    def __init__(self, job_id: UUID | None, unique_key: str, holder: UUID | None) -> None:
        self.job_id = job_id
        self.unique_key = unique_key
        self.holder = holder
        super().__init__(
            f"nothing was enqueued: unique key {unique_key!r} is twice in this call; "
            "leave one out, or say on_conflict='keep' or 'replace'"
            if job_id is None and holder is None
            else f"nothing was enqueued: unique key {unique_key!r} is held by job {holder}; "
            "wait for that one, or say on_conflict='keep' or 'replace'"
            if job_id is None
            else f"job {job_id} cannot go back to the queue: its unique key {unique_key!r} is held by "
            f"{'job ' + str(holder) if holder else 'another job'}; cancel that one first, or let it finish"
        )


class IdTaken(JobdError):
    """An enqueue named the id of a job that is of another kind or tenant."""

    def __init__(self, job_id: UUID) -> None:
        self.job_id = job_id
        super().__init__(
            f"id {job_id} belongs to a job of another kind or tenant; "
            "repeat an enqueue with the same kind and tenant, or leave id out to get a new one"
        )


class TenantFull(JobdError):
    """No more jobs of this tenant may wait (`max_pending`); nothing was enqueued."""

    def __init__(self, tenant_id: str, *, limit: int, waiting: int, surplus: int = 1) -> None:
        """`surplus`: how many of those enqueued at once were too many, as far as they were sent.

        `waiting` is without those, and ends 1,000 above the limit: as many wait, or more.
        """
        self.tenant_id = tenant_id
        self.limit = limit
        self.waiting = waiting
        self.surplus = surplus
        more = f"{surplus} of the new ones are too many; " if surplus > 1 else ""
        super().__init__(
            f"tenant {tenant_id!r} has {waiting}{' or more' if waiting >= limit + 1_000 else ''} "
            f"job{'' if waiting == 1 else 's'} waiting, and its max_pending is {limit}: {more}"
            "try again when some have run, or raise max_pending of this tenant"
        )


class ClaimLost(JobdError):
    """Another daemon took the job over while this run was going on; nothing of it was written."""

    def __init__(self, job_id: UUID, claim_no: int) -> None:
        self.job_id = job_id
        self.claim_no = claim_no
        super().__init__(f"claim {claim_no} of job {job_id} is lost: the job was rescued or ended elsewhere")


class WaitTimeout(JobdError, TimeoutError):
    """The job had not reached its end when the time to wait was over. The job goes on."""

    def __init__(self, job_id: UUID, seconds: float, state: str) -> None:
        self.job_id = job_id
        self.seconds = seconds
        self.state = state
        super().__init__(
            f"job {job_id} is still {state} after {seconds:g} s; it goes on: wait again, or longer"
        )


class DrainTimeout(JobdError, TimeoutError):
    """A queue still had work when the time to wait was over. What runs goes on."""

    def __init__(self, queue: str, seconds: float, running: int, *, paused: bool) -> None:
        self.queue = queue
        self.seconds = seconds
        self.running = running
        what = (
            f"{running} of its jobs still {'runs' if running == 1 else 'run'}"
            if running
            else "some of its jobs are still ready"
        )
        rest = f"; it stays paused: wait again, or `jobd queues resume {queue}`" if paused else ""
        super().__init__(f"queue {queue!r} is not drained after {seconds:g} s: {what}{rest}")


class CallTimeout(JobdError, TimeoutError):
    """A call did not end within its limit. Whether it took effect is unknown: repeat it with the same id."""

    def __init__(
        self, what: str, seconds: float, *, remedy: str = "look, or repeat it with the same id"
    ) -> None:
        self.what = _CALLS.get(what, what)
        self.seconds = seconds
        super().__init__(
            f"{self.what} did not end within {seconds:g} s (setting call_timeout); "
            f"whether it took effect is unknown: {remedy}{_WAITED_FOR.get(what, '')}"
        )


# Statements whose names are not those of calls, and what enqueues may have waited for.
_CALLS = {"enqueue_new": "enqueue", "enqueue_of_tenant": "enqueue", "enqueue_keyed": "enqueue_many"}
_OF_TENANT = "for the same tenant, where its max_pending is exact (`exact = false` waits for nobody)"
_OPEN = "; it may have waited for an open transaction that enqueues"
_WAITED_FOR = {
    "enqueue": f"{_OPEN} with the same unique key or id, or {_OF_TENANT}",
    "enqueue_keyed": f"{_OPEN} with the same unique keys, or {_OF_TENANT}",
    "enqueue_of_tenant": f"{_OPEN} {_OF_TENANT}",
    "enqueue_many": f"{_OPEN} {_OF_TENANT}",
}


class DatabaseUnavailable(JobdError):
    """The database cannot be reached, refuses connections, or cut this one."""

    def __init__(self, detail: str, *, permanent: bool = False) -> None:
        """`permanent`: waiting will not help; the role, the password or the database's name is wrong."""
        self.detail = detail
        self.permanent = permanent
        super().__init__(f"the database cannot be used{'' if permanent else ' now'}: {detail}")


class Transient(JobdError):
    """A deadlock, a serialization failure or the like: the same call may succeed now."""


class Locked(Transient):
    """Somebody else held what the call needs for longer than it would wait; nothing was done."""


class PartitionMissing(JobdError):
    """The history has no partition for today; `ensure_partitions` makes it."""


class Refused(JobdError):
    """The database refused the values themselves; `constraint` names the rule where there is one."""

    def __init__(self, message: str, *, sqlstate: str, constraint: str | None) -> None:
        self.sqlstate = sqlstate
        self.constraint = constraint
        super().__init__(message)


class SchemaError(JobdError):
    """The schema `jobd` in the database does not suit this jobd."""


class SchemaOutdated(SchemaError):
    """The database lacks migrations that this jobd needs."""

    def __init__(self, found: int | None, needed: int | None = None) -> None:
        """`found` is 0 where there is no schema, None where a part of it is missing."""
        self.found = found
        self.needed = needed
        if found == 0:
            state = "has no jobd schema yet"
        elif found is None:
            state = "lacks a part of jobd's schema"
        else:
            state = f"is at schema version {found}, this jobd needs version {needed}"
        super().__init__(f"the database {state}: run `jobd migrate`")


class SchemaTooNew(SchemaError):
    """A newer jobd migrated the database further than this one understands."""

    def __init__(self, found: int, known: int) -> None:
        self.found = found
        self.known = known
        super().__init__(
            f"the database is at schema version {found}, this jobd knows versions up to {known}: "
            "upgrade jobd here, or point it at another database"
        )
