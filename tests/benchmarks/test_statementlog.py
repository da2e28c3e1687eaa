"""PostgreSQL's log of statements, read."""

from __future__ import annotations

from dataclasses import replace

import pytest

from benchmarks.statementlog import entries, milliseconds_by_statement
from benchmarks.workloads.growth import costs

HEAD = "2026-01-02 03:04:05.678 UTC"
CLAIM = "update jobd.jobs j\n\t   set state = 'running'"
LOG = f"""\
{HEAD}|11|bench|jobd| LOG:  duration: 1.500 ms  parse __asyncpg_stmt_1__: {CLAIM}
{HEAD}|11|bench|jobd| LOG:  duration: 0.250 ms  bind __asyncpg_stmt_1__: {CLAIM}
{HEAD}|11|bench|jobd| LOG:  duration: 4.000 ms  execute __asyncpg_stmt_1__: {CLAIM}
{HEAD}|11|bench|jobd| DETAIL:  Parameters: $1 = 'x'
{HEAD}|11|bench|jobd| LOG:  duration: 0.100 ms  statement: listen jobd_wake
{HEAD}|12|bench|benchmarks| LOG:  duration: 9.000 ms  statement: select count(*) from t
{HEAD}|13|other|jobd| LOG:  duration: 9.000 ms  statement: select 1
{HEAD}|14||| LOG:  checkpoint starting: immediate
"""


def test_only_the_sessions_of_the_database_that_are_not_ours_count():
    found = entries(LOG.splitlines(), database="bench", without="benchmarks")
    assert [entry.step for entry in found] == ["parse", "bind", "execute", "statement"]
    assert [entry.ms for entry in found] == [1.5, 0.25, 4.0, 0.1]


def test_lines_of_one_statement_become_one_line():
    found = entries(LOG.splitlines(), database="bench", without="benchmarks")
    assert {entry.sql for entry in found} == {
        "update jobd.jobs j set state = 'running'",
        "listen jobd_wake",
    }


def test_bind_and_execute_are_one_round_trip():
    found = entries(LOG.splitlines(), database="bench", without="benchmarks")
    assert sum(entry.is_round_trip for entry in found) == 3


def test_the_time_of_a_run_includes_its_planning():
    found = entries(LOG.splitlines(), database="bench", without="benchmarks")
    assert milliseconds_by_statement(found) == {
        "update jobd.jobs j set state = 'running'": [4.25],
        "listen jobd_wake": [0.1],
    }


def test_growth_counts_a_statement_by_what_it_is_for():
    found = entries(LOG.splitlines(), database="bench", without="benchmarks")
    named = [replace(entry, sql=f"-- jobd: claim -- ready -> running {entry.sql}") for entry in found[:3]]
    assert costs([*named, *found], {"claim": 500}) == {"claim": pytest.approx(8.5)}
