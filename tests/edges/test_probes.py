"""/livez, /readyz, /health and /metrics over a real port."""

from __future__ import annotations

import asyncio
from uuid import UUID

import anyio
import httpx
import pytest

from jobd.api.probes import create_app
from jobd.events import Events, JobEnqueued
from tests.edges.served import Arrivals, KnownCondition, client_of, depth, new_metrics

ROUTES = ["/livez", "/readyz", "/health", "/metrics", "/nothing-here", "/", "/docs", "/openapi.json"]


async def test_livez_is_green_while_the_loops_turn() -> None:
    async with client_of(create_app(KnownCondition(), new_metrics())) as client:
        answer = await client.get("/livez")

    assert answer.status_code == 200
    assert answer.json() == {"status": "healthy", "reasons": []}


async def test_livez_is_red_with_the_reason_when_a_loop_does_not_turn() -> None:
    condition = KnownCondition(why_stalled="the work loop has not turned for 61 s")
    async with client_of(create_app(condition, new_metrics())) as client:
        answer = await client.get("/livez")

    assert answer.status_code == 503
    assert answer.json() == {"status": "unhealthy", "reasons": ["the work loop has not turned for 61 s"]}


async def test_livez_asks_nothing_of_the_database() -> None:
    condition = KnownCondition(checking=anyio.sleep_forever, counting=anyio.sleep_forever)
    async with client_of(create_app(condition, new_metrics())) as client:
        assert (await client.get("/livez")).status_code == 200


@pytest.mark.parametrize("path", ["/readyz", "/health"])
async def test_readiness_gives_every_reason(path: str) -> None:
    condition = KnownCondition()
    async with client_of(create_app(condition, new_metrics())) as client:
        ready = await client.get(path)
        condition.why_unready = ["shutting down", "no beat was confirmed for 12 s"]
        unready = await client.get(path)

    assert ready.status_code == 200
    assert ready.json() == {"status": "healthy", "reasons": []}
    assert unready.status_code == 503
    assert unready.json() == {
        "status": "unhealthy",
        "reasons": ["shutting down", "no beat was confirmed for 12 s"],
    }


async def test_probes_say_who_answers() -> None:
    worker = UUID("0190a000-0000-7000-8000-000000000000")
    condition = KnownCondition(
        description={"worker": worker, "queues": ["default"], "uptime_seconds": 1.5, "status": "a name taken"}
    )
    async with client_of(create_app(condition, new_metrics())) as client:
        answer = await client.get("/readyz")

    assert answer.json() == {
        "worker": str(worker),
        "queues": ["default"],
        "uptime_seconds": 1.5,
        "status": "healthy",
        "reasons": [],
    }


async def test_a_check_that_does_not_end_is_a_reason_and_not_a_hanging_probe() -> None:
    condition = KnownCondition(checking=anyio.sleep_forever)
    async with client_of(create_app(condition, new_metrics(), limit=0.05)) as client:
        answer = await client.get("/readyz")

    assert answer.status_code == 503
    assert answer.json()["reasons"] == ["the check did not end within 0.05 s"]


async def test_a_check_that_fails_is_a_reason_and_keeps_its_text_to_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def fail() -> None:
        raise RuntimeError("password=hunter2")

    async with client_of(create_app(KnownCondition(checking=fail), new_metrics())) as client:
        answer = await client.get("/readyz")

    assert answer.status_code == 503
    assert answer.json()["reasons"] == ["the check failed: RuntimeError, see the log"]
    assert "hunter2" in caplog.text


async def test_a_crowd_of_probes_asks_the_database_twice_at_most() -> None:
    asked = 0
    go_on = asyncio.Event()

    async def check() -> None:
        nonlocal asked
        asked += 1
        await go_on.wait()

    arrivals = Arrivals(create_app(KnownCondition(checking=check), new_metrics()))
    statuses = []
    async with client_of(arrivals) as client, anyio.create_task_group() as tasks:

        async def probe() -> None:
            statuses.append((await client.get("/readyz")).status_code)

        for _ in range(20):
            tasks.start_soon(probe)
        await arrivals.reach(20)
        go_on.set()

    assert statuses == [200] * 20
    assert asked == 2


