"""The table of bad inputs, row by row: what is refused before anything reaches the database.

The rows of schedules are in test_bad_inputs_schedules.py, those that need a database in
test_bad_inputs_stored.py, those of the command line in test_bad_inputs_commands.py; the texts stand in
docs/errors.md alone.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import asyncpg
import pytest

from jobd import JobContext, Jobs
from tests.edges import (
    bad_inputs,
    test_bad_inputs_commands,
    test_bad_inputs_limits,
    test_bad_inputs_schedules,
    test_bad_inputs_stored,
)

ROWS = bad_inputs.read_rows()

# Nobody answers there: whatever is not refused before a statement is sent fails otherwise.
NOWHERE = "postgresql://nobody@127.0.0.1:1/nothing"


def nested(levels: int) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for _ in range(levels):
        value = {"a": value}
    return value


def payload(value: Any) -> Callable[[Jobs], Any]:
    return lambda jobs: jobs.enqueue("noop", value)


def resize(value: Any) -> Callable[[Jobs], Any]:
    return lambda jobs: jobs.enqueue("resize", value)


def option(**options: Any) -> Callable[[Jobs], Any]:
    return lambda jobs: jobs.enqueue("noop", {}, **options)


def schedule(when: Any, **options: Any) -> Callable[[Jobs], Any]:
    return lambda jobs: jobs.schedules.add("nightly", when, "noop", **options)


PAYLOADS: dict[str, tuple[Callable[[Jobs], Any], tuple[str, ...]]] = {
    "payload-nul": (payload({"name": "a\0b"}), ("$.name", "index 1", "remove it")),
    "payload-surrogate": (payload({"names": ["a", "\ud800"]}), ("$.names[1]", "U+D800", "remove it")),
    "payload-nan": (payload({"ratio": math.nan}), ("$.ratio", "NaN", "send null")),
    "payload-huge-integer": (payload({"n": 10**4_999}), ("$.n", "64 bits", "as a string")),
    "payload-key-type": (payload({"sizes": {1: "s"}}), ("$.sizes", "int", "use str(key)")),
    "payload-bytes": (payload({"image": b"GIF89a"}), ("$.image", "bytes", "base64")),
    "payload-object": (payload({"user": object()}), ("$.user", "object", "pydantic model")),
    "payload-too-large": (payload({"image": "x" * 300_000}), ("$.image", "300,012", "raise max_payload")),
    "payload-too-deep": (payload(nested(65)), ("$.a.a", "64 levels", "flatten it")),
    "payload-misfit": (resize({"key": 5}), ("$.key", "an integer", "handler 'resize' takes")),
    "payload-missing-key": (resize({}), ("$.key", "missing", "handler 'resize' takes")),
    "payload-unexpected-key": (resize({"key": "a", "widht": 3}), ("$.widht", "did you mean 'width'?")),
    "payload-of-many": (
        lambda jobs: jobs.enqueue_many("noop", [{"n": 1}, {"n": math.inf}]),
        ("$[1].n", "Infinity", "send null"),
    ),
    "payloads-not-a-list": (
        lambda jobs: jobs.enqueue_many("noop", {"n": 1}),
        ("$", "dict", "give a list of payloads"),
    ),
}

OPTIONS: dict[str, tuple[Callable[[Jobs], Any], tuple[str, ...]]] = {
    "option-unknown": (option(prioritty=5), ("prioritty", "did you mean priority?")),
    "option-of-one-job": (
        lambda jobs: jobs.enqueue_many("noop", [{}], id="0192f0c1-22e5-7d3c-8a54-5f1f3a1f9f10"),  # type: ignore[call-arg]
        ("'id'", "use enqueue"),
    ),
    "run-at-naive": (
        option(run_at=datetime(2030, 1, 1)),
        ("run_at", "datetime(2030, 1, 1", "with a time zone"),
    ),
    "run-at-and-delay": (
        option(run_at=datetime(2030, 1, 1, tzinfo=UTC), delay="5s"),
        ("delay", "'5s'", "run_at", "give one of them"),
    ),
    "delay-nonsense": (option(delay="5 minutes"), ("delay", "'5 minutes'", '"15m"')),
    "delay-negative": (option(delay=-5), ("delay", "-5", "must not be negative")),
    "kind-name": (lambda jobs: jobs.enqueue("send mail", {}), ("kind", "'send mail'", "A-Z a-z 0-9")),
    "queue-name": (option(queue="high/priority"), ("queue", "'high/priority'", "A-Z a-z 0-9")),
    "priority-type": (option(priority="high"), ("priority", "'high'", "whole number")),
    "priority-range": (option(priority=2**31), ("priority", "2147483648", "to 2147483647")),
    "max-attempts": (option(max_attempts=0), ("max_attempts", "0", "from 1")),
    "timeout-zero": (option(timeout=0), ("timeout", "0", "leave it out")),
    "deadline-policy": (option(deadline_policy="skip"), ("deadline_policy", "'skip'", "'run' or 'drop'")),
    "deadline-without-tolerance": (
        option(deadline_policy="drop"),
        ("deadline_policy", "'drop'", "needs a delay_tolerance"),
    ),
    "unique-for-word": (
        option(unique_key="a", unique_for="while waiting"),
        ("unique_for", "'while waiting'", "'waiting'", "24h"),
    ),
    "unique-for-nothing": (option(unique_key="a", unique_for=0), ("unique_for", "0", "longer than nothing")),
    "unique-for-alone": (option(unique_for="24h"), ("unique_for", "'24h'", "unique_key", "give one")),
    "on-conflict-word": (
        option(unique_key="a", on_conflict="skip"),
        ("on_conflict", "'skip'", "'keep', 'replace' or 'reject'"),
    ),
    "on-conflict-alone": (
        option(on_conflict="replace"),
        ("on_conflict", "'replace'", "unique_key", "give one"),
    ),
    "unique-key-of-many": (
        lambda jobs: jobs.enqueue_many("noop", [{}], unique_key="a"),  # type: ignore[arg-type]
        ("unique_key", "'a'", "a function"),
    ),
    "unique-key-length": (option(unique_key="k" * 501), ("unique_key", "'kkk", "take a hash")),
    "tenant-length": (option(tenant_id="t" * 256), ("tenant_id", "'ttt", "1 to 255 bytes")),
    "backoff-name": (option(backoff="quadratic"), ("backoff", "'quadratic'", '"exponential"')),
    "backoff-function": (option(backoff=lambda attempt: 3), ("backoff", "lambda", "@jobs.handler")),
    "tags-text": (option(tags="urgent"), ("tags", "'urgent'", "list of strings")),
    "id-text": (option(id="17"), ("id", "'17'", "like 0189")),
    "function-unregistered": (
        lambda jobs: jobs.enqueue(nested, {}),
        ("nested", "@jobs.handler", "enqueue by kind"),
    ),
    "connection-type": (option(connection=NOWHERE), ("connection", "str", "take a connection first")),
    "processes-in-an-application": (
        lambda jobs: jobs.running(processes=2).__aenter__(),
        ("processes", "2", "jobd run --processes"),
    ),
    "database-url-missing": (
        lambda jobs: Jobs().client,
        ("JOBD_DATABASE_URL", "Jobs(database_url=...)"),
    ),
}

MANY: dict[str, tuple[Callable[[Jobs], Any], tuple[str, ...]]] = {
    "many-nothing": (lambda jobs: jobs.cancel_many(), ("filter", "cancel", "all=True")),
    "many-all-and-filter": (
        lambda jobs: jobs.delete_many(all=True, queue="mail"),
        ("queue", "'mail'", "all means every one", "leave one out"),
    ),
    "many-state": (lambda jobs: jobs.retry_many(state="ready"), ("state", "'ready'", "give any of")),
    "many-unknown": (
        lambda jobs: jobs.cancel_many(tenant="acme"),  # type: ignore[call-arg]
        ("tenant", "did you mean tenant_id?"),
    ),
    "many-queue": (lambda jobs: jobs.cancel_many(queue="high priority"), ("'high priority'", "A-Z a-z")),
    "many-to": (lambda jobs: jobs.move_many(queue="mail", to="slow lane"), ("'slow lane'", "A-Z a-z")),
    "many-age": (lambda jobs: jobs.cancel_many(older_than="2 days"), ("older_than", "'2 days'", '"7d"')),
    "many-ages": (
        lambda jobs: jobs.retry_many(older_than="2d", newer_than="1d"),
        ("newer_than", "'1d'", "a longer time"),
    ),
    "many-empty": (lambda jobs: jobs.cancel_many(tag=[]), ("tag", "0 values", "leave it out")),
    "many-no-change": (lambda jobs: jobs.reschedule_many(queue="mail"), ("run_at", "priority, or both")),
    "many-flag": (
        lambda jobs: jobs.delete_many(all="no"),  # type: ignore[arg-type]
        ("all", "'no'", "True or False"),
    ),
    "many-reason": (
        lambda jobs: jobs.cancel_many(queue="mail", reason=5),  # type: ignore[arg-type]
        ("reason", "5", "a string"),
    ),
    "many-limit": (lambda jobs: jobs.retry_many(all=True, limit=0), ("limit", "0", "from 1")),
}


def positional(*keys: str) -> None: ...


def generator(key: str) -> Any:
    yield key


async def database(connection: asyncpg.Connection, key: str) -> None: ...


async def by_context(ctx: JobContext) -> None: ...


def plain(ctx: JobContext) -> None: ...


def local_function() -> Callable[[str], None]:
    def inner(key: str) -> None: ...

    return inner


def two_resources(jobs: Jobs) -> None:
    jobs.resource(int, 1)
    jobs.resource(int, 2)


def prepared(function: Any, **rules: Any) -> Callable[[Jobs], Any]:
    """Declared, and looked at as a daemon does when it starts."""

    def declare(jobs: Jobs) -> None:
        jobs.handler("thumb", **rules)(function)
        jobs.registry.prepare([])

    return declare


HANDLERS: dict[str, tuple[Callable[[Jobs], Any], tuple[str, ...]]] = {
    "kind-taken": (
        lambda jobs: jobs.handler("resize")(by_context),
        ("'resize'", "by_context", "another kind"),
    ),
    "handler-kind-name": (lambda jobs: jobs.handler("send mail")(by_context), ("'send mail'", "A-Z a-z")),
    "handler-positional": (prepared(positional), ("'thumb'", "'keys'", "name the parameters")),
    "handler-generator": (prepared(generator), ("'thumb'", "generator", "return a value")),
    "handler-class": (prepared(JobContext), ("'thumb'", "JobContext", "declare a function")),
    "handler-parameter": (
        prepared(database),
        ("'thumb'", "'connection'", "Connection", "register the resource"),
    ),
    "handler-timeout": (
        prepared(by_context, timeout="soon"),
        ("timeout of handler 'thumb'", "'soon'", '"30s"'),
    ),
    "handler-coroutine-in-thread": (
        prepared(by_context, run_in="thread"),
        ("'thumb'", "coroutine", "leave run_in out"),
    ),
    "handler-local-in-process": (
        prepared(local_function(), run_in="process"),
        ("'thumb'", "inside a function", "top of a module"),
    ),
    "handler-context-in-process": (
        prepared(plain, run_in="process"),
        ("'thumb'", "'ctx'", "run it in a thread"),
    ),
    "middleware-plain": (lambda jobs: jobs.middleware(plain), ("plain", "async def name(ctx, call_next)")),  # type: ignore[arg-type]
    "resource-twice": (two_resources, ("int", "one per type")),
}

SCHEDULES: dict[str, tuple[Callable[[Jobs], Any], tuple[str, ...]]] = {
    "schedule-weekday-count": (schedule("0 9 * * FRI#6"), ("day-of-week", "'FRI#6'", "1 to 5")),
    "schedule-step": (schedule("*/0 * * * *"), ("minute", "'*/0'", "from 1")),
    "schedule-fields": (schedule("30 2 * *"), ("schedule", "'30 2 * *'", '"30 2 * * *"')),
    "schedule-seconds": (schedule("0 30 2 * * *"), ("schedule", "'0 30 2 * * *'", '"first"')),
    "schedule-seconds-unused": (
        schedule("30 2 * * *", seconds="first"),
        ("seconds", "'first'", "leave it out"),
    ),
    "schedule-seconds-place": (schedule("0 30 2 * * *", seconds="middle"), ("seconds", "'middle'", '"last"')),
    "schedule-alias": (schedule("@dayly"), ("schedule", "'@dayly'", "@daily")),
    "schedule-length": (schedule("1," * 150), ("schedule", "300", "256")),
    "schedule-over": (schedule("2020-01-01T08:00Z"), ("2020-01-01T08:00Z",)),
    "schedule-moment-naive": (schedule(datetime(2030, 1, 1)), ("when", "datetime(2030", "datetime.now(UTC)")),
    "schedule-interval": (schedule("every 5 minutes"), ("interval", "'5 minutes'", '"15m"')),
    "schedule-interval-zero": (schedule("every 0s"), ("schedule", "'every 0s'", "from 1s")),
    "schedule-eventbridge": (schedule("cron(0 0 * * * *)"), ("schedule", "'cron(0 0 * * * *)'", "?")),
    "zone-dst": (schedule("30 2 * * *", dst="never"), ("dst", "'never'", '"skip"')),
    "schedule-catch-up": (schedule("@daily", catch_up="some"), ("catch_up", "'some'", "last")),
    "schedule-cap": (schedule("@daily", cap=5000), ("cap", "5000", "1000")),
    "schedule-overlap": (schedule("@daily", overlap="wait"), ("overlap", "'wait'", "queue")),
    "schedule-instances": (schedule("@daily", max_instances=0), ("max_instances", "0", "from 1")),
    "schedule-grace": (schedule("@daily", misfire_grace="soon"), ("misfire_grace", "'soon'", '"15m"')),
    "schedule-grace-zero": (schedule("@daily", misfire_grace="0s"), ("misfire_grace", "'0s'", "1s or more")),
    "schedule-stagger": (schedule("@daily", stagger="2d"), ("stagger", "'2d'", "at most 1d")),
    "schedule-far": (schedule("2150-01-01T00:00"), ("when", "'2150-01-01T00:00'", "more than 8 years")),
    "zone-empty": (schedule("@daily", tz=""), ("tz", "''", "Europe/Berlin")),
    "schedule-option-timezone": (schedule("@daily", timezone="UTC"), ("timezone", "did you mean tz")),
    "schedule-option": (schedule("@daily", jiter="5s"), ("jiter", "jitter")),
}


async def declared_twice(jobs: Jobs) -> None:
    jobs.overrides["schedules"] = [{"id": "resize", "when": "@daily", "kind": "resize"}]

    @jobs.every("15m", id="resize")
    def other() -> None: ...

    async with jobs.running():
        pass


SCHEDULES["schedule-declared-twice"] = (declared_twice, ("schedules[0].id", "'resize'", "another id"))


async def declared_misfit(jobs: Jobs) -> None:
    @jobs.every("15m", id="often")
    def other(key: str) -> None: ...

    async with jobs.running():
        pass


SCHEDULES["schedule-declared-payload"] = (
    declared_misfit,
    ("payload of schedule 'often'", "'***'", "$.key: missing", "takes the keys key"),
)

REFUSED = PAYLOADS | OPTIONS | MANY | HANDLERS | SCHEDULES


@pytest.fixture
def jobs(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> Jobs:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("JOBD_DATABASE_URL", raising=False)
    jobs = Jobs(NOWHERE)

    @jobs.handler("resize")
    async def resize(key: str, width: int = 100) -> None: ...

    return jobs


@pytest.mark.parametrize("row", REFUSED)
async def test_it_is_refused_in_words_that_name_place_value_and_remedy(row: str, jobs: Jobs):
    act, names = REFUSED[row]
    with pytest.raises(Exception) as refusal:
        answer = act(jobs)
        if inspect.isawaitable(answer):
            await answer
    ROWS[row].check(refusal.type.__name__, str(refusal.value), *names)


def test_every_row_of_the_page_is_shown_by_a_test_and_every_test_has_its_row():
    import tests.edges.test_bad_inputs as here

    modules = (
        here,
        test_bad_inputs_limits,
        test_bad_inputs_schedules,
        test_bad_inputs_stored,
        test_bad_inputs_commands,
    )
    shown = [row for module in modules for row in bad_inputs.shown_in(module)]
    assert sorted(shown) == sorted(ROWS)
