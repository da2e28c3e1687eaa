"""A million live jobs with statistics that are wrong, and what the generic plan of a statement reads there.

The three states of the statistics are those a queue really gets into: ANALYZE ran while the table was
empty, while all jobs were scheduled, or while all were ready. They are gathered from small tables of the
same shape and put in the place of the big one's, which costs a second instead of a minute.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import psycopg
from psycopg import sql

from jobd.sql import Block

STATISTICS = {"analysed_empty": 0, "all_scheduled": 40_000, "all_ready": 40_000}
QUEUES = ("q0", "q1", "q2", "q3", "q4")
WORKER = UUID("00000000-0000-4000-8000-000000000001")
DEAD_WORKER = UUID("00000000-0000-4000-8000-000000000002")
BATCH = 500

# Written without the indexes, which are made again afterwards: half the time.
ROWS = """
    insert into {table} (id, queue, kind, tenant_id, state, priority, run_at, deadline_at, deadline_policy,
                         delay_tolerance, payload, crashes, claim_no, attempt, worker_id, claimed_at,
                         unique_key, created_at)
    select ('01900000-0000-7000-8000-' || lpad(to_hex(n), 12, '0'))::uuid, 'q' || n % 5, 'kind' || n % 7,
           case when n % 3 = 0 then 'tenant' || n % 11 end, kind.state, (n % 4 = 0)::int, now() + kind.due,
           now() + kind.due, case when n % 50 = 0 then 'drop' else 'run' end,
           case when n % 50 = 0 then interval '1 hour' end, jsonb_build_object('n', n), 0,
           (kind.state = 'running')::int, (kind.state = 'running')::int,
           case when kind.state = 'running' then {worker}::uuid end,
           case when kind.state = 'running' then now() end, case when n % 10 = 0 then 'key' || n end, now()
      from generate_series({first}::int, {last}::int) n,
           lateral (select {state} as state, {due} as due) kind
