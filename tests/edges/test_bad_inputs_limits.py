"""The table of bad inputs, row by row: limits, rates and templates of keys."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from jobd import Jobs
from tests.edges.bad_inputs import read_rows

ROWS = read_rows()


def queue(**limits: Any) -> Callable[[Jobs], Any]:
    return lambda jobs: jobs.queues.set("mail", **limits)


def tenant(**limits: Any) -> Callable[[Jobs], Any]:
    return lambda jobs: jobs.tenants.set("t1", **limits)


def handler(**options: Any) -> Callable[[Jobs], Any]:
    def declare(jobs: Jobs) -> None:
        @jobs.handler("sync", **options)
        async def sync(user_id: str) -> None: ...

    return declare


def payload(**values: Any) -> Callable[[Jobs], Any]:
    async def enqueue(jobs: Jobs) -> None:
        @jobs.handler("sync", concurrency_key="user:{user_id}")
        async def sync(**rest: Any) -> None: ...

        await jobs.enqueue("sync", values)

    return enqueue


async def after_order(jobs: Jobs) -> None:
    await jobs.kinds.set("sync", ordered=True)
    await jobs.kinds.set("sync", key_limit=3)


# What each error has to name: the limit, its value, and what would be right.
REFUSED: dict[str, tuple[Callable[[Jobs], Any], tuple[str, ...]]] = {
    "limit-number": (queue(max_running=-1), ("max_running", "-1", "from 0")),
    "limit-text": (tenant(max_pending="100"), ("max_pending", "'100'", "whole number")),
    "limit-name": (queue(max_runing=10), ("'max_runing'", "max_running?")),
    "limit-none": (queue(), ("limits: none is named",)),
    "limit-flag": (queue(fair="yes"), ("fair", "'yes'", "True or False")),
    "limit-weight": (queue(weight=0), ("weight", "0", "from 1 to 1000", "None for 1")),
    "limit-on-full": (tenant(on_full="drop"), ("on_full", "'drop'", "'refuse'")),
    "limit-by": (
        lambda jobs: jobs.queues.reset("mail", by=7),  # type: ignore[arg-type]
        ("by", "7", "a string"),
    ),
    "limit-tenant": (
        lambda jobs: jobs.tenants.set("t" * 256, max_running=1),
        ("tenant", "'ttt", "1 to 255 bytes"),
    ),
    "rate-words": (queue(rate="100 per minute"), ("rate", "'100 per minute'", '"100/m"')),
    "rate-zero": (queue(rate="0/s"), ("rate", "'0/s'", "pause")),
    "rate-period": (queue(rate="1/400d"), ("rate", "'1/400d'", "366d")),
    "rate-burst-alone": (queue(burst=5), ("burst", "5", "set both")),
    "rate-burst-taken": (queue(burst=5, rate=None), ("burst", "5", "leave it out")),
    "key-order-and-limit": (
        lambda jobs: jobs.kinds.set("sync", ordered=True, key_limit=3),
        ("key_limit", "3", "leave it out"),
    ),
    "key-order-before": (after_order, ("key_limit", "3", "ordered", "too")),
    "key-limit-of-handler": (handler(key_limit=0), ("key_limit", "'sync'", "0", "from 1")),
    "key-template-field": (handler(concurrency_key="user:{usr_id}"), ("'sync'", "{usr_id}", "{user_id}?")),
    "key-template-format": (handler(concurrency_key="{user_id:03}"), ("'{user_id:03}'", "a name alone")),
    "key-template-broken": (handler(concurrency_key="user:{"), ("'user:{'", "{{ or }}")),
    "key-missing": (payload(), ("$.user_id", "'user:{user_id}'", "give concurrency_key")),
    "key-value": (payload(user_id=[7]), ("$.user_id", "an array", "a text, a number")),
    "key-long": (payload(user_id="x" * 600), ("605", "'user:{user_id}'", "at most 500")),
}


@pytest.fixture
async def jobs(database_url: str) -> AsyncIterator[Jobs]:
    async with Jobs(database_url) as jobs:
        yield jobs


@pytest.mark.parametrize("row", REFUSED)
async def test_it_is_refused_in_words_that_name_limit_value_and_remedy(row: str, jobs: Jobs):
    act, names = REFUSED[row]
    with pytest.raises(Exception) as refusal:
        answer = act(jobs)
        if inspect.isawaitable(answer):
            await answer
    ROWS[row].check(refusal.type.__name__, str(refusal.value), *names)
