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
from typing import Any
from uuid import UUID

import psycopg
from psycopg import sql

from jobd.sql import Block

STATISTICS = {"analysed_empty": 0, "all_scheduled": 40_000, "all_ready": 40_000}
QUEUES = ("q0", "q1", "q2", "q3", "q4")
WORKER = UUID("00000000-0000-4000-8000-000000000001")
CLAIM_NO = 1
BATCH = 500

# 700,000 ready in five queues, 298,000 scheduled of which 5,000 are due, 1,000 running here, 1,000 orphans.
ROWS = """
    insert into {table} (id, queue, kind, tenant_id, state, priority, run_at, deadline_at, deadline_policy,
                         delay_tolerance, payload, crashes, claim_no, attempt, worker_id, claimed_at, unique_key, created_at)
    select jobd.uuid7(), 'q' || n % 5, 'kind' || n % 7, case when n % 3 = 0 then 'tenant' || n % 11 end, kind.state,
           (n % 4 = 0)::int, now() + kind.due, now() + kind.due, case when n % 50 = 0 then 'drop' else 'run' end,
           case when n % 50 = 0 then interval '1 hour' end, jsonb_build_object('n', n), 0,
           (kind.state = 'running')::int, (kind.state = 'running')::int,
           case when kind.state = 'running' then {worker}::uuid end,
           case when kind.state = 'running' then now() end, case when n % 10 = 0 then 'key' || n end, now()
      from generate_series({first}::int, {last}::int) n,
           lateral (select {state} as state, {due} as due) kind
"""

SCAN_KEYS = ("Rows Removed by Filter", "Rows Removed by Index Recheck", "Rows Removed by Join Filter")


@dataclass(frozen=True)
class Reading:
    """What one execution of a plan read of the live jobs."""

    rows: int
    sequential: list[str]
    milliseconds: float
    plan: str


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
            self._rows(name, first=1, last=rows, state=state, due="1 hour" if state == "scheduled" else "-1 second")
            self._do(f"analyze {name}")
        self._rows("jobd.jobs", first=1, last=700_000, state="ready", due="-1 second")
        self._rows("jobd.jobs", first=700_001, last=705_000, state="scheduled", due="-1 second")
        self._rows("jobd.jobs", first=705_001, last=998_000, state="scheduled", due="1 hour")
        self._rows("jobd.jobs", first=998_001, last=999_000, state="running", due="-1 second")
        self._rows("jobd.jobs", first=999_001, last=1_000_000, state="running", due="-1 second", worker=UUID(int=7))
        self._do(
            """insert into jobd.workers select %s, 'h', 1, '0', '{}', '{}', '{}', 1, now(), now(), now(), now() + interval '1 day'""",
            WORKER,
        )

    def close(self) -> None:
        self._session.close()

    def ids(self, where: str, count: int) -> list[UUID]:
        """Some jobs, not neighbours."""
        text = f"select id from jobd.jobs where {where} order by md5(id::text) limit %s"
        return [row[0] for row in self._session.execute(text, [count])]  # type: ignore[arg-type]

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
                "update pg_class real set reltuples = twin.reltuples, relpages = twin.relpages from pg_class twin"
                " where real.oid = 'jobd.jobs'::regclass and twin.oid = %s::regclass",
                statistics,
            )
            # `like ... including all` made the twin's indexes in the same order, with the same definitions.
            moved = self._session.execute(
                """
                with real as (select indexrelid, row_number() over (order by pg_get_indexdef(indexrelid) is null, indkey::text, coalesce(pg_get_expr(indpred, indrelid), '')) n
                                from pg_index where indrelid = 'jobd.jobs'::regclass),
                     twin as (select indexrelid, row_number() over (order by pg_get_indexdef(indexrelid) is null, indkey::text, coalesce(pg_get_expr(indpred, indrelid), '')) n
                                from pg_index where indrelid = %s::regclass)
                update pg_class c set reltuples = t.reltuples, relpages = t.relpages
                  from real join twin using (n) join pg_class t on t.oid = twin.indexrelid
                 where c.oid = real.indexrelid
                """,
                [statistics],
            ).rowcount
        assert moved > 5

    def explain(self, block: Block, arguments: Mapping[str, object]) -> Reading:
        """Execute the generic plan of `block` and undo what it did."""
        assert {*arguments, "now"} == {*block.parameters, "now"}
        values = sql.SQL(", ").join(sql.Literal(arguments.get(name)) for name in block.parameters)
        with self._session.transaction(force_rollback=True):
            self._do("set local jit = off")
            self._do(f"prepare question as {block.text}")
            execute = sql.SQL("explain (analyze, verbose, format json) execute question({})").format(values)
            (plan,) = self._session.execute(execute).fetchone()[0]  # type: ignore[index]
            self._do("deallocate question")
        scans = [node for node in nodes(plan["Plan"]) if node.get("Relation Name") == "jobs" and "Scan" in node["Node Type"]]
        scans += [node for node in nodes(plan["Plan"]) if node["Node Type"] == "Bitmap Index Scan"]
        return Reading(
            rows=round(sum(sum(node.get(key, 0) for key in ("Actual Rows", *SCAN_KEYS)) * node["Actual Loops"] for node in scans)),
            sequential=[node["Node Type"] for node in scans if node["Node Type"] == "Seq Scan" and node["Actual Loops"]],
            milliseconds=plan["Execution Time"],
            plan=json.dumps(plan, indent=1),
        )

    def _do(self, text: str, *arguments: object) -> None:
        self._session.execute(text, arguments or None)  # type: ignore[arg-type]

    def _rows(self, table: str, *, first: int, last: int, state: str, due: str, worker: UUID = WORKER) -> None:
        if last:
            self._session.execute(
                sql.SQL(ROWS).format(  # type: ignore[arg-type]
                    table=sql.SQL(table), first=first, last=last, state=state, worker=worker,
                    due=sql.SQL("interval {}").format(due),
                )
            )  # fmt: skip


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