"""

READ = ("Actual Rows", "Rows Removed by Filter", "Rows Removed by Index Recheck")


@dataclass(frozen=True)
class Reading:
    """What one execution of a plan read of the live jobs, or of another table."""

    returned: int
    rows: int
    scans: set[str]
    functions: set[str]
    plan: str


@dataclass(frozen=True)
class Claim:
    """What a claim took, which tables it read whole, and how many rows of each it fetched by an index."""

    taken: int
    whole: set[str]
    fetched: dict[str, int]


class Million:
    """The database of one test module. Nothing that a test explains there stays."""

    def __init__(self, dsn: str) -> None:
        self._session: psycopg.Connection[Any] = psycopg.connect(dsn, autocommit=True)
        self._do("set allow_system_table_mods = on")
        self._do("set plan_cache_mode = force_generic_plan")
        self._do("alter table jobd.jobs set (autovacuum_enabled = off)")
        for name, rows in STATISTICS.items():
            self._do(f"create table {name} (like jobd.jobs including all)")
            self._do(f"alter table {name} set (autovacuum_enabled = off)")
            state = name.removeprefix("all_")
            self._rows(
                name, first=1, last=rows, state=state, due="1 hour" if state == "scheduled" else "-1 second"
            )
            self._do(f"analyze {name}")
        indexes = self._session.execute(
            "select indexrelid::regclass::text, pg_get_indexdef(indexrelid) from pg_index"
            " where indrelid = 'jobd.jobs'::regclass and not indisprimary"
        ).fetchall()
        for name, _ in indexes:
            self._do(f"drop index {name}")
        # 700,000 ready in five queues, 299,000 scheduled of which 5,000 are due, 500 running, 500 orphans.
        for count, state, due, worker in (
            (700_000, "ready", "-1 second", WORKER),
            (5_000, "scheduled", "-1 second", WORKER),
            (294_000, "scheduled", "1 hour", WORKER),
            (500, "running", "-1 second", WORKER),
            (500, "running", "-1 second", DEAD_WORKER),
        ):
            first = (self._session.execute("select count(*) from jobd.jobs").fetchone() or (0,))[0] + 1
            self._rows("jobd.jobs", first=first, last=first + count - 1, state=state, due=due, worker=worker)
        for _, definition in indexes:
            self._do(definition)
        self._do(
            "insert into jobd.workers (id, host, pid, version, queues, kinds, roles, concurrency,"
            " started_at, beat_at, confirmed_since, lease_until)"
            " select %s, 'h', 1, '0', '{}', '{}', '{}', 1, now(), now(), now(), now() + interval '1 day'",
            WORKER,
        )

    def close(self) -> None:
        self._session.close()

    def ids(self, where: str, count: int) -> list[UUID]:
        """Some jobs, not neighbours."""
        text = f"select id from jobd.jobs where {where} order by md5(id::text) limit %s"
        return [row[0] for row in self._session.execute(text, [count])]

    def end(self, rows: int, *, days_ago: int) -> None:
        """Let the history have so many jobs of that day, by the ids of the live ones."""
        self._session.execute(
            """
            insert into jobd.job_history
            select h.* from (select * from jobd.jobs limit %s) j,
                   jobd.ended(j, 'dead', 'why', null, null, now() - %s * interval '1 day') h
            """,
            [rows, days_ago],
        )

    def clear(self, ids: list[UUID]) -> None:
        """Take live jobs away."""
        self._do("delete from jobd.jobs where id = any (%s)", ids)

    def analyze_history(self) -> None:
        """Gather its statistics as they are."""
        self._do("analyze jobd.job_history")

    def forget_history(self) -> None:
        """Let the planner know of the history what it knows of a table that was never analysed."""
        parts = "select inhrelid from pg_inherits where inhparent = 'jobd.job_history'::regclass"
        self._do(f"delete from pg_statistic where starelid in ({parts})")
        self._do(
            f"update pg_class set reltuples = -1, relpages = 0, relallvisible = 0 where oid in ({parts})"
        )

    def today(self) -> tuple[datetime, datetime]:
        """When the day of the history began, and when it ends."""
        text = "select date_trunc('day', now() at time zone 'UTC') at time zone 'UTC'"
        row = self._session.execute(text).fetchone()
        assert row is not None
        return row[0], row[0] + timedelta(days=1)

    def place(self, queue: str, nth: int) -> tuple[int, datetime, UUID]:
        """Priority, deadline and id of the nth ready job of a queue."""
        text = (
            "select priority, deadline_at, id from jobd.jobs"
            " where queue = %s and state = 'ready' and crashes = 0"
            " order by priority desc, deadline_at, id offset %s limit 1"
        )
        row = self._session.execute(text, [queue, nth]).fetchone()
        assert row is not None
        return row[0], row[1], row[2]

    def assume(self, statistics: str) -> None:
        """Let the planner believe that `jobd.jobs` is as it was when ANALYZE ran."""
        columns = [
            row[0]
            for row in self._session.execute(
                "select attname from pg_attribute where attrelid = 'pg_statistic'::regclass and attnum > 1"
            )
        ]
        names = sql.SQL(", ").join(map(sql.Identifier, columns))
        with self._session.transaction():
            self._do("delete from pg_statistic where starelid = 'jobd.jobs'::regclass")
            self._session.execute(
                sql.SQL(
                    "insert into pg_statistic (starelid, {names}) select 'jobd.jobs'::regclass, {names}"
                    " from pg_statistic where starelid = {twin}::regclass"
                ).format(names=names, twin=statistics)
            )
            self._do(
                "update pg_class real set reltuples = twin.reltuples, relpages = twin.relpages"
                " from pg_class twin where real.oid = 'jobd.jobs'::regclass and twin.oid = %s::regclass",
                statistics,
            )
            # The twin's indexes have other names, but the same columns and predicates.
            moved = self._session.execute(
                """
                with indexes as (
                    select indrelid, indexrelid, indkey::text,
                           coalesce(pg_get_expr(indpred, indrelid), '') as predicate
                      from pg_index
                )
                update pg_class c set reltuples = t.reltuples, relpages = t.relpages
                  from indexes real join indexes twin using (indkey, predicate)
                  join pg_class t on t.oid = twin.indexrelid
                 where c.oid = real.indexrelid
                   and real.indrelid = 'jobd.jobs'::regclass and twin.indrelid = %s::regclass
                """,
                [statistics],
            ).rowcount
        assert moved > 5

    def explain(self, block: Block, arguments: Mapping[str, object], *, table: str = "jobs") -> Reading:
        """Execute the generic plan of `block` and undo what it did; what it read of tables named so."""
        assert {*arguments, "now"} == {*block.parameters, "now"}
        values = sql.SQL(", ").join(sql.Literal(arguments.get(name)) for name in block.parameters)
        with self._session.transaction(force_rollback=True):
            self._do("set local jit = off")
            self._do(f"prepare question as {block.text}")
            execute = sql.SQL("explain (analyze, verbose, format json) execute question({})").format(values)
            (plan,) = self._session.execute(execute).fetchone()[0]  # type: ignore[index]
            self._do("deallocate question")
        scans = [
            node
            for node in nodes(plan["Plan"])
            if node.get("Relation Name", "").startswith(table)
            and node["Node Type"].endswith("Scan")
            and node["Actual Loops"]
        ]
        rows = sum(sum(node.get(key, 0) for key in READ) * node["Actual Loops"] for node in scans)
        return Reading(
            returned=round(plan["Plan"]["Actual Rows"]),
            rows=round(rows),
            scans={node["Node Type"] for node in scans},
            functions={node.get("Function Name", "") for node in nodes(plan["Plan"])} - {""},
            plan=json.dumps(plan, indent=1),
        )

    def keyed(self, count: int, keys: int) -> None:
        """So many ready jobs more, in the queue `keyed`, with so many keys."""
        self._do(
            "insert into jobd.jobs (id, queue, kind, state, priority, run_at, deadline_at, deadline_policy,"
            " payload, concurrency_key, created_at) select jobd.uuid7(), 'keyed', 'noop', 'ready', 0, now(),"
            " now(), 'run', '{}', 'key' || n %% %s, now() from generate_series(1, %s) n",
            keys,
            count,
        )

    def claim_governed(self, said: str, rooms: Mapping[str, int]) -> Claim:
        """Claim under the limits that `said` sets, and undo both."""
        with self._session.transaction(force_rollback=True):
            self._session.execute(said.encode())
            before = self._tables()
            (taken,) = self._session.execute(
                "select count(*) from jobd.claim_governed(%s, %s, %s, '{}', '{}', 1, 2)",
                [WORKER, list(rooms), list(rooms.values())],
            ).fetchone() or (0,)
            after = self._tables()
        return Claim(
            taken,
            {name for name, (scans, _) in after.items() if scans > before[name][0]},
            {name: rows - before[name][1] for name, (_, rows) in after.items()},
        )

    def _tables(self) -> dict[str, tuple[int, int]]:
        """Per table, how often this transaction read all of it, and how many rows it fetched by an index."""
        rows = self._session.execute(
            "select relname, seq_scan, coalesce(idx_tup_fetch, 0) from pg_stat_xact_user_tables"
            " where schemaname = 'jobd'"
        )
        return {name: (scans, fetched) for name, scans, fetched in rows.fetchall()}

    def _do(self, text: str, *arguments: object) -> None:
        self._session.execute(text, arguments or None)

    def _rows(
        self, table: str, *, first: int, last: int, state: str, due: str, worker: UUID = WORKER
    ) -> None:
        if last:
            self._session.execute(
                sql.SQL(ROWS).format(
                    table=sql.SQL(table),
                    first=first,
                    last=last,
                    state=state,
                    worker=worker,
                    due=sql.SQL("interval {}").format(due),
                )
            )


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Every node of a plan, the top one first."""
    yield plan
    for child in plan.get("Plans", ()):
        yield from nodes(child)


@contextmanager
def million(dsn: str) -> Iterator[Million]:
    """The jobs, made anew."""
    jobs = Million(dsn)
    try:
        yield jobs
    finally:
        jobs.close()