async def test_a_probe_never_gets_an_answer_that_was_sought_before_it_asked() -> None:
    go_on = asyncio.Event()
    condition = KnownCondition(checking=go_on.wait)
    arrivals = Arrivals(create_app(condition, new_metrics()))
    answers: dict[str, list[str]] = {}
    async with client_of(arrivals) as client, anyio.create_task_group() as tasks:

        async def probe(name: str) -> None:
            answers[name] = (await client.get("/readyz")).json()["reasons"]

        tasks.start_soon(probe, "before")
        await arrivals.reach(1)
        await anyio.wait_all_tasks_blocked()
        condition.why_unready = ["shutting down"]
        tasks.start_soon(probe, "after")
        await arrivals.reach(2)
        go_on.set()

    assert answers == {"before": [], "after": ["shutting down"]}


async def test_metrics_show_counters_gauges_and_queues() -> None:
    events = Events()
    condition = KnownCondition(queues=[depth("images", ready=7)], numbers={"slots_total": 100})
    async with client_of(create_app(condition, new_metrics(events))) as client:
        events.emit(JobEnqueued(kind="resize", queue="images"))
        answer = await client.get("/metrics")

    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert 'jobd_jobs_enqueued_total{kind="resize",queue="images"} 1.0' in answer.text
    assert 'jobd_jobs_ready{queue="images"} 7.0' in answer.text
    assert 'jobd_slots{state="total"} 100.0' in answer.text
    assert "jobd_database_up 1.0" in answer.text


async def test_metrics_answer_in_openmetrics_when_asked() -> None:
    async with client_of(create_app(KnownCondition(), new_metrics())) as client:
        answer = await client.get(
            "/metrics", headers={"accept": "application/openmetrics-text;version=1.0.0"}
        )

    assert answer.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
    assert answer.text.endswith("# EOF\n")


async def test_metrics_answer_while_the_database_does_not() -> None:
    condition = KnownCondition(
        counting=anyio.sleep_forever, numbers={"lease_age_seconds": 42, "database_up": 1}
    )
    async with client_of(create_app(condition, new_metrics(), limit=0.05)) as client:
        answer = await client.get("/metrics")

    assert answer.status_code == 200
    assert "jobd_lease_age_seconds 42.0" in answer.text
    assert "jobd_database_up 0.0" in answer.text
    assert "jobd_jobs_ready{" not in answer.text


async def test_metrics_answer_when_counting_the_queues_fails() -> None:
    async def fail() -> None:
        raise OSError("connection reset")

    async with client_of(create_app(KnownCondition(counting=fail), new_metrics())) as client:
        answer = await client.get("/metrics")

    assert answer.status_code == 200
    assert "jobd_database_up 0.0" in answer.text


@pytest.mark.parametrize("path", ["/nothing-here", "/", "/docs", "/redoc", "/openapi.json", "/livez/"])
async def test_what_does_not_exist_is_said_in_json(path: str) -> None:
    async with client_of(create_app(KnownCondition(), new_metrics())) as client:
        answer = await client.get(path)

    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/json"
    assert answer.json() == {"error": "Not Found"}


async def test_probes_take_no_other_method() -> None:
    async with client_of(create_app(KnownCondition(), new_metrics())) as client:
        answer = await client.post("/readyz", content=b"x" * 100_000)

    assert answer.status_code == 405
    assert answer.json() == {"error": "Method Not Allowed"}
    assert set(answer.headers["allow"].split(", ")) == {"GET", "HEAD"}


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/metrics"])
async def test_head_has_the_status_and_no_body(path: str) -> None:
    async with client_of(create_app(KnownCondition(), new_metrics())) as client:
        answer = await client.head(path)

    assert (answer.status_code, answer.content) == (200, b"")


def assert_guarded(answer: httpx.Response) -> None:
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["x-frame-options"] == "DENY"
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert answer.headers["cache-control"] == "no-store"
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert "server" not in answer.headers


@pytest.mark.parametrize("path", ROUTES)
async def test_every_answer_carries_the_security_headers(path: str) -> None:
    async with client_of(create_app(KnownCondition(why_unready=["no"]), new_metrics())) as client:
        assert_guarded(await client.get(path))


async def test_an_unexpected_error_tells_the_client_an_id_and_nothing_else(
    caplog: pytest.LogCaptureFixture,
) -> None:
    condition = KnownCondition(numbers={"password=hunter2": 1})
    async with client_of(create_app(condition, new_metrics())) as client:
        answer = await client.get("/metrics")

    assert answer.status_code == 500
    assert_guarded(answer)
    assert set(answer.json()) == {"error", "request_id"}
    assert "hunter2" not in answer.text
    assert answer.json()["request_id"] in caplog.text
