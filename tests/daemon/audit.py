"""What every transition of a job did to the limits, in the order in which they were committed.

A trigger writes each of them down with its transaction, and PostgreSQL knows when that was committed,
where it runs with `track_commit_timestamp`. A claim under limits sees what was committed before it began,
so the order by these times is an order in which the limits have to hold after every commit.
"""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple
from uuid import UUID

from tests.daemon.board import Board

TRIGGER = """
create table public.transitions (
    id uuid not null, kind text not null, queue text not null, tenant_id text, use_case text,
    concurrency_key text, was text, now text, claim_no bigint not null
);
create function public.audit() returns trigger language plpgsql as $$
declare
    job jobd.jobs := case when tg_op = 'DELETE' then old else new end;
begin
    if tg_op <> 'UPDATE' or new.state <> old.state then
        insert into public.transitions
        values (job.id, job.kind, job.queue, job.tenant_id, job.use_case, job.concurrency_key,
                case when tg_op <> 'INSERT' then old.state end,
                case when tg_op <> 'DELETE' then new.state end, job.claim_no);
    elsif new.queue <> old.queue then
        insert into public.transitions
        select j.id, j.kind, j.queue, j.tenant_id, j.use_case, j.concurrency_key, j.was, j.now, j.claim_no
          from (select old.*, old.state as was, null as now union all select new.*, null, new.state) j;
    end if;
    return null;
end
$$;
create trigger audit after insert or update or delete on jobd.jobs
    for each row execute function public.audit()
"""

# Within one instant whatever leaves `running` comes first: a claim is later than what it has seen end.
EVENTS = """
select extract(epoch from pg_xact_commit_timestamp(xmin))::float8 as at, id, kind, queue, tenant_id, use_case,
       concurrency_key, was, now
  from public.transitions
 order by pg_xact_commit_timestamp(xmin), now = 'running', id, claim_no
"""

Scope = tuple[str, str]


class Mark(NamedTuple):
    """What of a job its limits depend on."""

    kind: str
    queue: str
    tenant_id: str | None
    use_case: str | None
    concurrency_key: str | None

    @property
    def scopes(self) -> list[Scope]:
        """Everything in which this job is counted while it runs."""
        named = (
            ("queue", self.queue),
            ("tenant", self.tenant_id),
            ("use_case", self.use_case),
            ("key", self.concurrency_key),
        )
        return [(what, name) for what, name in named if name is not None]


class Event(NamedTuple):
    """One transition, committed at `at`, in seconds."""

    at: float
    id: UUID
    mark: Mark
    was: str | None
    now: str | None


async def events(board: Board) -> list[Event]:
    return [
        Event(
            row["at"],
            row["id"],
            Mark(row["kind"], row["queue"], row["tenant_id"], row["use_case"], row["concurrency_key"]),
            row["was"],
            row["now"],
        )
        for row in await board.query(EVENTS)
    ]


@dataclass
class Audit:
    """What was seen: per scope, the most that ran after any commit, and how long it was below its limit for
    want of a claim."""

    most: Counter[Scope] = field(default_factory=Counter)
    idle: dict[Scope, float] = field(default_factory=dict)
    out_of_order: list[Event] = field(default_factory=list)


def audit(
    happened: Iterable[Event], limits: Mapping[Scope, int], *, ordered: Callable[[Mark], bool]
) -> Audit:
    """Go through all commits. Where `ordered`, jobs of a key run one after the other, by their ids."""
    found = Audit()
    running: Counter[Scope] = Counter()
    ready: Counter[Mark] = Counter()
    # By key, where that is ordered: which of its jobs are not done, and in which state.
    lines: dict[Mark, dict[UUID, str]] = defaultdict(dict)
    since: dict[Scope, float] = {}

    def may_run() -> Iterator[Mark]:
        for mark, count in ready.items():
            first = lines[mark][min(lines[mark])] if ordered(mark) and lines[mark] else "ready"
            if count and first == "ready" and all(running[s] < limits.get(s, 10**9) for s in mark.scopes):
                yield mark

    for at, commit in itertools.groupby(happened, key=lambda event: event.at):
        for event in commit:
            if ordered(event.mark):
                line = lines[event.mark]
                if event.now == "running" and event.id != min(line):
                    found.out_of_order.append(event)
                if event.now is None:
                    line.pop(event.id)
                else:
                    line[event.id] = event.now
            ready[event.mark] += (event.now == "ready") - (event.was == "ready")
            for scope in event.mark.scopes:
                running[scope] += (event.now == "running") - (event.was == "running")
        for scope, count in running.items():
            found.most[scope] = max(found.most[scope], count)
        idle = {scope for mark in may_run() for scope in mark.scopes if scope in limits}
        for scope in since.keys() - idle:
            found.idle[scope] = max(found.idle.get(scope, 0.0), at - since.pop(scope))
        for scope in idle - since.keys():
            since[scope] = at
    assert not since, "jobs were left"
    return found
