"""`jobd run --processes N`: several workers that are started, watched, told to end and counted as one."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from jobd.cli import probe
from tests.daemon.board import Board
from tests.daemon.daemons import CrewProcess, Daemons, daemons_on
from tests.daemon.gates import waited_for
from tests.signals import eventually

pytestmark = pytest.mark.timeout(120)


async def readiness(crew: CrewProcess) -> tuple[int, dict[str, Any]]:
    async with httpx.AsyncClient(base_url=crew.address) as client:
        answer = await client.get("/readyz")
    return answer.status_code, answer.json()


async def ready(crew: CrewProcess) -> None:
    await eventually(lambda: readiness(crew), until=lambda answer: answer[0] == 200, timeout=20)


async def numbers(crew: CrewProcess) -> dict[str, float]:
    """The sums over all labels of what the page shows."""
    async with httpx.AsyncClient(base_url=crew.address) as client:
        page = (await client.get("/metrics")).text
    found: dict[str, float] = {}
    for family in text_string_to_metric_families(page):
        for sample in family.samples:
            found[sample.name] = found.get(sample.name, 0.0) + sample.value
    return found


async def finished(crew: CrewProcess) -> float:
    return (await numbers(crew))["jobd_jobs_finished_total"]


async def waiting_jobs(board: Board, gate: Path, count: int) -> list[Any]:
    """So many jobs that run until the gate is there."""
    ids = list(await board.jobs.enqueue_many("wait", [{"path": str(gate)}] * count))
    await waited_for(gate, count)
    return ids


async def test_every_process_is_a_worker_of_its_own_and_each_job_runs_once(
    daemons: Daemons, board: Board, tmp_path: Path
):
    crew = await daemons.start_crew(2, "--concurrency", "5")
    gate = tmp_path / "gate"
    ids = await waiting_jobs(board, gate, 10)
    by_worker = await board.query("select worker_id, count(*) from jobd.jobs group by 1")
    assert sorted(row["count"] for row in by_worker) == [5, 5]
    pids = await board.query("select pid from jobd.workers")
    assert {row["pid"] for row in pids} == set(crew.pids.values())
    gate.touch()
    await board.reach(10, "succeeded")
    assert await board.runs(ids) == dict.fromkeys(ids, 1)
    crew.terminate()
    assert await crew.ended() == 0


async def test_the_probes_of_one_process_are_those_of_all(daemons: Daemons, board: Board):
    crew = await daemons.start_crew(2)
    # Each process says that it has started before its first beat is confirmed.
    _, answer = await eventually(lambda: readiness(crew), until=lambda told: told[0] == 200)
    assert (answer["status"], answer["reasons"]) == ("healthy", [])
    assert {place["process"]: place["pid"] for place in answer["processes"]} == crew.pids
    host, _, port = crew.address.removeprefix("http://").partition(":")
    assert (await asyncio.to_thread(probe.ask, host, port, timeout=5))[0]
    async with httpx.AsyncClient(base_url=crew.address) as client:
        assert (await client.get("/livez")).status_code == 200
        assert (await client.get("/nothing")).json() == {"error": "Not Found"}


async def test_a_killed_process_is_replaced_and_its_jobs_run_again(
    daemons: Daemons, board: Board, tmp_path: Path
):
    crew = await daemons.start_crew(2, "--concurrency", "5")
    gate = tmp_path / "gate"
    ids = await waiting_jobs(board, gate, 10)
    before = crew.pids
    os.kill(before[1], signal.SIGKILL)
    red = 503, ["process 1: has ended (SIGKILL) and is being replaced"]
    await eventually(lambda: readiness(crew), until=lambda answer: (answer[0], answer[1]["reasons"]) == red)
    line = await crew.told("process ended, replacing it")
    assert (line["process"], line["detail"], line["pause_seconds"]) == (1, "SIGKILL", 0)
    await ready(crew)
    assert crew.pids[1] != before[1]
    assert crew.pids[2] == before[2]
    gate.touch()
    await board.reach(10, "succeeded")
    assert sorted((await board.runs(ids)).values()) == [1] * 5 + [2] * 5


async def test_totals_are_sums_and_do_not_go_back_when_a_process_dies(daemons: Daemons, board: Board):
    crew = await daemons.start_crew(2, "--concurrency", "3")
    await board.jobs.enqueue_many("noop", [{}] * 40)
    await eventually(lambda: finished(crew), until=lambda now: now == 40)
    assert (await numbers(crew))["jobd_slots"] == 6
    first = crew.pids[2]
    os.kill(first, signal.SIGKILL)
    seen = [40.0]

    async def count() -> bool:
        seen.append(await finished(crew))
        return crew.pids[2] != first and (await readiness(crew))[0] == 200

    await eventually(count, timeout=20)
    assert set(seen) == {40.0}
    await board.jobs.enqueue_many("noop", [{}] * 5)
    await eventually(lambda: finished(crew), until=lambda now: now == 45)
    found = await numbers(crew)
    assert (found["jobd_processes_replaced_total"], found["jobd_slots"]) == (1, 6)


async def test_what_a_process_counted_before_it_ended_in_good_order_stays_in_the_totals(
    daemons: Daemons, board: Board
):
    crew = await daemons.start_crew(2)
    job = await board.jobs.enqueue("terminate_self", {"times": 1})
    await board.in_state(job.id, "succeeded")
    line = await crew.told("process ended, replacing it")
    assert line["detail"] == "exit code 0"
    # Nobody had asked before it ended.
    assert await finished(crew) == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_lets_the_handlers_of_all_processes_end(
    daemons: Daemons, board: Board, tmp_path: Path, number: signal.Signals
):
    crew = await daemons.start_crew(2, "--concurrency", "5")
    gate = tmp_path / "gate"
    ids = await waiting_jobs(board, gate, 10)
    crew.signal(number)
    await crew.logged("stopping", times=3)
    await board.claims_end(2)
    left = await board.jobs.enqueue("noop")
    status, answer = await readiness(crew)
    assert (status, answer["reasons"]) == (503, ["shutting down"])
    gate.touch()
    assert await crew.ended() == 0
    assert await board.runs(ids) == dict.fromkeys(ids, 1)
    assert (await board.row(left.id))["claim_no"] == 0
    assert await board.scalar("select count(*) from jobd.workers") == 0


async def test_a_signal_to_every_process_of_the_service_is_one_signal(
    daemons: Daemons, board: Board, tmp_path: Path
):
    crew = await daemons.start_crew(2, "--concurrency", "5", shutdown_grace="10m")
    gate = tmp_path / "gate"
    ids = await waiting_jobs(board, gate, 10)
    for pid in (*crew.pids.values(), crew.pid, *crew.pids.values()):
        os.kill(pid, signal.SIGTERM)
    await crew.logged("stopping", times=3)
    gate.touch()
    assert await crew.ended() == 0
    assert await board.runs(ids) == dict.fromkeys(ids, 1)


async def test_a_second_signal_cuts_the_grace_of_all(daemons: Daemons, board: Board, tmp_path: Path):
    crew = await daemons.start_crew(2, "--concurrency", "5", shutdown_grace="10m")
    ids = await waiting_jobs(board, tmp_path / "never", 10)
    crew.terminate()
    await crew.logged("stopping", times=3)
    crew.terminate()
    assert await crew.ended() == 0
    rows = [await board.row(id) for id in ids]
    assert {(row["state"], row["attempt"], row["crashes"]) for row in rows} == {("ready", 0, 0)}
    assert await board.scalar("select count(*) from jobd.workers") == 0


@pytest.mark.slow
async def test_the_exit_code_tells_of_the_process_that_ended_worst(
    daemons: Daemons, board: Board, tmp_path: Path
):
    crew = await daemons.start_crew(2, shutdown_grace="0.5s")
    never = tmp_path / "never"
    job = await board.jobs.enqueue("block_until", {"path": str(never)})
    await waited_for(never)
    crew.terminate()
    assert await crew.ended(timeout=30) == 70
    assert (await board.row(job.id))["state"] == "ready"


async def test_processes_end_in_good_order_when_their_supervisor_is_killed(
    daemons: Daemons, board: Board, tmp_path: Path
):
    crew = await daemons.start_crew(2, "--concurrency", "5")
    gate = tmp_path / "gate"
    ids = await waiting_jobs(board, gate, 10)
    crew.kill()
    await crew.logged("the supervisor is gone: ending", times=2)
    gate.touch()
    # The stream that all of them write to ends with the last of them.
    assert await crew.ended() == -signal.SIGKILL
    assert await board.runs(ids) == dict.fromkeys(ids, 1)
    assert await board.scalar("select count(*) from jobd.workers") == 0


async def test_until_idle_ends_when_every_process_has_nothing_left(daemons: Daemons, board: Board):
    ids = await board.jobs.enqueue_many("nap", [{"seconds": 0.01}] * 500)
    crew = await daemons.begin_crew(2, "--until-idle", "--concurrency", "5")
    assert await crew.ended() == 0
    assert await board.runs(ids) == dict.fromkeys(ids, 1)


async def test_a_wrong_setting_is_told_once_and_ends_it_with_2(daemons: Daemons):
    crew = await daemons.begin_crew(3, app="tests.daemon.nothing:jobs")
    assert await crew.ended() == 2
    assert crew.output.count("there is no module tests.daemon.nothing") == 1


async def test_a_taken_port_is_told_once_and_ends_it_with_2(daemons: Daemons):
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = str(holder.getsockname()[1])
        crew = await daemons.begin_crew(3, http_port=port)
        assert await crew.ended() == 2
    assert crew.output.count("another process listens on") == 1


async def test_what_only_a_process_finds_out_at_its_start_is_told_once(empty_database_url: str):
    async with daemons_on(empty_database_url) as daemons:
        crew = await daemons.begin_crew(3, migrate="off")
        assert await crew.ended() == 1
        assert crew.output.count("run `jobd migrate`") == 1


async def test_the_others_wait_until_the_first_has_found_its_database(daemons: Daemons):
    crew = await daemons.begin_crew(3, database_url="postgresql://nobody@127.0.0.1:1/none")
    line = await crew.logged("waiting for the database")
    assert line["process"] == 1
    crew.terminate()
    assert await crew.ended() == 0
    assert {line.get("process") for line in crew.lines} <= {None, 1}


async def test_several_processes_may_start_on_an_empty_database(empty_database_url: str):
    async with daemons_on(empty_database_url, migrate="auto") as daemons:
        crew = await daemons.start_crew(3)
        crew.terminate()
        assert await crew.ended() == 0


async def test_processes_without_http_have_no_port_and_end_all_the_same(daemons: Daemons, board: Board):
    crew = await daemons.start_crew(2, "--only", "worker")
    assert (await crew.told("started"))["address"] is None
    job = await board.jobs.enqueue("noop")
    await board.in_state(job.id, "succeeded")
    crew.terminate()
    assert await crew.ended() == 0


async def test_one_process_has_no_supervisor(daemons: Daemons, board: Board):
    daemon = await daemons.start("--processes", "1")
    children = Path(f"/proc/{daemon.pid}/task/{daemon.pid}/children").read_text()
    assert children == ""
    assert "process" not in await daemon.logged("started")
